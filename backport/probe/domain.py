"""A whole mail domain: every mail exchanger and every address of it, and what senders are told of them
by DANE (RFC 7672), MTA-STS (RFC 8461) and TLS-RPT (RFC 8460).
"""

from __future__ import annotations

import datetime as dt
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from cryptography import x509

from backport.artifacts import Check, Finding, Verdict
from backport.errors import UsageError
from backport.probe import dane, mta_sts
from backport.probe.addresses import Place, host_name, is_address, is_global
from backport.probe.examine import Report, Subject, examine
from backport.probe.ledger import Ledger
from backport.probe.resolver import Answer, Resolver, State, text_of
from backport.probe.smtp import Contact, Stage
from backport.probe.tls import Offer

PORT = 25
HOSTS = 10
"""How many mail exchangers are examined, the most preferred first."""
SERVERS = 20
"""How many of their addresses, in all."""
WORKERS = 8
"""How many servers at a time; of one address, one."""

TITLES = {
    "domain.mx": "the domain's mail exchangers",
    "domain.dnssec": "the MX records are signed",
    "mta-sts.record": "MTA-STS is announced",
    "mta-sts.policy": "the MTA-STS policy can be had",
    "mta-sts.mx": "the policy names the mail exchangers",
    "tls-rpt.record": "senders report failures (TLS-RPT)",
}
HOST_TITLES = {
    "mx.name": "the exchanger's name is one that senders can use",
    "mx.addresses": "the exchanger's addresses",
    "dane.records": "TLSA records",
}
SERVER_TITLES = {
    "dane.delivery": "a sender that honours DANE delivers here",
    "mta-sts.delivery": "a sender that honours MTA-STS delivers here",
}
_PKIX = {f"certificate.{name}" for name in ("intermediates", "chain", "validity", "hostname", "second")}
_BY_DANE = "senders that honour DANE do not look at this (RFC 7672 section 3.1.1)"


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A domain to be examined: by which resolver, and how each server is; ``server`` is their pattern."""

    name: str
    resolver: Resolver
    server: Subject


@dataclass(frozen=True, kw_only=True)
class Server:
    """One address of an exchanger, and what came of it; no connection where there is no way to it."""

    place: Place
    report: Report


@dataclass(frozen=True, kw_only=True)
class Exchanger:
    """One mail exchanger: its preference (None: the domain itself, without an MX record), and its servers."""

    name: str
    preference: int | None
    checks: tuple[Check, ...]
    servers: tuple[Server, ...]


@dataclass(frozen=True, kw_only=True)
class DomainReport:
    """What the examination of a domain came to."""

    checks: tuple[Check, ...]
    exchangers: tuple[Exchanger, ...]
    lookup: tuple[str, ...]
    """What the DNS says of the exchangers, a line each."""
    started: dt.datetime
    seconds: float
    """Wall time."""


def examine_domain(domain: Domain) -> DomainReport:
    """Examine a domain. Raises UsageError where there is none of that name."""
    return _Examination(domain).report()


@dataclass(frozen=True, kw_only=True)
class _Host:
    """What the DNS says of an exchanger."""

    name: str
    preference: int | None
    addresses: tuple[Answer, Answer]
    tlsa: Answer

    @property
    def found(self) -> tuple[tuple[int, str], ...]:
        """Its addresses with their families."""
        families = (socket.AF_INET6, socket.AF_INET)
        return tuple(
            (int(family), str(record.address))
            for family, answer in zip(families, self.addresses, strict=True)
            for record in answer.records
        )


class _Examination:
    def __init__(self, domain: Domain) -> None:
        self._domain, self._resolver = domain, domain.resolver
        self._ledger = Ledger(TITLES)
        self._policy: mta_sts.Policy | None = None
        self._private = False

    def report(self) -> DomainReport:
        started, begin = dt.datetime.now(dt.UTC), time.monotonic()
        name, resolver = self._domain.name, self._resolver
        announced = resolver.begin(f"_mta-sts.{name}", "TXT")
        reports = resolver.begin(f"_smtp._tls.{name}", "TXT")
        resolver.begin(".", "SOA")
        mx = resolver.ask(name, "MX")
        wanted = self._exchangers(mx)
        self._ledger.record("domain.dnssec", self._signed(mx))
        hosts = self._hosts(wanted)
        places = self._places(hosts)
        found = [address for host in hosts for _, address in host.found]
        self._private = bool(found) and not any(map(is_global, found))
        with ThreadPoolExecutor(max_workers=WORKERS + 1) as pool:
            policy = pool.submit(self._judge_policy, announced.result(), len(hosts))
            groups = pool.map(self._examined, _by_address(places))
            reports_by_place = {id(place): report for group in groups for place, report in group}
            self._policy = policy.result()
        if self._policy and self._policy.mode is not mta_sts.Mode.NONE:
            self._ledger.record("mta-sts.mx", mta_sts.coverage(self._policy, [one.name for one in hosts]))
        exchangers = tuple(self._exchanger(host, mx, places, reports_by_place) for host in hosts)
        in_force = self._policy is not None or any(self._binding(host) for host in hosts)
        if hosts:
            reporting = mta_sts.judge_reporting(reports.result(), wanted=in_force)
            self._ledger.record("tls-rpt.record", reporting)
        self._ledger.bar(("tls-rpt.",), "there is no exchanger that anybody would report about")
        self._ledger.bar(("mta-sts.",), "there is no policy that asks for TLS")
        return DomainReport(
            checks=self._ledger.checks(),
            exchangers=exchangers,
            lookup=tuple(_lookup(name, hosts)),
            started=started,
            seconds=time.monotonic() - begin,
        )

    def _exchangers(self, mx: Answer) -> list[tuple[int | None, str]]:
        """Preference and name of the exchangers that are examined (RFC 5321 section 5.1); judges them."""
        name = self._domain.name
        if mx.state is State.NO_NAME:
            raise UsageError(f"the domain {name} does not exist", hint="check how the name is written")
        if mx.state is State.FAILED:
            self._ledger.record("domain.mx", _unanswered(mx))
            return []
        if mx.state is State.EMPTY:
            return self._implicit()
        found = sorted((int(one.preference), text_of(one.exchange)) for one in mx.records)
        named = [one for one in found if one[1] not in {"", "."}]
        self._ledger.record("domain.mx", _mx(found, named, mx.count))
        return [*named[:HOSTS]]

    def _implicit(self) -> list[tuple[int | None, str]]:
        name = self._domain.name
        there = any(self._resolver.ask(name, kind).state is State.FOUND for kind in ("A", "AAAA"))
        self._ledger.record(
            "domain.mx",
            Finding(
                verdict=Verdict.PASS if there else Verdict.FAIL,
                expected="MX records, or an address",
                found="no MX: senders go to the domain's own address (RFC 5321 section 5.1)"
                if there
                else "neither MX nor address: nobody can send mail to this domain",
                advice="Publish MX records; where the domain takes no mail, `MX 0 .` (RFC 7505).",
            ),
        )
        return [(None, name)] if there else []

    def _signed(self, mx: Answer) -> Finding:
        if reason := self._resolver.distrust:
            return Finding.skipped(f"not examined: {reason}")
        if mx.state is State.FAILED:
            return Finding.skipped(f"not examined: {mx.words}")
        if mx.secure:
            found = f"signed, by {self._resolver}"
            return Finding(verdict=Verdict.PASS, expected="signed", found=found)
        return Finding.skipped("they are not: DANE cannot be relied on (RFC 7672 section 2.2.1)")

    def _hosts(self, wanted: Sequence[tuple[int | None, str]]) -> list[_Host]:
        asked = [
            [
                self._resolver.begin(*question)
                for question in ((name, "AAAA"), (name, "A"), (_tlsa(name), "TLSA"))
            ]
            for _, name in wanted
        ]
        hosts = []
        for (preference, name), (six, four, tlsa) in zip(wanted, asked, strict=True):
            addresses = (six.result(), four.result())
            alias = next((one.alias for one in addresses if one.alias and one.secure), "")
            # RFC 7672 section 2.2.2: of a name that is an alias, the name that it leads to is tried first.
            other = self._resolver.ask(_tlsa(alias), "TLSA") if alias else None
            found = other if other and other.state is State.FOUND else tlsa.result()
            hosts.append(_Host(name=name, preference=preference, addresses=addresses, tlsa=found))
        return hosts

    def _places(self, hosts: Sequence[_Host]) -> dict[str, list[Place]]:
        """The servers of each exchanger, as many as are examined."""
        left, found = SERVERS, {}
        for host in hosts:
            places = Place(host.name, PORT, found=host.found).each() if host.found else []
            found[host.name] = places[:left]
            left -= len(found[host.name])
        return found

    def _examined(self, places: Sequence[Place]) -> list[tuple[Place, Report]]:
        return [(place, self._examine(place)) for place in places]

    def _examine(self, place: Place) -> Report:
        if not _has_route(place.address):
            return Report(checks=(), first=Contact(), transcript="", connections=0)
        server = self._domain.server
        web = replace(server.web, private=self._private) if server.web else None
        return examine(replace(server, dial=place, host=place.host, servername=place.host, web=web))

    def _judge_policy(self, announced: Answer, hosts: int) -> mta_sts.Policy | None:
        finding = mta_sts.judge_record(announced)
        if not hosts:
            self._ledger.bar(("mta-sts.",), "there is no exchanger that a policy would be about")
            return None
        self._ledger.record("mta-sts.record", finding)
        if finding.verdict is not Verdict.PASS:
            self._ledger.bar(("mta-sts.",), f"mta-sts.record: {finding.found or 'there is none'}")
            return None
        host = f"mta-sts.{self._domain.name}"
        answers = (self._resolver.ask(host, "AAAA"), self._resolver.ask(host, "A"))
        addresses = [
            one
            for one in _Host(name=host, preference=None, addresses=answers, tlsa=announced).found
            if _has_route(one[1])
        ]
        trust = self._domain.server.trust
        policy, fetched = mta_sts.fetch(
            self._domain.name,
            addresses,
            Offer(trust=trust, system_trust=trust is None),
            private=self._private,
        )
        self._ledger.record("mta-sts.policy", fetched)
        return policy

    def _binding(self, host: _Host) -> tuple[dane.Tlsa, ...]:
        return () if self._resolver.distrust else dane.binding(host.tlsa, host.addresses)

    def _exchanger(
        self, host: _Host, mx: Answer, places: dict[str, list[Place]], reports: dict[int, Report]
    ) -> Exchanger:
        ledger = Ledger(HOST_TITLES)
        ledger.record("mx.name", _name(host))
        ledger.record("mx.addresses", _addresses(host, len(places[host.name])))
        ledger.record(
            "dane.records",
            Finding.skipped(f"not examined: {self._resolver.distrust}")
            if self._resolver.distrust
            else dane.published(host.tlsa, mx=mx, addresses=host.addresses),
        )
        servers = [self._server(host, place, reports[id(place)]) for place in places[host.name]]
        return Exchanger(
            name=host.name, preference=host.preference, checks=ledger.checks(), servers=tuple(servers)
        )

    def _server(self, host: _Host, place: Place, report: Report) -> Server:
        """The server with what senders make of it, by DANE and by MTA-STS."""
        ledger, records, policy = Ledger(SERVER_TITLES), self._binding(host), self._policy
        lacks, chains = _lacks(report), _chains(report)
        if lacks is None:
            no_way = "there is no way from here to this address"
            reason = "no conversation came about" if report.connections else no_way
            ledger.bar(("",), f"not examined: {reason}")
        elif records:
            names, now = (host.name, self._domain.name), dt.datetime.now(dt.UTC)
            finding = (
                dane.delivery(records, chains, names, now) if report.first.session else dane.no_tls(lacks)
            )
            ledger.record("dane.delivery", finding)
        if lacks is not None and policy and policy.mode is not mta_sts.Mode.NONE:
            ledger.record("mta-sts.delivery", mta_sts.delivery(policy, host.name, lacks))
        ledger.bar(("dane.",), "no TLSA record binds a sender")
        ledger.bar(("mta-sts.",), "no policy binds a sender")
        by_key = ledger.verdict("dane.delivery") is Verdict.PASS and all(
            dane.by_key(records, chain[0]) for chain in chains
        )
        excused = by_key and not ledger.has("mta-sts.delivery")
        checks = map(_excused, report.checks) if excused else report.checks
        return Server(place=place, report=replace(report, checks=(*checks, *ledger.checks())))


def _tlsa(name: str) -> str:
    return f"_{PORT}._tcp.{name}"


def _by_address(places: dict[str, list[Place]]) -> list[list[Place]]:
    """The servers, those of one address together: they are examined one after the other."""
    groups: dict[str, list[Place]] = {}
    for place in (place for each in places.values() for place in each):
        groups.setdefault(place.address, []).append(place)
    return list(groups.values())


def _has_route(address: str) -> bool:
    """Whether this host has any way to an address, as one without IPv6 has not. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, PORT))
    except OSError:
        return False
    return True


def _unanswered(mx: Answer) -> Finding:
    advice = "Mend the zone's signatures, or its DS record." if mx.bogus else "Ask again later, or elsewhere."
    return Finding(
        verdict=Verdict.FAIL if mx.bogus else Verdict.ERROR,
        expected="MX records",
        found=f"{mx.words}{': senders hold mail back' if mx.bogus else ''}",
        advice=advice,
    )


def _mx(found: Sequence[tuple[int, str]], named: Sequence[tuple[int, str]], count: int) -> Finding:
    expected = "hosts by preference (RFC 5321 section 5.1)"
    if not named:
        words = "MX 0 .: the domain takes no mail (RFC 7505)"
        return Finding(verdict=Verdict.PASS, expected=expected, found=words)
    listed = ", ".join(f"{preference} {name}" for preference, name in named[:HOSTS])
    if len(named) < len(found):
        return Finding(
            verdict=Verdict.FAIL,
            expected=expected,
            found=f"{listed}; and a null MX beside them (RFC 7505 section 3)",
            advice="Take out `MX 0 .`, or all others.",
        )
    more = f"{count} exchangers, of which the first {HOSTS} are examined: " if count > HOSTS else ""
    return Finding(
        verdict=Verdict.WARN if more else Verdict.PASS,
        expected=expected,
        found=more + listed,
        advice="Name fewer exchangers: senders try a few of them alone.",
    )


def _name(host: _Host) -> Finding:
    expected = "a host's name, no alias"
    try:
        wrong = "an address, where a name is due" if is_address(host_name(host.name)) else ""
    except UsageError:
        wrong = "no host's name"
    alias = next((one.alias for one in host.addresses if one.alias), "")
    if wrong or not alias:
        return Finding(
            verdict=Verdict.FAIL if wrong else Verdict.PASS,
            expected=expected,
            found=f"{host.name}{f': {wrong}' if wrong else ''}",
            advice="Name a host in the MX record (RFC 5321 section 5.1).",
        )
    return Finding(
        verdict=Verdict.WARN,
        expected=expected,
        found=f"an alias of {alias}, which some senders refuse (RFC 2181 section 10.3)",
        advice=f"Name {alias} in the MX record.",
    )


def _addresses(host: _Host, examined: int) -> Finding:
    expected = "addresses that the Internet reaches"
    found = [address for _, address in host.found]
    failed = [one for one in host.addresses if one.state is State.FAILED]
    private = [address for address in found if not is_global(address)]
    words = [", ".join(found[:SERVERS])] if found else []
    words += [one.words for one in failed[:1]]
    if not found:
        bogus = any(one.bogus for one in failed)
        return Finding(
            verdict=Verdict.ERROR if failed and not bogus else Verdict.FAIL,
            expected=expected,
            found="; ".join([*words, "senders go on to the next exchanger"] if failed else ["none"]),
            advice="Give the host an address, or take it out of the MX records.",
        )
    if len(found) > examined:
        words.append(f"{len(found)} of them, of which {examined} are examined")
    mixed = len(private) not in {0, len(found)}
    if mixed:
        words.append(f"{', '.join(private)} is inside a private network")
    return Finding(
        verdict=Verdict.WARN if failed or mixed or len(found) > examined else Verdict.PASS,
        expected=expected,
        found="; ".join(words),
        advice="Keep to addresses that answer: senders try each.",
    )


def _lookup(domain: str, hosts: Sequence[_Host]) -> list[str]:
    return [
        f"{domain} MX {'(none)' if host.preference is None else host.preference} {host.name} "
        f"[{', '.join(address for _, address in host.found) or 'no address'}]"
        for host in hosts
    ]


def _lacks(report: Report) -> str | None:
    """What a sender that insists on TLS misses, empty for nothing; None where no conversation came about."""
    if report.first.stage in {Stage.CONNECT, Stage.BANNER, Stage.EHLO}:
        return None
    if report.first.session is None:
        return f"no TLS session: {report.first.trouble}"
    wrong = [one for one in report.checks if one.id in _PKIX | {"certificate.readable"} and one.stops]
    return "; ".join(f"{one.id.removeprefix('certificate.')}: {one.found}" for one in wrong)


def _chains(report: Report) -> list[tuple[x509.Certificate, ...]]:
    """What the server shows, one chain for each leaf."""
    sessions = (report.first.session, report.second)
    return [session.chain for session in sessions if session and session.chain]


def _excused(check: Check) -> Check:
    """A fail about names, dates and issuers, which a record of the certificate itself makes needless."""
    if check.id not in _PKIX or check.verdict is not Verdict.FAIL:
        return check
    return replace(
        check,
        verdict=Verdict.WARN,
        evidence=f"{check.evidence}; {_BY_DANE}",
        advice=f"{check.advice} ({_BY_DANE})",
    )
