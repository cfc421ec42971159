"""Mail domains, right and wrong, by a real name server and a real validating resolver on loopback."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from backport.artifacts import Verdict
from backport.errors import UsageError
from backport.probe import Subject
from backport.probe.addresses import Place
from backport.probe.domain import Domain, DomainReport, examine_domain
from backport.probe.resolver import Resolver
from tests.conformity import check_document
from tests.e2e.mail_domains import OTHER, Domains, Kind, serving_domains

_POLICY = "version: STSv1\r\nmode: {mode}\r\nmax_age: 604800\r\nmx: {mx}\r\n"
_RPT = '\n_smtp._tls TXT "v=TLSRPTv1; rua=mailto:tls@example.org"'


def policy(mode: str = "enforce", mx: str = "*.mx.example", more: str = "") -> str:
    return _POLICY.format(mode=mode, mx=mx) + more


def mx(host: str, more: str = _RPT) -> str:
    return f"@ MX 10 {host}.mx.example.{more}"


DELIVERED = "dane.delivery"
KINDS = [
    Kind(name="dane", records=mx("good"), passes="dane.records dane.delivery domain.dnssec tls-rpt.record"),
    Kind(name="dane-wrong", records=mx("wrong"), wrong="dane.delivery"),
    Kind(name="dane-ta", records=mx("ta"), passes=DELIVERED),
    Kind(name="dane-ta-name", records=mx("ta-name"), wrong="dane.delivery certificate.hostname"),
    Kind(name="ta-domain", records=mx("ta-domain"), wrong="certificate.hostname", passes=DELIVERED),
    Kind(name="dane-expired", records=mx("expired"), wrong="certificate.validity?", passes=DELIVERED),
    Kind(name="dane-usage1", records=mx("usage1"), wrong="dane.records"),
    Kind(name="dane-mixed", records=mx("mixed"), wrong="dane.records?", passes=DELIVERED),
    Kind(name="dane-agile", records=mx("agile"), wrong="dane.delivery?"),
    Kind(name="dane-brittle", records=mx("brittle"), wrong="dane.records?", passes=DELIVERED),
    Kind(name="dane-torn", records=mx("torn"), wrong="dane.records"),
    Kind(name="dane-clear", records=mx("clear"), wrong="dane.delivery transport.starttls-offered"),
    Kind(name="dane-dead", records=f"{mx('good')}\n@ MX 20 dead.mx.example.", wrong="transport.connect"),
    Kind(name="dane-alias", records=mx("alias"), wrong="mx.name?", passes=DELIVERED),
    Kind(name="no-report", records=mx("good", ""), wrong="tls-rpt.record?"),
    Kind(name="unsigned", zone="plain.", records=mx("plain", "")),
    Kind(name="unsigned-mx", zone="plain.", records=mx("good"), wrong="dane.records?", passes=DELIVERED),
    Kind(
        name="unsigned-tlsa",
        zone="plain.",
        records=f"@ MX 10 host.unsigned-tlsa.plain.\nhost A 127.0.53.1\n_25._tcp.host TLSA 3 1 1 {OTHER}",
        wrong="dane.records? certificate.hostname",
    ),
    Kind(name="torn", zone="bogus.", records=mx("good", ""), wrong="domain.mx"),
    Kind(name="null", records="@ MX 0 .", passes="domain.mx"),
    Kind(name="null-beside", records=f"{mx('good')}\n@ MX 0 .", wrong="domain.mx"),
    Kind(name="implicit", records=f"@ A 127.0.53.1{_RPT}", wrong="certificate.hostname", passes="domain.mx"),
    Kind(name="nothing", records='@ TXT "no mail"', wrong="domain.mx"),
    Kind(name="lost", records=f"{mx('good')}\n@ MX 20 nowhere.mx.example.", wrong="mx.addresses"),
    Kind(name="literal", records=f"{mx('good')}\n@ MX 20 192.0.2.7.", wrong="mx.name mx.addresses"),
    Kind(
        name="sts", records=mx("good"), policy=policy(), passes="mta-sts.policy mta-sts.mx mta-sts.delivery"
    ),
    Kind(
        name="sts-left-out",
        records=mx("good"),
        policy=policy(mx="mx.example"),
        wrong="mta-sts.mx mta-sts.delivery",
    ),
    Kind(
        name="sts-testing",
        records=mx("good"),
        policy=policy("testing", "other.example"),
        wrong="mta-sts.mx? mta-sts.delivery?",
    ),
    Kind(
        name="sts-expired",
        records=mx("expired"),
        policy=policy(),
        wrong="mta-sts.delivery certificate.validity",
        passes=DELIVERED,
    ),
    Kind(
        name="sts-clear",
        records=mx("clear"),
        policy=policy(),
        wrong="mta-sts.delivery dane.delivery transport.starttls-offered",
    ),
    Kind(name="sts-none", records=mx("good"), policy=policy("none"), passes="mta-sts.policy"),
    Kind(
        name="sts-idle", records=mx("good"), policy=policy(more="mx: gone.example\r\n"), wrong="mta-sts.mx?"
    ),
    Kind(name="policy-name", records=mx("good"), policy=policy(), wrong="mta-sts.policy"),
    Kind(name="policy-moved", records=mx("good"), policy=policy(), wrong="mta-sts.policy"),
    Kind(name="policy-gone", records=mx("good"), policy=policy(), wrong="mta-sts.policy"),
    Kind(name="policy-html", records=mx("good"), policy=policy(), wrong="mta-sts.policy?"),
    Kind(name="policy-huge", records=mx("good"), policy=policy() + "x" * 70_000, wrong="mta-sts.policy"),
    Kind(name="policy-mode", records=mx("good"), policy=policy("strict"), wrong="mta-sts.policy"),
    Kind(
        name="policy-short",
        records=mx("good"),
        policy=policy().replace("604800", "600"),
        wrong="mta-sts.policy?",
    ),
    Kind(
        name="two-ids",
        records=mx("good") + '\n_mta-sts TXT "v=STSv1; id=1;"\n_mta-sts TXT "v=STSv1; id=2;"',
        policy=policy(),
        wrong="mta-sts.record",
    ),
    Kind(
        name="bad-id",
        records=mx("good") + '\n_mta-sts TXT "v=STSv1; id=2026-01-01;"',
        policy=policy(),
        wrong="mta-sts.record",
    ),
    Kind(
        name="bad-report",
        records=mx("good", '\n_smtp._tls TXT "v=TLSRPTv1; rua=tls@example.org"'),
        wrong="tls-rpt.record",
    ),
    Kind(
        name="two-reports",
        records=mx("good", _RPT + '\n_smtp._tls TXT "v=TLSRPTv1; rua=https://example.org/r"'),
        wrong="tls-rpt.record",
    ),
]
ALTERED = {"_25._tcp.torn.mx.example.": f"TLSA 3 1 1 {OTHER}"}


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domains]:
    with serving_domains(tmp_path_factory.mktemp("domains"), KINDS, ALTERED) as running:
        text = {"Content-Type": "text/plain"}
        pages = running.policies.pages
        good = pages["mta-sts.sts.example"][2]
        pages["mta-sts.policy-moved.example"] = (302, {"Location": "https://mta-sts.sts.example/"}, b"")
        pages["mta-sts.policy-gone.example"] = (404, text, b"")
        pages["mta-sts.policy-html.example"] = (200, {"Content-Type": "text/html"}, good)
        yield running


def examine(domains: Domains, name: str, resolver: Resolver | None = None) -> DomainReport:
    server = Subject(
        dial=Place("", 25), host="", servername=None, helo="client.example", trust=domains.trust, timeout=20
    )
    return examine_domain(Domain(name=name, resolver=resolver or domains.resolver, server=server))


def verdicts(report: DomainReport) -> dict[str, set[Verdict]]:
    """What every check came to, those of exchangers and servers together."""
    found: dict[str, set[Verdict]] = {}
    each = [report.checks, *(host.checks for host in report.exchangers)]
    each += [server.report.checks for host in report.exchangers for server in host.servers]
    for check in (check for checks in each for check in checks):
        found.setdefault(check.id, set()).add(check.verdict)
    return found


_STUB = {"transport.weak-suites", "transport.injection"}
"""What this stub of a server does in its own way, and no domain hangs on."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_verdict_is_right(domains: Domains, kind: Kind) -> None:
    report = examine(domains, kind.domain)
    found = verdicts(report)
    failed = {name for name, each in found.items() if Verdict.FAIL in each} - _STUB
    warned = {name for name, each in found.items() if Verdict.WARN in each} - _STUB
    words = kind.wrong.split()
    expected = {one for one in words if one[-1] != "?"}, {one[:-1] for one in words if one[-1] == "?"}
    told = {
        check.id: check.found
        for host in report.exchangers
        for server in host.servers
        for check in (*report.checks, *host.checks, *server.report.checks)
    }
    assert (failed, warned) == expected, "\n".join(map(str, told.items()))
    assert {name for name, each in found.items() if Verdict.ERROR in each} == set(), told
    for name in kind.passes.split():
        assert Verdict.PASS in found[name], told


def run(domains: Domains, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backport", "probe", "--ca", str(domains.trust), *arguments]
    resolver = f"--resolver={domains.resolver}"
    return subprocess.run([*command, resolver], capture_output=True, text=True, timeout=120, check=False)


def test_the_command_in_all_its_forms(domains: Domains, tmp_path: Path) -> None:
    files = [tmp_path / "junit.xml", tmp_path / "transcript"]
    options = ("--junit", str(files[0]), "--transcript", str(files[1]))
    done = run(domains, "--domain", "sts-left-out.example", "--json", *options)
    assert (done.returncode, done.stderr) == (1, "")
    document = json.loads(done.stdout)
    check_document("probe", document)
    (host,) = document["exchangers"]
    (server,) = host["servers"]
    bad = {check["id"]: check["found"] for check in server["checks"] if check["verdict"] == "fail"}
    assert "a sender that honours MTA-STS refuses this MX" in bad["mta-sts.delivery"]
    assert (host["preference"], server["server"]["address"]) == (10, "127.0.53.1")
    cases = [case.get("name") for case in ET.parse(files[0]).findall(".//testcase")]
    assert "good.mx.example.127.0.53.1.mta-sts.delivery" in cases
    assert "sts-left-out.example MX 10 good.mx.example [127.0.53.1]" in files[1].read_text()
    shown = run(domains, "--domain", "sts-left-out.example")
    assert shown.returncode == 1
    assert "not passed: mta-sts.mx" in shown.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--domain", "no-such-domain.example"),
        ("--domain", "192.0.2.1"),
        ("--domain", "a b"),
        ("--domain", "dane.example", "--servername", "x.example"),
        ("--domain", "dane.example", "--direct-tls"),
        ("host.example", "--domain", "dane.example"),
        (),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(domains: Domains, arguments: tuple[str, ...]) -> None:
    done = run(domains, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


Reply = Callable[[dns.message.Message], list[str]]
"""The records that answer a question, as text."""


def _mx_flood(query: dns.message.Message) -> list[str]:
    return [f"{query.question[0].name} 60 IN MX {number} mx{number}.example." for number in range(1000)]


def _loop(query: dns.message.Message) -> list[str]:
    return [f"{query.question[0].name} 60 IN CNAME {query.question[0].name}"]


def _giant_text(query: dns.message.Message) -> list[str]:
    name = query.question[0].name
    if query.question[0].rdtype == dns.rdatatype.MX:
        return [f"{name} 60 IN MX 10 127.0.53.1."]
    return [f'{name} 60 IN TXT "v=STSv1; id={"A" * 200}" ' + f'"{"B" * 250}" ' * 200]


def _control(query: dns.message.Message) -> list[str]:
    name = query.question[0].name
    if query.question[0].rdtype == dns.rdatatype.MX:
        return [rf"{name} 60 IN MX 10 \027[2J\010evil.example."]
    return [f'{name} 60 IN TXT "v=STSv1;\\027[2J id=1"', f'{name} 60 IN TXT "v=TLSRPTv1;\\027[2J"']


def _short_digest(query: dns.message.Message) -> list[str]:
    name = query.question[0].name
    if query.question[0].rdtype == dns.rdatatype.TLSA:
        return [f"{name} 60 IN TYPE65280 \\# 5 030101abcd"]
    if query.question[0].rdtype == dns.rdatatype.MX:
        return [f"{name} 60 IN MX 10 good.mx.example."]
    return [f"{name} 60 IN A 127.0.53.1"] if query.question[0].rdtype == dns.rdatatype.A else []


@contextlib.contextmanager
def answering(reply: Reply, flags: int = dns.flags.AD) -> Iterator[Resolver]:
    """A resolver that says what it likes, by UDP and TCP."""

    def wire(asked: bytes) -> bytes:
        query = dns.message.from_wire(asked)
        response = dns.message.make_response(query)
        response.flags |= flags | dns.flags.RA
        for line in reply(query):
            name, ttl, _, kind, data = line.split(maxsplit=4)
            response.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
        # A record of a type that nobody knows becomes a TLSA that its library would not let anybody make.
        return response.to_wire(max_size=65535).replace(b"\xff\x00\x00\x01", b"\x00\x34\x00\x01")

    class Udp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            whole = wire(self.request[0])
            if len(whole) > 1232:
                whole = whole[:2] + bytes([whole[2] | 2]) + whole[3:4] + whole[4:6] + bytes(6)
                whole += self.request[0][12:]
                end = 12 + self.request[0][12:].index(b"\0") + 5
                whole = whole[:end]
            self.request[1].sendto(whole, self.client_address)

    class Tcp(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            size = int.from_bytes(self.request.recv(2))
            whole = wire(self.request.recv(size))
            self.request.sendall(len(whole).to_bytes(2) + whole)

    # The port by TCP, of which many are in use, and then the same by UDP, of which hardly any is.
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Tcp) as tcp:
        port = tcp.server_address[1]
        with socketserver.ThreadingUDPServer(("127.0.0.1", port), Udp) as udp:
            for server in (udp, tcp):
                threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
            try:
                yield Resolver("127.0.0.1", port)
            finally:
                udp.shutdown()
                tcp.shutdown()


@pytest.mark.parametrize(
    ("reply", "check_id", "verdict", "words"),
    [
        (_mx_flood, "domain.mx", Verdict.WARN, "1000 exchangers"),
        (_loop, "domain.mx", Verdict.ERROR, "CNAME"),
        (_giant_text, "mta-sts.record", Verdict.FAIL, "no policy"),
        (_control, "mx.name", Verdict.FAIL, "no host's name"),
        (_control, "mta-sts.record", Verdict.FAIL, r"\x1b"),
        (_short_digest, "dane.records", Verdict.FAIL, "(RFC 6698 section 2.1.3)"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_hostile_answer_is_told(
    domains: Domains, reply: Reply, check_id: str, verdict: Verdict, words: str
) -> None:
    with answering(reply) as resolver:
        report = examine(domains, "hostile.example", resolver)
    checks = [*report.checks, *(check for host in report.exchangers for check in host.checks)]
    found = [check for check in checks if check.id == check_id]
    assert {check.verdict for check in found} == {verdict}
    assert all(words in check.found for check in found), found
    assert all(len(check.found) < 1000 and check.found.isprintable() for check in checks)


def test_a_resolver_that_does_not_validate_proves_nothing(domains: Domains) -> None:
    with answering(_short_digest, flags=0) as resolver:
        found = verdicts(examine(domains, "hostile.example", resolver))
    assert found["dane.records"] == found["domain.dnssec"] == {Verdict.SKIPPED}


def test_a_resolver_elsewhere_counts_only_where_it_is_named() -> None:
    assert "--resolver" in Resolver("192.0.2.1").distrust
    assert Resolver("192.0.2.1", named=True).believed


def test_a_resolver_that_is_silent_is_waited_for_a_while(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backport.probe.resolver.TIMEOUT", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        report = examine(domains, "dane.example", Resolver("127.0.0.1", silent.getsockname()[1]))
    assert verdicts(report)["domain.mx"] == {Verdict.ERROR}


def test_a_domain_that_is_not_there_is_the_users_mistake(domains: Domains) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        examine(domains, "no-such-domain.example")
