"""The JSON documents of `probe`, `selftest` and `maillog`: their fields, and the JSON Schemas of them.

``docs/generate.py`` writes the schemas to ``docs/``. What a command prints is one of these models, so that
it cannot say anything that its schema does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from backport.artifacts import Check, Verdict
from backport.maillog.tally import Direction, Tls
from backport.probe.clients import Fate


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


class ClientPart(Part):
    """A client of some years, and what it would get: computed from what was seen."""

    client: str
    fate: Fate
    """`not known` where what was seen does not tell."""
    protocol: str
    cipher: str
    """One that the server was seen to choose, and that the client has; empty where there is none."""
    reason: str


class ProbeDocument(ExaminationDocument):
    """What `backport probe --json` prints."""

    server: ServerPart
    connections: NonNegativeInt
    """How many were opened."""
    session: SessionPart | None
    """Null where the default client got none."""
    certificates: tuple[CertificatePart, ...]
    """In the order in which they were sent."""
    clients: tuple[ClientPart, ...]
    """Who can still talk to the server; empty where no handshake works."""
    checks: tuple[CheckPart, ...]
    transcript: tuple[str, ...]
    """Its lines: every connection under its heading, times in seconds since each one's beginning."""


class SelfTestDocument(ExaminationDocument):
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


class TotalPart(Part):
    """All messages of one direction and version."""

    direction: Direction
    """Whether the peers connected to this Exim, or this Exim to them."""
    tls: Tls
    """OpenSSL's name of the version; `unknown`: TLS whose version the log does not tell."""
    peers: NonNegativeInt
    messages: NonNegativeInt
    unlisted: NonNegativeInt
    """How many of the messages are of peers beyond the number that is kept apart."""


class UsagePart(Part):
    """What one peer used in one direction of one version of TLS."""

    direction: Direction
    peer: str
    """The host's name where Exim had verified or looked it up, else its address; as strangers made it."""
    tls: Tls
    messages: NonNegativeInt
    last_seen: str
    """ISO 8601 in the log's own time, with its offset where the log has one."""
    current: bool
    """Whether no later message came or went another way."""
    suites: dict[str, int]
    """Messages by cipher suite, in the names of the TLS library that Exim used."""


class FailuresPart(Part):
    """How often TLS with a peer was tried or demanded and did not come about."""

    direction: Direction
    peer: str
    count: NonNegativeInt
    last_seen: str


class PlacePart(Part):
    """A line of a file, counted from 1."""

    file: str
    line: int


class UnclearPart(Part):
    """The lines that can be read in two ways, and are not counted."""

    lines: NonNegativeInt
    first: PlacePart | None


class MaillogDocument(Document):
    """What `backport maillog --json` prints."""

    lines: NonNegativeInt
    """How many were read."""
    totals: tuple[TotalPart, ...]
    peers: tuple[UsagePart, ...]
    failures: tuple[FailuresPart, ...]
    unlisted_failures: NonNegativeInt
    """Failures with peers beyond the number that is kept apart."""
    unclear: UnclearPart


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
    """That of the key that signed what readers see."""
