"""The examination from outside, against Debian's own Exim in every state that it must tell."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from backport.artifacts import Check, Verdict
from backport.probe import Expectation, Report, Subject, examine
from backport.probe.addresses import Place, connect
from backport.probe.revocation import load_crls
from backport.probe.transport import SUITES
from backport.probe.web import Web
from backport.probe.wire import Dial
from backport.selftest.authority import Authority, Identity, Lifetime, Services, new_key
from tests.e2e.gnutls_exim import FILES, HOST, MODERN, State, running
from tests.e2e.small_web import Site, serving_site
from tests.e2e.smtp_stub import Peer, context, serving
from tests.lab.gnutls_exim import ensure

BEST = Expectation(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")
OLD = Lifetime.days(1, since=-3)
COMING = Lifetime.days(1, since=2)


@pytest.fixture(scope="module")
def tree() -> Path:
    return ensure(lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with serving_site() as served:
        yield served


@dataclass(frozen=True, kw_only=True)
class World:
    """An authority with its web site, and a leaf of its that is right in every respect."""

    authority: Authority
    leaf: Identity
    site: Site
    trust: Path

    def state(self, leaf: Identity | None = None, **changes: object) -> State:
        """A correct server, with a leaf of its own and whatever else a test changes."""
        leaf = leaf or self.leaf
        correct = State(
            chain=self.authority.chain(leaf),
            key=leaf.key_pem,
            files={"ocsp.der": self.authority.ocsp_answer(leaf)},
            options={"tls_ocsp_file": "/etc/exim4/test/ocsp.der"},
        )
        return replace(correct, **changes)  # type: ignore[arg-type]  # the tests name the fields

    def issue(self, names: tuple[str, ...] = (HOST,), **options: object) -> Identity:
        return self.authority.issue(names, services=services(self.site), **options)  # type: ignore[arg-type]  # as above

    def publish(self, leaf: Identity, *, crl: bytes | None = None, answer: bytes | None = None) -> None:
        """What the authority's web site says about a leaf."""
        self.site.pages["/ca.crl"] = crl or der_crl(self.authority.crl())
        self.site.pages["/ocsp"] = answer or self.authority.ocsp_answer(leaf)

    def subject(self, dial: Dial) -> Subject:
        return Subject(
            dial=dial,
            host=HOST,
            servername=HOST,
            helo="client.selftest.example",
            expectation=BEST,
            trust=self.trust,
            crls=load_crls(self.authority.crl()),
            staple=True,
            web=Web(connect=connect, private=True),
            connections=None,
        )


def services(site: Site) -> Services:
    return Services(crl_url=f"{site.url}/ca.crl", ocsp_url=f"{site.url}/ocsp")


def der_crl(pem: bytes) -> bytes:
    return x509.load_pem_x509_crl(pem).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def world(site: Site, tmp_path_factory: pytest.TempPathFactory) -> World:
    authority = Authority.create()
    trust = tmp_path_factory.mktemp("trust") / "root.pem"
    trust.write_bytes(authority.root.pem)
    leaf = authority.issue([HOST], services=services(site))
    return World(authority=authority, leaf=leaf, site=site, trust=trust)


@pytest.fixture(autouse=True)
def _good_web(world: World) -> None:
    world.publish(world.leaf)


def verdicts(report: Report, verdict: Verdict) -> set[str]:
    return {check.id for check in report.checks if check.verdict is verdict}


def stopping(report: Report) -> dict[str, str]:
    """The checks that did not pass, with what they found."""
    return {check.id: check.found for check in report.checks if check.stops}


def by_id(report: Report, check_id: str) -> Check:
    return next(check for check in report.checks if check.id == check_id)


def probe(tree: Path, folder: Path, world: World, state: State, **changes: object) -> Report:
    with running(tree, folder, state) as place:
        return examine(replace(world.subject(place), **changes))  # type: ignore[arg-type]  # the tests name the fields


def test_a_correct_server_has_no_fails_fifty_times_in_a_row(tree: Path, tmp_path: Path, world: World) -> None:
    with running(tree, tmp_path, world.state()) as place:
        subject = replace(world.subject(place), connections=8)
        reports = [examine(subject) for _ in range(50)]
    assert [stopping(report) for report in reports] == [{}] * 50
    assert max(report.connections for report in reports) <= 8


def test_every_check_can_be_done_where_connections_are_not_counted(
    tree: Path, tmp_path: Path, world: World
) -> None:
    report = probe(tree, tmp_path, world, world.state(), workers=4)
    assert stopping(report) == {}
    assert verdicts(report, Verdict.SKIPPED) == {"certificate.second"}
    assert verdicts(report, Verdict.WARN) == {"transport.cipher-order"}
    text = report.transcript
    for line in (
        "Certificate 1 of 3 in chain: Cert VALIDATED: ok",
        f"Cert Hostname VERIFIED ({HOST} = {HOST} | DNS:{HOST})",
        "cert not revoked by CRL",
        "cert not revoked by CRL (distribution point)",
        "cert not revoked by OCSP (stapled)",
        "cert not revoked by OCSP (asked the responder)",
        "The server asked for another key share (HelloRetryRequest)",
        "--> STARTTLS / NOOP",
    ):
        assert line in text


def test_a_live_server_is_asked_eight_times_and_told_what_is_left(
    tree: Path, tmp_path: Path, world: World
) -> None:
    report = probe(tree, tmp_path, world, world.state(), connections=8)
    log = (tmp_path / "spool/mainlog").read_text()
    assert report.transcript.count("Connected to server") == report.connections == 8
    skipped = verdicts(report, Verdict.SKIPPED)
    left = {check_id for check_id in skipped if "more than 8" in by_id(report, check_id).advice}
    assert left == {"transport.resumption", *(f"transport.suite-{suite.lower()}" for suite in SUITES)}
    assert "<= " not in log, "no mail is sent"


def test_a_server_of_tls_1_3_alone_loses_old_senders(tree: Path, tmp_path: Path, world: World) -> None:
    report = probe(tree, tmp_path, world, only("+VERS-TLS1.3")(world))
    assert stopping(report) == {}
    assert "transport.serves-tlsv1.2" in verdicts(report, Verdict.WARN)
    assert "deliver in clear" in by_id(report, "transport.serves-tlsv1.2").advice


Make = Callable[[World], State]


def options(**named: str) -> Make:
    return lambda world: replace(world.state(), options={**world.state().options, **named})


def only(versions: str) -> Make:
    return options(tls_require_ciphers=f"NORMAL:-VERS-ALL:{versions}")


@pytest.mark.parametrize(
    ("make", "failing"),
    [
        (only("+VERS-TLS1.2"), {"transport.protocol": "TLSv1.2"}),
        (options(tls_require_ciphers=f"{MODERN}:-CIPHER-ALL:+AES-128-GCM"), {"transport.cipher": "AES_128"}),
        (
            only("+VERS-TLS1.3:+VERS-TLS1.2:+VERS-TLS1.1"),
            {"transport.refuses-tlsv1.1": "accepted: TLSv1.1 "},
        ),
        (options(tls_advertise_hosts=""), {"transport.starttls-offered": "not offer"}),
        (options(tls_privatekey="/nowhere"), {"transport.starttls-accepted": "454"}),
    ],
)
def test_what_a_server_s_settings_spoil_fails_its_own_check(
    tree: Path, tmp_path: Path, world: World, make: Make, failing: Mapping[str, str]
) -> None:
    expectation = Expectation(protocol="TLSv1.3") if "transport.protocol" in failing else BEST
    report = probe(tree, tmp_path, world, make(world), expectation=expectation, connections=8)
    found = stopping(report)
    assert set(found) == set(failing)
    for check_id, words in failing.items():
        assert words in found[check_id]
        assert by_id(report, check_id).advice.endswith(".")


def test_a_version_that_is_taken_only_when_it_is_offered_alone_is_found(
    tree: Path, tmp_path: Path, world: World
) -> None:
    state = only("+VERS-TLS1.3:+VERS-TLS1.2:+VERS-TLS1.0")(world)
    report = probe(tree, tmp_path / "all", world, state)
    assert set(stopping(report)) == {"transport.refuses-tlsv1"}
    assert by_id(report, "transport.refuses-tlsv1").found.startswith("accepted: TLSv1 ")


def test_without_expectations_an_old_server_is_warned_of(tree: Path, tmp_path: Path, world: World) -> None:
    report = probe(tree, tmp_path, world, only("+VERS-TLS1.2")(world), expectation=Expectation())
    assert stopping(report) == {}
    assert verdicts(report, Verdict.WARN) == {"transport.protocol"}


def test_an_administrator_s_delay_is_a_banner_that_does_not_come(
    tree: Path, tmp_path: Path, world: World
) -> None:
    state = options(acl_smtp_connect="slow")(world)
    state = replace(state, acls="slow:\n  accept delay = 60s\n")
    report = probe(tree, tmp_path, world, state, timeout=2.0)
    assert set(stopping(report)) == {"transport.banner"}
    assert "no answer within 1 s" in by_id(report, "transport.banner").found
    assert report.connections == 1
    assert "host_lookup" in by_id(report, "transport.banner").advice


def test_a_delayed_greeting_is_an_ehlo_that_is_not_answered(tree: Path, tmp_path: Path, world: World) -> None:
    state = options(acl_smtp_helo="slow")(world)
    state = replace(state, acls="slow:\n  accept delay = 60s\n")
    report = probe(tree, tmp_path, world, state, timeout=1.0)
    assert set(stopping(report)) == {"transport.ehlo"}


def test_an_exim_that_hangs_in_the_handshake_is_told(tree: Path, tmp_path: Path, world: World) -> None:
    """It looks for the certificate of the name that the client asks for, and never gets an answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        state = options(
            tls_certificate=f"${{if eq{{$tls_in_sni}}{{{HOST}}}"
            f"{{${{readsocket{{inet:127.0.0.1:{port}}}{{which?}}{{60s}}}}}}{{{FILES}/chain.pem}}}}"
        )(world)
        report = probe(tree, tmp_path, world, state, timeout=4.0)
    assert set(stopping(report)) == {"transport.handshake"}
    assert "no answer within 2 s" in by_id(report, "transport.handshake").found


def test_a_refused_client_is_told_by_the_banner(tree: Path, tmp_path: Path, world: World) -> None:
    state = replace(options(acl_smtp_connect="no")(world), acls="no:\n  deny message = go away\n")
    report = probe(tree, tmp_path, world, state)
    assert set(stopping(report)) == {"transport.banner"}
    assert "go away" in by_id(report, "transport.banner").found


def test_a_server_that_is_not_running_is_one_fail(world: World) -> None:
    report = examine(world.subject(Place("127.0.0.1", 9)))
    assert set(stopping(report)) == {"transport.connect"}
    assert "Start the mail server" in by_id(report, "transport.connect").advice
    assert all(check.advice for check in report.checks if check.verdict is Verdict.SKIPPED)


def self_signed(world: World) -> State:
    key = new_key()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    lifetime = Lifetime.days(30)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(lifetime.start)
        .not_valid_after(lifetime.end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    leaf = Identity(certificate=certificate, key=key)
    return State(chain=leaf.pem, key=leaf.key_pem)


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """A certificate that is wrong in one way, and the check that must say so."""

    failing: str
    words: str
    leaf: Callable[[World], Identity] = lambda world: world.leaf
    chain: Callable[[World, Identity], bytes] = lambda world, leaf: world.authority.chain(leaf)


@pytest.mark.parametrize(
    "spoilt",
    [
        Spoilt(failing="certificate.validity", words="expired", leaf=lambda world: world.issue(lifetime=OLD)),
        Spoilt(
            failing="certificate.validity",
            words="not yet valid",
            leaf=lambda world: world.issue(lifetime=COMING),
        ),
        Spoilt(
            failing="certificate.hostname",
            words="other.selftest.example",
            leaf=lambda world: world.issue(("other.selftest.example",)),
        ),
        Spoilt(
            failing="certificate.hostname",
            words="*.mail.selftest.example, *.example",
            leaf=lambda world: world.issue(("*.mail.selftest.example", "*.example")),
        ),
        Spoilt(
            failing="certificate.intermediates",
            words="intermediate is neither sent nor trusted",
            chain=lambda world, leaf: leaf.pem,
        ),
        Spoilt(
            failing="certificate.key", words="RSA 1024", leaf=lambda world: world.issue(key=new_key(1024))
        ),
    ],
)
def test_a_spoilt_certificate_fails_its_own_check(
    tree: Path, tmp_path: Path, world: World, spoilt: Spoilt
) -> None:
    leaf = spoilt.leaf(world)
    world.publish(leaf)
    state = replace(world.state(leaf), chain=spoilt.chain(world, leaf))
    report = probe(tree, tmp_path, world, state)
    expected = {spoilt.failing}
    if spoilt.failing == "certificate.intermediates":  # nobody can verify what its issuer says either
        expected |= {"certificate.crl-file", "certificate.crl", "certificate.ocsp-staple"}
    assert set(stopping(report)) == expected
    assert spoilt.words in by_id(report, spoilt.failing).found


def test_a_self_signed_certificate_is_trusted_by_nobody(tree: Path, tmp_path: Path, world: World) -> None:
    report = probe(tree, tmp_path, world, self_signed(world), crls=(), staple=False)
    assert set(stopping(report)) == {"certificate.chain"}
    assert "self-signed" in by_id(report, "certificate.chain").found


def test_a_wildcard_stands_for_one_label(tree: Path, tmp_path: Path, world: World) -> None:
    leaf = world.issue(("*.selftest.example",))
    world.publish(leaf)
    assert stopping(probe(tree, tmp_path, world, world.state(leaf))) == {}


Lists = Callable[[World], bytes]


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (lambda world: world.authority.crl([world.leaf]), "revoked"),
        (lambda world: world.authority.crl(lifetime=OLD), "out of date"),
        (lambda world: Authority.create("stranger").crl(), "another issuer"),
        (lambda world: Authority.create().crl(), "not signed by"),
    ],
)
@pytest.mark.parametrize("way", ["certificate.crl-file", "certificate.crl"])
def test_a_list_that_does_not_clear_the_certificate_fails(
    tree: Path, tmp_path: Path, world: World, *, lists: Lists, words: str, way: str
) -> None:
    pem = lists(world)
    changes: dict[str, object] = {"crls": load_crls(pem)} if way == "certificate.crl-file" else {}
    if not changes:
        world.publish(world.leaf, crl=der_crl(pem))
    report = probe(tree, tmp_path, world, world.state(), **changes)
    assert set(stopping(report)) == {way}
    assert words in by_id(report, way).found


def delegated(world: World) -> Identity:
    return world.authority.issue(["responder"], usage=ExtendedKeyUsageOID.OCSP_SIGNING)


Answer = Callable[[World], bytes]
ANSWERS: list[tuple[Answer, str]] = [
    (lambda world: world.authority.ocsp_answer(world.leaf, revoked=True), "revoked"),
    (lambda world: world.authority.ocsp_answer(world.leaf, lifetime=OLD), "out of date"),
    (lambda world: world.authority.ocsp_answer(world.issue()), "another certificate"),
    (lambda world: world.authority.ocsp_answer(world.leaf, responder=world.issue()), "not signed by"),
    (
        lambda world: world.authority.ocsp_answer(
            world.leaf, responder=delegated(replace(world, authority=Authority.create("stranger")))
        ),
        "not signed by",
    ),
    (lambda world: b"no response", "unreadable"),
]


@pytest.mark.parametrize(("answer", "words"), ANSWERS)
def test_a_responder_that_does_not_clear_the_certificate_fails(
    tree: Path, tmp_path: Path, world: World, answer: Answer, words: str
) -> None:
    world.publish(world.leaf, answer=answer(world))
    report = probe(tree, tmp_path, world, world.state())
    assert set(stopping(report)) == {"certificate.ocsp"}
    assert words in by_id(report, "certificate.ocsp").found


# The stub's own OpenSSL sends no response that is about another certificate, or that it cannot read.
@pytest.mark.parametrize(("answer", "words"), [ANSWERS[number] for number in (0, 1, 3, 4)])
def test_a_staple_that_does_not_clear_the_certificate_fails(
    tmp_path: Path, world: World, answer: Answer, words: str
) -> None:
    tls = context(world.leaf, world.authority.chain(world.leaf), tmp_path)
    tls.set_ocsp_server_callback(lambda _connection, _data: answer(world))
    with serving(good_answers, tls) as dial:
        report = examine(world.subject(dial))
    assert set(stopping(report)) == {"certificate.ocsp-staple"}
    assert words in by_id(report, "certificate.ocsp-staple").found


def test_an_exim_with_gnutls_refuses_starttls_for_a_revoked_staple(
    tree: Path, tmp_path: Path, world: World
) -> None:
    revoked = world.authority.ocsp_answer(world.leaf, revoked=True)
    report = probe(tree, tmp_path, world, replace(world.state(), files={"ocsp.der": revoked}))
    assert set(stopping(report)) == {"transport.starttls-accepted"}


def test_a_delegated_responder_counts(tree: Path, tmp_path: Path, world: World) -> None:
    answer = world.authority.ocsp_answer(world.leaf, responder=delegated(world))
    world.publish(world.leaf, answer=answer)
    report = probe(tree, tmp_path, world, replace(world.state(), files={"ocsp.der": answer}))
    assert stopping(report) == {}


def test_an_expected_staple_that_is_absent_fails_and_another_is_warned_of(
    tree: Path, tmp_path: Path, world: World
) -> None:
    state = replace(world.state(), options={})
    report = probe(tree, tmp_path / "due", world, state)
    assert set(stopping(report)) == {"certificate.ocsp-staple"}
    report = probe(tree, tmp_path / "optional", world, state, staple=False)
    assert stopping(report) == {}
    assert "certificate.ocsp-staple" in verdicts(report, Verdict.WARN)


def test_an_authority_whose_web_site_is_down_says_nothing_about_the_server(
    tree: Path, tmp_path: Path, world: World
) -> None:
    world.site.pages.clear()
    report = probe(tree, tmp_path, world, world.state())
    assert stopping(report) == {}
    assert {"certificate.crl", "certificate.ocsp"} <= verdicts(report, Verdict.WARN)


def test_direct_tls_needs_no_starttls(tree: Path, tmp_path: Path, world: World) -> None:
    with running(tree, tmp_path, world.state(), direct_tls=True) as place:
        report = examine(replace(world.subject(place), direct_tls=True))
        stumbling = examine(replace(world.subject(place), timeout=1.0))
    assert stopping(report) == {}
    assert not {check.id for check in report.checks} & {
        "transport.ehlo", "transport.starttls-offered", "transport.starttls-accepted", "transport.injection"
    }  # fmt: skip
    assert set(stopping(stumbling)) == {"transport.banner"}


def _offers_again(peer: Peer) -> None:
    _until_starttls(peer)
    peer.tls(reply=b"250-again\r\n250 STARTTLS\r\n")


def _until_starttls(peer: Peer) -> None:
    peer.say("220 mail.selftest.example\r\n")
    peer.hear()
    peer.say("250-mail.selftest.example\r\n250 STARTTLS\r\n")
    peer.hear()
    peer.say("220 go ahead\r\n")


def _keeps_what_came_in_clear(peer: Peer) -> None:
    peer.say("220 mail.selftest.example\r\n")
    peer.hear()
    peer.say("250-mail.selftest.example\r\n250 STARTTLS\r\n")
    smuggled = peer.hear_all().removeprefix(b"STARTTLS\r\n")
    peer.say("220 go ahead\r\n")
    peer.tls(before=smuggled)


def _hangs_in_handshake(peer: Peer) -> None:
    _until_starttls(peer)
    peer.hang()


def _garbage(peer: Peer) -> None:
    peer.say("\x00\x16\x03HTTP/1.0 400 Bad Request\x1b[2J\r\n\r\n")
    peer.hang()


def _huge_banner(peer: Peer) -> None:
    peer.say("220-" + "x" * 60 + "\r\n")
    for _ in range(1_000_000 // 70):
        peer.say("220-" + "x" * 64 + "\r\n")
    peer.hang()


@pytest.mark.parametrize(
    ("script", "failing", "words"),
    [
        (_keeps_what_came_in_clear, "transport.injection", "answered inside TLS"),
        (_offers_again, "transport.starttls-inside", "again"),
        (_hangs_in_handshake, "transport.handshake", "no answer within"),
        (_garbage, "transport.banner", "no SMTP reply: \\x00\\x16\\x03HTTP"),
        (_huge_banner, "transport.banner", "longer than 65536 octets"),
    ],
)
def test_states_that_no_exim_can_be_brought_into(
    tmp_path: Path, world: World, script: Callable[[Peer], None], failing: str, words: str
) -> None:
    tls = context(world.leaf, world.authority.chain(world.leaf), tmp_path)
    timeout = 2.0 if script is _hangs_in_handshake else 15.0
    with serving(script, tls) as dial:
        report = examine(replace(world.subject(dial), staple=False, timeout=timeout))
    assert set(stopping(report)) == {failing}
    assert words in by_id(report, failing).found
    assert "\x1b" not in report.transcript


def test_a_chain_in_the_wrong_order_is_told_although_it_is_trusted(tmp_path: Path, world: World) -> None:
    authority, leaf = world.authority, world.leaf
    tls = context(leaf, leaf.pem + authority.root.pem + authority.intermediate.pem, tmp_path)
    with serving(good_answers, tls) as dial:
        report = examine(replace(world.subject(dial), staple=False))
    assert set(stopping(report)) == {"certificate.order"}


def good_answers(peer: Peer) -> None:
    _until_starttls(peer)
    peer.tls()
