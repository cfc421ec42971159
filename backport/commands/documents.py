"""The JSON documents of `probe`, `selftest` and `maillog`: their fields, and the JSON Schemas of them.

``docs/generate.py`` writes the schemas to ``docs/``. What a command prints is one of these models, so that
it cannot say anything that its schema does not know.
"""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from backport.artifacts import Check
from backport.probe.clients import Row


class Part(BaseModel):
    """Base of a document's tables."""

    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )


class Document(Part):
    """What every document begins with."""

    version: Literal[1] = 1
    """It grows when a key changes its meaning or goes; keys may be added without."""


class ExaminationDocument(Document):
    """What every examination says of itself."""

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
    addresses: tuple[str, ...]
    """All that the name has, as far as they could be found."""
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
    """The key exchange's group, where the client's TLS library names it."""


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


class ProbeDocument(ExaminationDocument):
    """What `backport probe --json` prints."""

    server: ServerPart
    connections: NonNegativeInt
    """How many were opened."""
    session: SessionPart | None
    """Null where the default client got none."""
    certificates: tuple[CertificatePart, ...]
    """In the order in which they were sent."""
    clients: tuple[Row, ...]
    """Who can still talk to the server; empty where no handshake works."""
    checks: tuple[Check, ...]
    transcript: tuple[str, ...]
    """Its lines: every connection under its heading, times in seconds since each one's beginning."""


class ResolverPart(Part):
    """The resolver that was asked."""

    address: str
    port: int = Field(ge=1, le=65535)
    distrust: str
    """Why what it says of signatures does not count; empty where it does."""


class ExchangerPart(Part):
    """A mail exchanger of a domain."""

    name: str
    preference: NonNegativeInt | None
    """Null where the domain has no MX record: then it is the domain itself."""
    checks: tuple[Check, ...]
    servers: tuple[ProbeDocument, ...]
    """One an address; `connections` is 0 where there is no way to it from here."""


class DomainDocument(ExaminationDocument):
    """What `backport probe --domain --json` prints."""

    domain: str
    resolver: ResolverPart
    checks: tuple[Check, ...]
    exchangers: tuple[ExchangerPart, ...]
    """The most preferred first."""


class SelfTestDocument(ExaminationDocument):
    """What `backport selftest --json` prints."""

    recipe: str
    target: str
    repository: str
    """The base URL of the repository that was examined."""
    headline: tuple[str, ...]
    """The handshakes before and after the update."""
    checks: tuple[Check, ...]
    transcript: tuple[str, ...]
    """Its lines: every connection under its heading, times in seconds since each one's beginning."""


class PackagePart(Part):
    """One package of a generation."""

    path: str
    """Relative to the generation's folder."""
    nevra: str
    sha256: str
    """Digest of the file."""
    source: str
    """The file name of its source package; its own for a source package."""


class HostLinesPart(Part):
    """What `backport repo add-to-host --json` prints."""

    lines: tuple[str, ...]
    fingerprint: str
    """That of the key that signed what clients see."""
