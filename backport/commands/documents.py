"""The JSON documents of `probe` and `selftest`: their fields, and the JSON Schema that follows from them.

``docs/generate.py`` writes the schemas to ``docs/``. What a command prints is one of these models, so that
it cannot say anything that its schema does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from backport.artifacts import Check, Verdict

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The dialect of the schemas (JSON Schema, draft 2020-12)."""


class Part(BaseModel):
    """Base of a document's tables."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class CheckPart(Part):
    """One thing that was examined."""

    id: str = Field(pattern=r"^[a-z0-9]+(\.[a-z0-9._-]+)+$")
    """Stable: it also names the JUnit test case."""
    title: str
    verdict: Verdict
    expected: str
    found: str
    evidence: str
    advice: str
    """What to do about a `fail`, `error` or `warn`; for `skipped`, the reason."""

    @classmethod
    def of(cls, checks: Sequence[Check]) -> tuple[CheckPart, ...]:
        """The checks of an examination, in its order."""
        return tuple(cls.model_validate(check, from_attributes=True) for check in checks)


class Document(Part):
    """What every examination says of itself."""

    version: Literal[1] = 1
    """It grows when a key changes its meaning or goes; keys may be added without."""
    tool: str
    """The version of backport that examined."""
    started: AwareDatetime
    """ISO 8601, UTC."""
    seconds: NonNegativeFloat
    """Wall time."""
    passed: bool
    """Whether no check has the verdict `fail` or `error`."""
    summary: str
    """The result in one line."""


class ServerPart(Part):
    """The server that was asked for."""

    host: str
    """A name in ASCII, or an address."""
    port: int = Field(ge=1, le=65535)
    address: str | None
    """Where the connections went; null where nothing answered."""
    servername: str | None
    """The name that the client sent and that the certificate must bear; null for an address."""
    direct_tls: bool
    """TLS from the first octet on, without STARTTLS (RFC 8314)."""


class SessionPart(Part):
    """What the default client negotiated, in OpenSSL's names."""

    protocol: str
    cipher: str
    group: str | None
    """The key exchange's group, where the client's TLS library tells it."""


class CertificatePart(Part):
    """A certificate as it was sent; all but its digest is null where it cannot be read."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the whole certificate in DER."""
    serial: str | None = None
    """Hexadecimal."""
    subject: str | None = None
    """RFC 4514."""
    issuer: str | None = None
    not_before: AwareDatetime | None = None
    not_after: AwareDatetime | None = None
    names: tuple[str, ...] | None = None
    """The subject alternative names: DNS names, then addresses."""


class ProbeDocument(Document):
    """What `backport probe --json` prints."""

    server: ServerPart
    connections: NonNegativeInt
    """How many were opened."""
    session: SessionPart | None
    """Null where the default client got none."""
    certificates: tuple[CertificatePart, ...]
    """In the order in which they were sent."""
    checks: tuple[CheckPart, ...]
    transcript: tuple[str, ...]
    """Its lines: every connection under its heading, times in seconds since each one's beginning."""


class SelfTestDocument(Document):
    """What `backport selftest --json` prints."""

    recipe: str
    target: str
    repository: str
    """The base URL of the repository that was examined."""
    headline: tuple[str, ...]
    """The handshakes before and after the update."""
    checks: tuple[CheckPart, ...]
    transcript: tuple[str, ...]
    """Its lines: every connection under its heading, times in seconds since each one's beginning."""


DOCUMENTS: dict[str, type[Document]] = {"probe": ProbeDocument, "selftest": SelfTestDocument}
"""The documents by the command that prints them."""


def schema_of(document: type[Document]) -> dict[str, Any]:
    """The JSON Schema of a document as it is printed: what is always there is required."""
    return {"$schema": DIALECT, **document.model_json_schema(mode="serialization")}
