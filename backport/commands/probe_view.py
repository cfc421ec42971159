"""Run a probe; what it found for people, as JSON and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from rich.console import RenderableType
from rich.text import Text

from backport import __version__
from backport.artifacts import Check, Verdict
from backport.commands.documents import (
    CertificatePart,
    ProbeDocument,
    ServerPart,
    SessionPart,
)
from backport.commands.probe_input import Request
from backport.commands.terminal import checks_table
from backport.probe import Report, Subject, examine
from backport.probe.addresses import Place
from backport.probe.certificates import san_names
from backport.probe.profiles import Profile, held_against
from backport.probe.tls import Session
from backport.probe.transcript import printable
from backport.runs.report import junit_document, tally


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One probe: of whom, and what it came to."""

    place: Place
    servername: str | None
    direct_tls: bool
    report: Report

    @property
    def where(self) -> str:
        """The server as a person writes it."""
        host, port = self.place.host, self.place.port
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def passed(self) -> bool:
        """Whether no check failed and each could be done or was skipped with a reason."""
        return not any(check.stops for check in self.report.checks)

    def summary(self) -> str:
        """The result in one line."""
        session = self.report.first.session
        what = f"{session.protocol} {session.cipher}" if session else "no TLS session"
        stopped = [check.id for check in self.report.checks if check.stops]
        bad = f"; not passed: {', '.join(stopped)}" if stopped else ""
        return f"{self.where}: {what}; {tally(self.report.checks)}{bad}"


def run(request: Request, *, all_addresses: bool = False) -> list[Probe]:
    """Probe a server, at each of its addresses or at the first that answers.

    Raises UsageError where the request cannot be understood, Unreachable where its addresses cannot be had.
    """
    place = request.place()
    subject = request.subject(place)
    places = place.each() if all_addresses else [place]
    return [_probe(one, replace(subject, dial=one), request.profile) for one in places]


def _probe(place: Place, subject: Subject, profile: Profile | None) -> Probe:
    report = examine(subject)
    return Probe(
        place=place,
        servername=subject.servername,
        direct_tls=subject.direct_tls,
        report=under(profile, report, opportunistic=not subject.direct_tls),
    )


def under(profile: Profile | None, report: Report, *, opportunistic: bool) -> Report:
    """The report with its verdicts as the profile has them."""
    checks = held_against(report.checks, profile, opportunistic=opportunistic) if profile else report.checks
    return replace(report, checks=checks)


def shown(probe: Probe) -> Iterator[RenderableType]:
    """For people: the transcript, the table, the advice and, last, the summary."""
    place, known = probe.place, probe.place.known()
    if len(known) > 1:
        yield f"{place.host} is {', '.join(known)}; examined: {place.address}\n"
    yield probe.report.transcript
    yield checks_table(worth_reading(probe.report.checks))
    if probe.report.clients:
        yield "\nWho can still talk to it, by what was seen:"
        for row in probe.report.clients:
            words = f"{row.fate.value} {row.protocol} {row.cipher}".strip()
            yield f"  {row.client:<30} {words}{f' ({row.reason})' if row.reason else ''}"
    yield from advice_lines(probe.report.checks)
    yield Text(probe.summary(), style="bold green" if probe.passed else "bold red")


def worth_reading(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that a person wants to read of: where nothing could be connected to, that alone."""
    connect = next((check for check in checks if check.id == "transport.connect"), None)
    return (connect,) if connect and connect.stops else checks


def advice_lines(checks: tuple[Check, ...]) -> Iterator[str]:
    """What to do, for each check that did not pass."""
    for check in checks:
        if check.stops or check.verdict is Verdict.WARN:
            yield f"{check.id}: {check.advice}"


def as_document(probe: Probe) -> ProbeDocument:
    """The JSON document."""
    session = probe.report.first.session
    return ProbeDocument(
        tool=f"backport {__version__}",
        started=probe.report.started.replace(microsecond=0),
        seconds=round(probe.report.seconds, 3),
        passed=probe.passed,
        summary=probe.summary(),
        server=ServerPart(
            host=probe.place.host,
            port=probe.place.port,
            addresses=probe.place.known(),
            address=probe.place.address or None,
            servername=probe.servername,
            direct_tls=probe.direct_tls,
        ),
        connections=probe.report.connections,
        session=_session(session) if session else None,
        certificates=tuple(map(certificate_part, session.chain)) if session else (),
        clients=tuple(probe.report.clients),
        checks=probe.report.checks,
        transcript=tuple(probe.report.transcript.splitlines()),
    )


def as_junit(probes: Sequence[Probe]) -> str:
    """JUnit XML, one test case a check; of several addresses, each case has its address before its name."""
    first = probes[0]
    checks = first.report.checks
    if len(probes) > 1:
        checks = tuple(
            replace(check, id=f"{probe.place.address}.{check.id}")
            for probe in probes
            for check in probe.report.checks
        )
    seconds = sum(probe.report.seconds for probe in probes)
    name, started = f"backport probe {first.where}", first.report.started
    return junit_document(name, checks, started=started, seconds=seconds)


def _session(session: Session) -> SessionPart:
    return SessionPart(protocol=session.protocol, cipher=session.cipher, group=session.group or None)


def certificate_part(certificate: x509.Certificate) -> CertificatePart:
    """A certificate in the JSON document; of one that cannot be read wholly, its digest alone."""
    digest = certificate.fingerprint(hashes.SHA256()).hex()
    try:
        return CertificatePart(
            sha256=digest,
            serial=f"{certificate.serial_number:x}",
            subject=printable(certificate.subject.rfc4514_string()),
            issuer=printable(certificate.issuer.rfc4514_string()),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            names=tuple(map(printable, san_names(certificate))),
        )
    except Exception:  # noqa: BLE001  # a hostile certificate may make the parser raise anything
        return CertificatePart(sha256=digest)
