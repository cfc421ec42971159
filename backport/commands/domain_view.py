"""A domain's probe for people, as JSON and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.console import RenderableType
from rich.text import Text

from backport import __version__
from backport.artifacts import Check, Verdict
from backport.commands.documents import DomainDocument, ExchangerPart, ResolverPart
from backport.commands.probe_input import Request
from backport.commands.probe_view import Probe, advice_lines, as_document, under, worth_reading
from backport.commands.terminal import checks_table
from backport.probe.domain import Domain, DomainReport, Exchanger, Server, examine_domain
from backport.runs.report import junit_document, tally

_ALWAYS = ("dane.", "mta-sts.")
"""Checks of a server that are shown whatever they came to."""


@dataclass(frozen=True, kw_only=True)
class DomainProbe:
    """One probe of a domain, and what it came to."""

    domain: Domain
    report: DomainReport

    def checks(self) -> tuple[Check, ...]:
        """Every check; one of an exchanger or a server has their names before its own."""
        found = list(self.report.checks)
        for host in self.report.exchangers:
            found += [replace(check, id=f"{host.name}.{check.id}") for check in host.checks]
            for server in host.servers:
                before = f"{host.name}.{server.place.address}"
                found += [replace(check, id=f"{before}.{check.id}") for check in server.report.checks]
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether no check failed and each could be done or was skipped with a reason."""
        return not any(check.stops for check in self.checks())

    def summary(self) -> str:
        """The result in one line."""
        checks = self.checks()
        stopped = [check.id for check in checks if check.stops]
        bad = f"; not passed: {', '.join(stopped)}" if stopped else ""
        servers = sum(len(host.servers) for host in self.report.exchangers)
        what = f"{len(self.report.exchangers)} exchangers, {servers} addresses"
        return f"{self.domain.name}: {what}; {tally(checks)}{bad}"

    def transcript(self) -> str:
        """The MX lookup, then every connection to every server."""
        pages = [
            f"{host.name} [{server.place.address}]\n{server.report.transcript}"
            for host in self.report.exchangers
            for server in host.servers
        ]
        return "\n".join(("MX lookup", *self.report.lookup, "", *pages))


def run(request: Request, name: str, resolver: str | None) -> DomainProbe:
    """Probe a domain. Raises UsageError where the request cannot be understood."""
    domain = request.domain(name, resolver)
    report = examine_domain(domain)
    exchangers = tuple(_under(host, request) for host in report.exchangers)
    return DomainProbe(domain=domain, report=replace(report, exchangers=exchangers))


def _under(host: Exchanger, request: Request) -> Exchanger:
    servers = [
        replace(server, report=under(request.profile, server.report, opportunistic=True))
        for server in host.servers
    ]
    return replace(host, servers=tuple(servers))


def shown(probe: DomainProbe) -> Iterator[RenderableType]:
    """For people: the lookup, the domain's checks, each exchanger with what matters of its servers."""
    report = probe.report
    yield from report.lookup
    yield checks_table(report.checks)
    for host in report.exchangers:
        yield f"\n{host.name}"
        yield checks_table(host.checks)
        for server in host.servers:
            yield f"\n{host.name} [{server.place.address}]: {_in_short(server)}"
            yield checks_table(tuple(_telling(server)))
    yield from dict.fromkeys(advice_lines(probe.checks()))
    yield Text(probe.summary(), style="bold green" if probe.passed else "bold red")


def _in_short(server: Server) -> str:
    session = server.report.first.session
    what = f"{session.protocol} {session.cipher}" if session else "no TLS session"
    return f"{what}; {tally(server.report.checks)}"


def _telling(server: Server) -> Iterator[Check]:
    """What did not pass, and what DANE and MTA-STS come to."""
    for check in worth_reading(server.report.checks):
        if check.stops or check.verdict is Verdict.WARN or check.id.startswith(_ALWAYS):
            yield check


def domain_document(probe: DomainProbe) -> DomainDocument:
    """The JSON document."""
    report, resolver = probe.report, probe.domain.resolver
    return DomainDocument(
        tool=f"backport {__version__}",
        started=report.started.replace(microsecond=0),
        seconds=round(report.seconds, 3),
        passed=probe.passed,
        summary=probe.summary(),
        domain=probe.domain.name,
        resolver=ResolverPart(address=resolver.address, port=resolver.port, distrust=resolver.distrust),
        checks=report.checks,
        exchangers=tuple(
            ExchangerPart(
                name=host.name,
                preference=host.preference,
                checks=host.checks,
                servers=tuple(as_document(_probe(server)) for server in host.servers),
            )
            for host in report.exchangers
        ),
    )


def _probe(server: Server) -> Probe:
    place = server.place
    return Probe(place=place, servername=place.host, direct_tls=False, report=server.report)


def domain_junit(probe: DomainProbe) -> str:
    """JUnit XML, one test case a check of the domain, an exchanger or a server."""
    name, report = f"backport probe --domain {probe.domain.name}", probe.report
    return junit_document(name, probe.checks(), started=report.started, seconds=report.seconds)
