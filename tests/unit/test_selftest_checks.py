from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from backport import probe
from backport.artifacts import Check, Nevra, Verdict
from backport.errors import HostError, SelfTestError, ToolError
from backport.probe.errors import (
    CannotOffer,
    Closed,
    HandshakeFailed,
    NoAnswer,
    Unreachable,
    WireError,
)
from backport.probe.ledger import Ledger
from backport.probe.smtp import Conversation, NotSmtp, Refused, Reply
from backport.probe.tls import Session, VerifyError
from backport.recipe import Command, Handshake, SelfTest, Starttls
from backport.selftest import KINDS, checks, commands, inside, plan
from backport.selftest.authority import Authority
from backport.selftest.inside import MappedFile, ProgramResult

AFTER = Handshake(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")
VERSION_OUTPUT = """Exim version 4.91 #1 built 01-Jan-2019 00:00:00
Library version: OpenSSL: Compile: {compiled}
                          Runtime: {running}
                                 : built on: Thu Jan  1 00:00:00 1970 UTC
Library version: PCRE: Compile: 8.42
                       Runtime: 8.42 2018-03-20
"""


def lib(evr: str = "1.1.1w-1.fc28.bp1", name: str = "openssl-libs") -> Nevra:
    version, _, release = evr.partition("-")
    return Nevra(name=name, epoch=1, version=version, release=release, arch="x86_64")


@pytest.fixture(scope="module")
def chain() -> tuple[x509.Certificate, ...]:
    authority = Authority.create()
    leaf = authority.issue(["mail.example.org"])
    return tuple(x509.load_pem_x509_certificates(authority.chain(leaf)))


@pytest.fixture
def ledger() -> Ledger:
    tls = Starttls(before=Handshake(protocol="TLSv1.2"), after=AFTER, refused=("TLSv1", "TLSv1.1"))
    command = Command(id="version", run=("openssl", "version"), output=r"1\.1\.1")
    return Ledger(plan(SelfTest(install=("exim",), starttls=tls, commands=(command,))))


def result(ledger: Ledger, check_id: str) -> Check:
    found = next(check for check in ledger.checks() if check.id == check_id)
    if found.stops:
        assert found.advice.endswith((".", "again"))
        assert found.expected
        assert found.found
    return found


def conversation(session: Session) -> Conversation:
    reply = Reply(code=220, lines=("220 mail.example.org",))
    return Conversation(banner=reply, plain=reply, session=session, inside=reply)


def session(
    protocol: str = "TLSv1.3",
    cipher: str = "TLS_AES_256_GCM_SHA384",
    chain: tuple[x509.Certificate, ...] = (),
    errors: tuple[VerifyError, ...] = (),
) -> Session:
    return Session(protocol=protocol, cipher=cipher, chain=chain, errors=errors)


def fail(message: str, *, log: Path | None = None, hint: str | None = None) -> None:
    raise SelfTestError(message, log=log, hint=hint)


def test_plan_has_every_id_in_order(ledger: Ledger) -> None:
    assert [check.id for check in ledger.checks()] == [
        "root.installed",
        "before.exim",
        "before.starttls",
        "before.protocol",
        "update.installed",
        "policy.block",
        "policy.include",
        "after.exim",
        "after.starttls",
        "after.protocol",
        "after.cipher",
        "after.chain",
        "after.hostname",
        "after.refuses-tlsv1",
        "after.refuses-tlsv1.1",
        "library.maps",
        "library.owner",
        "library.runtime-version",
        "after.s-client",
        *probe.plan(),
        "mail.helo-botnet",
        "mail.sender-botnet.coarse",
        "mail.sender-botnet.refined",
        "mail.requires-helo",
        "mail.rcpt-requires-tls",
        "mail.unknown-recipient",
        "mail.outbound.no-starttls",
        "mail.outbound.refused-starttls",
        "mail.outbound.failed-handshake",
        "mail.outbound.delivered",
        "mail.inbound.log",
        "mail.inbound.received",
        "command.version",
    ]


def test_a_recipe_without_starttls_plans_root_update_and_commands_only() -> None:
    planned = plan(SelfTest(commands=(Command(id="a", run=("true",)),)))
    assert list(planned) == ["root.installed", "update.installed", "command.a"]


def test_a_check_that_was_forgotten_is_an_error_not_a_pass(ledger: Ledger) -> None:
    assert all(check.verdict is Verdict.ERROR for check in ledger.checks())


def test_a_failed_step_is_an_error_that_bars_what_needs_it(ledger: Ledger) -> None:
    with ledger.step("before.exim", expected="Exim listens", bars=("before.",), advice="Read its log."):
        fail("Exim did not start")
    assert result(ledger, "before.exim").verdict is Verdict.ERROR
    barred = result(ledger, "before.protocol")
    assert (barred.verdict, barred.advice) == (Verdict.SKIPPED, "before.exim: Exim did not start")
    assert result(ledger, "after.exim").verdict is Verdict.ERROR


def test_a_failed_step_keeps_the_end_of_its_log(ledger: Ledger, tmp_path: Path) -> None:
    log = tmp_path / "exim.log"
    log.write_text("x" * 10_000 + "\n\x1b[2JExim configuration error in line 1\n")
    with ledger.step("after.exim", expected="Exim listens", advice="Read its log."):
        fail("Exim did not start", log=log, hint="Correct line 1.")
    found = result(ledger, "after.exim")
    assert found.evidence.endswith("\\x1b[2JExim configuration error in line 1")
    assert len(found.evidence) < 5000
    assert found.advice == "Correct line 1."


def test_a_host_that_lacks_something_is_no_result(ledger: Ledger) -> None:
    with (
        pytest.raises(HostError),
        ledger.step("after.exim", expected="Exim listens", advice="Read its log."),
    ):
        raise HostError("no bubblewrap")


def test_the_expected_handshake_passes(ledger: Ledger) -> None:
    checks.judge_handshake(ledger, "after", conversation(session()), AFTER)
    for check_id in ("after.starttls", "after.protocol", "after.cipher"):
        assert result(ledger, check_id).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("protocol", "cipher", "failing"),
    [
        ("TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", {"after.protocol", "after.cipher"}),
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", {"after.cipher"}),
    ],
)
def test_another_handshake_fails_by_name(
    ledger: Ledger, protocol: str, cipher: str, failing: set[str]
) -> None:
    checks.judge_handshake(ledger, "after", conversation(session(protocol, cipher)), AFTER)
    failed = {check.id for check in ledger.checks() if check.verdict is Verdict.FAIL}
    assert failed == failing


def test_a_target_that_has_it_already_fails_the_negative_control(ledger: Ledger) -> None:
    checks.judge_handshake(ledger, "before", conversation(session()), Handshake(protocol="TLSv1.2"))
    found = result(ledger, "before.protocol")
    assert found.verdict is Verdict.FAIL
    assert "starttls.before" in found.advice


@pytest.mark.parametrize(
    "trouble",
    [
        Unreachable("x"),
        NoAnswer("x"),
        Closed("x"),
        NotSmtp("x"),
        Refused("x", Reply(code=454, lines=("454 no",))),
        HandshakeFailed("x", alert=40),
        CannotOffer("x"),
    ],
)
def test_a_conversation_that_broke_fails_and_skips_what_it_would_have_shown(
    ledger: Ledger, trouble: WireError
) -> None:
    checks.judge_trouble(ledger, "after", trouble)
    assert result(ledger, "after.starttls").verdict is Verdict.FAIL
    assert result(ledger, "after.cipher").verdict is Verdict.SKIPPED
    assert result(ledger, "after.refuses-tlsv1").verdict is Verdict.SKIPPED
    assert result(ledger, "before.protocol").verdict is Verdict.ERROR


def test_a_whole_chain_passes(ledger: Ledger, chain: tuple[x509.Certificate, ...]) -> None:
    checks.judge_chain(ledger, session(chain=chain))
    checks.judge_hostname(ledger, session(chain=chain), "mail.example.org")
    assert result(ledger, "after.chain").verdict is Verdict.PASS
    assert result(ledger, "after.hostname").verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("sent", "code", "advice"),
    [
        (3, 10, "Renew"),
        (1, 20, "intermediate"),
        (2, None, "root, in this order"),
        (3, 19, "root, in this order"),
        (0, None, "root, in this order"),
    ],
)
def test_a_bad_chain_fails_with_advice(
    ledger: Ledger, chain: tuple[x509.Certificate, ...], sent: int, code: int | None, advice: str
) -> None:
    errors = (VerifyError(code=code, depth=0, subject="CN=x"),) if code else ()
    checks.judge_chain(ledger, session(chain=chain[:sent], errors=errors))
    found = result(ledger, "after.chain")
    assert found.verdict is Verdict.FAIL
    assert advice in found.advice


def test_another_host_s_certificate_fails(ledger: Ledger, chain: tuple[x509.Certificate, ...]) -> None:
    checks.judge_hostname(ledger, session(chain=chain), "mx.example.org")
    found = result(ledger, "after.hostname")
    assert (found.verdict, found.found) == (Verdict.FAIL, "mail.example.org")


def test_no_certificate_fails_the_host_name(ledger: Ledger) -> None:
    checks.judge_hostname(ledger, session(), "mx.example.org")
    assert result(ledger, "after.hostname").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (HandshakeFailed("the server refused", alert=70), Verdict.PASS),
        (HandshakeFailed("the server refused", alert=40), Verdict.PASS),
        (session("TLSv1", "ECDHE-RSA-AES256-SHA"), Verdict.FAIL),
        (HandshakeFailed("the client broke it off"), Verdict.ERROR),
        (CannotOffer("no protocols available"), Verdict.ERROR),
        (Closed("closed"), Verdict.ERROR),
        (NoAnswer("silent"), Verdict.ERROR),
        (Unreachable("refused"), Verdict.ERROR),
    ],
)
def test_only_an_alert_proves_a_refusal(
    ledger: Ledger, outcome: Session | WireError, verdict: Verdict
) -> None:
    checks.judge_refusal(ledger, "TLSv1", outcome, None)
    assert result(ledger, "after.refuses-tlsv1").verdict is verdict


MAPS = """\
55d0-55d1 r--p 00000000 fd:01 131 /usr/sbin/exim
7f00-7f01 r--p 00000000 fd:01 132                        /usr/lib64/libssl.so.1.1.1w{suffix}
7f01-7f02 r-xp 00000000 fd:01 132                        /usr/lib64/libssl.so.1.1.1w{suffix}
7f02-7f03 r-xp 00000000 fd:01 133                        /usr/lib64/libcrypto.so.1.1.1w
7f03-7f04 rw-p 00000000 00:00 0
7ffc-7ffd rw-p 00000000 00:00 0                          [stack]
"""


def test_maps_name_each_file_once() -> None:
    found = inside.mapped_files(MAPS.format(suffix=""), "libssl.so")
    assert found == (MappedFile(path="/usr/lib64/libssl.so.1.1.1w", deleted=False),)


@pytest.mark.parametrize(
    ("maps", "verdict"),
    [
        (MAPS.format(suffix=""), Verdict.PASS),
        (MAPS.format(suffix=" (deleted)"), Verdict.FAIL),
        (MAPS.format(suffix="") + "7f10-7f11 r--p 0 fd:01 9 /opt/libssl.so.3\n", Verdict.FAIL),
        ("", Verdict.FAIL),
    ],
)
def test_the_daemon_must_have_one_libssl_that_is_on_disk(ledger: Ledger, maps: str, verdict: Verdict) -> None:
    inside.judge_maps(ledger, inside.mapped_files(maps, "libssl.so"))
    assert result(ledger, "library.maps").verdict is verdict


@pytest.mark.parametrize(
    ("owner", "candidate", "verdict"),
    [
        (lib(), lib(), Verdict.PASS),
        (lib("1.1.0i-1.fc28"), lib(), Verdict.FAIL),
        (None, lib(), Verdict.FAIL),
        (None, None, Verdict.FAIL),
    ],
)
def test_the_library_must_be_the_candidate_s(
    ledger: Ledger, owner: Nevra | None, candidate: Nevra | None, verdict: Verdict
) -> None:
    inside.judge_owner(ledger, "/usr/lib64/libssl.so.1.1", owner, candidate, "openssl-libs")
    assert result(ledger, "library.owner").verdict is verdict


@pytest.mark.parametrize(
    ("running", "verdict"),
    [
        ("OpenSSL 1.1.1w  11 Sep 2023", Verdict.PASS),
        ("1.1.1w", Verdict.PASS),
        ("OpenSSL 1.1.1w FIPS  20 Nov 2018", Verdict.PASS),
        ("OpenSSL 1.1.1w-fips  20 Nov 2018", Verdict.PASS),
        ("OpenSSL 1.1.0i  14 Aug 2018", Verdict.FAIL),
        ("OpenSSL 1.1.1  11 Sep 2018", Verdict.FAIL),
    ],
)
def test_the_run_time_version_counts_not_the_compiled_one(
    ledger: Ledger, running: str, verdict: Verdict
) -> None:
    output = VERSION_OUTPUT.format(compiled="OpenSSL 1.1.0i  14 Aug 2018", running=running)
    inside.judge_runtime_version(ledger, ProgramResult(exit_code=0, output=output), lib())
    assert result(ledger, "library.runtime-version").verdict is verdict


def test_an_exim_with_another_library_fails_the_run_time_version(ledger: Ledger) -> None:
    output = ProgramResult(exit_code=0, output="Library version: GnuTLS: Compile: 3.7\n   Runtime: 3.7\n")
    inside.judge_runtime_version(ledger, output, lib())
    assert result(ledger, "library.runtime-version").verdict is Verdict.FAIL


BRIEF = """CONNECTION ESTABLISHED
Protocol version: {protocol}
Ciphersuite: {cipher}
Peer certificate: CN = mail.example.org
Verification: OK
250 HELP
DONE
"""


@pytest.mark.parametrize(
    ("exit_code", "protocol", "cipher", "verdict"),
    [
        (0, "TLSv1.3", "TLS_AES_256_GCM_SHA384", Verdict.PASS),
        (1, "TLSv1.3", "TLS_AES_256_GCM_SHA384", Verdict.FAIL),
        (0, "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", Verdict.FAIL),
        (0, "TLSv1.3", "TLS_AES_128_GCM_SHA256", Verdict.FAIL),
    ],
)
def test_s_client_counts_by_exit_code_and_session(
    ledger: Ledger, exit_code: int, protocol: str, cipher: str, verdict: Verdict
) -> None:
    output = BRIEF.format(protocol=protocol, cipher=cipher)
    inside.judge_s_client(ledger, ProgramResult(exit_code=exit_code, output=output), AFTER)
    assert result(ledger, "after.s-client").verdict is verdict


def test_s_client_without_starttls_offered_prints_ok_and_fails(ledger: Ledger) -> None:
    output = ProgramResult(exit_code=1, output="Didn't find STARTTLS\nVerify return code: 0 (ok)\n")
    inside.judge_s_client(ledger, output, AFTER)
    assert result(ledger, "after.s-client").verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("installed", "required", "verdict"),
    [
        ([lib()], [], Verdict.PASS),
        ([lib(), lib("1.1.1w-1.fc28.bp1", "openssl")], [], Verdict.PASS),
        ([lib("1.1.0i-1.fc28")], [], Verdict.FAIL),
        ([lib(), lib("1.1.0i-1.fc28", "openssl")], [], Verdict.FAIL),
        ([lib()], ["openssl-perl"], Verdict.FAIL),
        ([lib(name="bash")], [], Verdict.FAIL),
        ([], [], Verdict.FAIL),
    ],
)
def test_update_leaves_nothing_old_of_the_candidate_s_names(
    ledger: Ledger, installed: list[Nevra], required: list[str], verdict: Verdict
) -> None:
    candidates = [lib(), lib(name="openssl"), lib(name="openssl-perl")]
    inside.judge_update(ledger, installed, candidates, required)
    assert result(ledger, "update.installed").verdict is verdict


@pytest.mark.parametrize(
    ("exit_code", "output", "verdict"),
    [
        (0, "OpenSSL 1.1.1w", Verdict.PASS),
        (1, "OpenSSL 1.1.1w", Verdict.FAIL),
        (0, "OpenSSL 1.1.0i", Verdict.FAIL),
    ],
)
def test_a_command_must_exit_and_say_as_expected(
    ledger: Ledger, exit_code: int, output: str, verdict: Verdict
) -> None:
    command = Command(id="version", run=("openssl", "version"), output=r"1\.1\.1")
    ledger.record(
        commands.command_id(command),
        commands.judged(command, ProgramResult(exit_code=exit_code, output=output)),
    )
    assert result(ledger, "command.version").verdict is verdict


def test_output_that_a_regular_expression_cannot_be_done_with_says_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MATCHING", 0.2)
    command = Command(id="version", run=("openssl", "version"), output="(a+)+b")
    with pytest.raises(ToolError, match=r"output of command\.version: not done after 0\.2 seconds"):
        ledger.record(
            commands.command_id(command),
            commands.judged(command, ProgramResult(exit_code=0, output="a" * 40)),
        )
    assert not ledger.has("command.version")


def test_evidence_of_a_hostile_program_is_harmless(ledger: Ledger) -> None:
    command = Command(id="version", run=("openssl", "version"))
    output = "\x1b[2J" + "x" * 100_000
    ledger.record(
        commands.command_id(command), commands.judged(command, ProgramResult(exit_code=1, output=output))
    )
    evidence = result(ledger, "command.version").evidence
    assert "\x1b" not in evidence
    assert len(evidence) < 5000


def test_the_kinds_are_those_that_a_recipe_can_name() -> None:
    assert tuple(KINDS) == SelfTest.kinds()
