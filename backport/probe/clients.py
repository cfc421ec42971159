"""Who can still talk to a server: which version and suite clients of some years would get, and whether their
trust stores would take its chain. Computed from what was seen, with no connection of their own.

What each offers is its default, as its documentation and the ClientHellos that are published of it have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from backport.probe.chain import name_of as subject_of
from backport.probe.hello import VERSION_NAMES, Answer
from backport.probe.suites import name_of, weakness
from backport.probe.tls import Session

_ORDER = ("SSLv2", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_GCM = (
    "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)  # fmt: skip
_CHACHA = ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305")
_CBC = (
    "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA",
    "AES256-SHA", "AES128-SHA",
)  # fmt: skip
_SHA2_CBC = (
    "ECDHE-ECDSA-AES256-SHA384", "ECDHE-RSA-AES256-SHA384", "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-RSA-AES128-SHA256", "AES256-SHA256", "AES128-SHA256",
)  # fmt: skip
_RSA_GCM = ("AES256-GCM-SHA384", "AES128-GCM-SHA256")
_DHE = (
    "DHE-RSA-AES256-GCM-SHA384", "DHE-RSA-AES128-GCM-SHA256", "DHE-RSA-AES256-SHA256",
    "DHE-RSA-AES128-SHA256", "DHE-RSA-AES256-SHA", "DHE-RSA-AES128-SHA",
)  # fmt: skip
_TRIPLE = ("ECDHE-RSA-DES-CBC3-SHA", "EDH-RSA-DES-CBC3-SHA", "DES-CBC3-SHA")


@dataclass(frozen=True, kw_only=True)
class Client:
    """A client's defaults: its newest and oldest version, and its suites of TLS 1.2 and older."""

    name: str
    newest: str
    oldest: str
    suites: tuple[str, ...]
    fetches: bool = False
    """Whether it fetches a missing intermediate by itself (RFC 5280 section 4.2.2.1) or knows it."""
    verifies: bool = True
    """Whether it refuses a chain that it does not trust; a mail server that sends does not, by default."""

    def takes(self, version: str) -> bool:
        """Whether the version is among its own."""
        return _ORDER.index(self.oldest) <= _ORDER.index(version) <= _ORDER.index(self.newest)


CLIENTS = (
    Client(name="Android 8", newest="TLSv1.2", oldest="TLSv1", suites=(*_CHACHA, *_GCM, *_CBC, *_RSA_GCM)),
    Client(
        name="Java 8", newest="TLSv1.2", oldest="TLSv1", suites=(*_GCM, *_SHA2_CBC, *_CBC, *_RSA_GCM, *_DHE)
    ),
    Client(
        name="iOS 12",
        newest="TLSv1.2",
        oldest="TLSv1",
        suites=(*_GCM, *_CHACHA, *_SHA2_CBC, *_CBC, *_RSA_GCM),
    ),
    Client(
        name="Outlook on Windows 10",
        newest="TLSv1.2",
        oldest="TLSv1",
        fetches=True,
        suites=(*_GCM, *_DHE[:2], *_SHA2_CBC, *_CBC, *_RSA_GCM, "DES-CBC3-SHA"),
    ),
    Client(
        name="Thunderbird", newest="TLSv1.3", oldest="TLSv1.2", fetches=True, suites=(*_GCM, *_CHACHA, *_CBC)
    ),
    Client(
        name="OpenSSL 1.0.1 (sending mail)",
        newest="TLSv1.2",
        oldest="SSLv3",
        verifies=False,
        suites=(*_GCM, *_SHA2_CBC, *_CBC, *_DHE, *_RSA_GCM, *_TRIPLE, "RC4-SHA", "ECDHE-RSA-RC4-SHA"),
    ),
    Client(
        name="OpenSSL 1.1.0 (sending mail)",
        newest="TLSv1.2",
        oldest="TLSv1",
        verifies=False,
        suites=(*_GCM, *_CHACHA, *_DHE, *_SHA2_CBC, *_CBC, *_RSA_GCM),
    ),
    Client(
        name="Exim 4.91 with OpenSSL 1.1.1",
        newest="TLSv1.3",
        oldest="TLSv1",
        verifies=False,
        suites=(*_GCM, *_CHACHA, *_DHE, *_SHA2_CBC, *_CBC, *_RSA_GCM),
    ),
)


class Fate(StrEnum):
    """What becomes of a client."""

    SERVED = "served"
    REFUSED = "refused"
    UNKNOWN = "not known"
    DISTRUSTS = "distrusts the chain"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A client of some years, and what it would get: computed from what was seen."""

    client: str
    fate: Fate
    """`not known` where what was seen does not tell."""
    protocol: str = ""
    cipher: str = ""
    """One that the server was seen to choose, and that the client has; empty where there is none."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a server did: the suites that it chose, by version, and the versions that it refuses."""

    chosen: dict[str, tuple[str, ...]]
    refused: frozenset[str]
    missing: str = ""
    """The issuer that the chain lacks, where it lacks one."""
    trusted: bool = True


def seen(
    session: Session | None,
    answers: Sequence[Answer],
    refused: frozenset[str],
    *,
    missing: bool,
    trusted: bool,
) -> Seen:
    """Everything that the connections showed, by version."""
    found: dict[str, list[str]] = {}
    if session:
        found.setdefault(session.protocol, []).append(session.cipher)
    for answer in answers:
        found.setdefault(VERSION_NAMES[answer.version or 0], []).append(name_of(answer.suite))
    issuer = subject_of(session.chain[-1].issuer) if session and session.chain and missing else ""
    chosen = {
        version: tuple(sorted(dict.fromkeys(suites), key=lambda suite: bool(weakness(suite))))
        for version, suites in found.items()
    }
    return Seen(chosen=chosen, refused=refused, missing=issuer, trusted=trusted)


def table(what: Seen) -> Iterator[Row]:
    """One row a client."""
    yield from (_row(client, what) for client in CLIENTS)


def _row(client: Client, what: Seen) -> Row:
    for version in reversed(_ORDER):
        if not client.takes(version) or version in what.refused:
            continue
        if version not in what.chosen:
            return Row(client=client.name, fate=Fate.UNKNOWN, reason=f"{version} was not examined")
        common = [one for one in what.chosen[version] if version == "TLSv1.3" or one in client.suites]
        if not common:
            return Row(
                client=client.name, fate=Fate.UNKNOWN, protocol=version,
                reason=f"none of its suites was seen: the server chose {', '.join(what.chosen[version])}",
            )  # fmt: skip
        return _trusting(client, what, version, common[0])
    return Row(client=client.name, fate=Fate.REFUSED, reason="no version in common")


def _trusting(client: Client, what: Seen, version: str, cipher: str) -> Row:
    distrusts, reason = False, ""
    if client.verifies and what.missing:
        distrusts = not client.fetches
        reason = f"{what.missing} is not sent" + (
            "; it is fetched, or known from elsewhere" if client.fetches else ""
        )
    elif client.verifies and not what.trusted:
        distrusts, reason = True, "the chain ends at no root that is trusted here"
    fate = Fate.DISTRUSTS if distrusts else Fate.SERVED
    return Row(client=client.name, fate=fate, protocol=version, cipher=cipher, reason=reason)
