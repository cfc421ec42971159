"""Exim's configuration: one template for the self-test's servers and for admins, rule by rule."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from backport.errors import UsageError
from backport.probe.addresses import host_name
from backport.roots.dnf import render

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_TIME_PARTS = re.compile(r"(\d{1,6})([wdhms])", re.ASCII)
_TIME = re.compile(rf"(?:{_TIME_PARTS.pattern})+", re.ASCII)
"""A time as Exim reads it (specification, section "Time intervals")."""
_LONGEST = _SECONDS["w"]


class Policy(StrEnum):
    """The rules that can be chosen; the template explains each to an admin."""

    REQUIRE_HELO = "require-helo"
    HELO_BOTNET = "helo-botnet"
    SENDER_BOTNET = "sender-botnet"
    SENDER_BOTNET_COARSE = "sender-botnet-coarse"
    REQUIRE_TLS_INBOUND = "require-tls-inbound"
    REQUIRE_TLS_OUTBOUND = "require-tls-outbound"


ALL_POLICIES = frozenset(Policy) - {Policy.SENDER_BOTNET_COARSE}
"""Everything that goes together: of the two forms of the sender rule, the refined one."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What sets a server under test apart: a loopback, spool and peers of its own."""

    address: str
    port: int
    spool: str
    trust: str
    """File inside the root with the certificates that peers' are verified against."""
    routes: Mapping[str, str]
    """Mail domains of other servers, and the address of each."""

    @property
    def log(self) -> str:
        """The main log, inside the root."""
        return f"{self.spool}/log/mainlog"

    @property
    def mailbox(self) -> str:
        """The file that all local mail is appended to, inside the root."""
        return f"{self.spool}/mailbox"

    @property
    def route_list(self) -> str:
        """The routes as the manualroute router takes them."""
        return " ; ".join(f"{domain} {address}" for domain, address in self.routes.items())


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server that a configuration is for; paths are as Exim sees them."""

    host: str | None = None
    """Its name; None leaves the choice to Exim."""
    certificate: str = "/etc/pki/tls/certs/exim.pem"
    """PEM file: the leaf, then the intermediates."""
    private_key: str = "/etc/pki/tls/private/exim.pem"
    ocsp_answer: str | None = None
    """DER file with the OCSP response to staple."""
    trial: Trial | None = None


def render_configuration(
    policies: Collection[Policy], server: Server, *, purpose: str, keep_trying: str | None = None
) -> str:
    """Exim's configuration, for Exim 4.91 and later.

    ``purpose`` ends the first line's sentence that begins with "Exim". ``keep_trying`` is how long mail is
    tried again to a host with which TLS fails, as Exim writes times (``1h30m``); without it, not at all.
    Raises UsageError where two policies exclude each other, or for a time that is none.
    """
    coarse, refined = Policy.SENDER_BOTNET_COARSE in policies, Policy.SENDER_BOTNET in policies
    if coarse and refined:
        raise UsageError(
            f"{Policy.SENDER_BOTNET} and {Policy.SENDER_BOTNET_COARSE} are two forms of one rule",
            hint=f"choose one; {Policy.SENDER_BOTNET} refuses fewer people who happen to have that name",
        )
    if keep_trying is not None and Policy.REQUIRE_TLS_OUTBOUND not in policies:
        raise UsageError(
            "only require-tls-outbound has hosts to keep trying", hint="Add --policy require-tls-outbound."
        )
    server = _checked(server)
    return render(
        "exim.conf.j2",
        purpose=purpose,
        keep_trying=_retry(keep_trying) if keep_trying is not None else None,
        server=server,
        trial=server.trial,
        require_helo=Policy.REQUIRE_HELO in policies,
        helo_botnet=Policy.HELO_BOTNET in policies,
        sender_botnet="coarse" if coarse else "refined" if refined else None,
        require_tls_inbound=Policy.REQUIRE_TLS_INBOUND in policies,
        require_tls_outbound=Policy.REQUIRE_TLS_OUTBOUND in policies,
    )


def _retry(time: str) -> str:
    """The retry rule that goes on for ``time``: every quarter of an hour, or four times in all."""
    seconds = sum(int(number) * _SECONDS[unit] for number, unit in _TIME_PARTS.findall(time))
    if not _TIME.fullmatch(time) or not 4 <= seconds <= _LONGEST:
        raise UsageError(
            f"{time!r} is no time for which mail can wait",
            hint="Give one of at most a week, such as 2h or 1h30m.",
        )
    return f"F,{time},{min(seconds // 4, 900)}s"


def _checked(server: Server) -> Server:
    """The server as Exim takes it. Raises UsageError for what it would read as something else, or refuse."""
    for path in (server.certificate, server.private_key, server.ocsp_answer):
        if path is not None and not path.isprintable():
            raise UsageError(f"{path!r} cannot stand in a configuration file")
        if path is not None and not path.startswith("/"):
            raise UsageError(f"{path!r} is no whole path", hint="Exim needs one that begins with /")
    return server if server.host is None else replace(server, host=host_name(server.host))
