"""Daemons of the target in a real root, before and after the backported OpenSSL, and such as do not do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backport import selftest
from backport.artifacts import Check, Verdict
from backport.errors import SelfTestError
from backport.probe.ledger import Ledger
from backport.progress import Silent
from backport.recipe import Answer, SelfTest, Service
from backport.roots.root import Root
from backport.selftest import candidate_of, daemon, service
from backport.selftest.examiner import Examiner
from backport.selftest.service import ServiceKind
from tests.e2e.examined import Parts, by_id, updated_root

Ask = Callable[[Service], dict[str, Check]]
EXIM = """\
primary_hostname = @HOST@
spool_directory = /var/spool/exim-service
log_file_path = /var/spool/exim-service/log/%slog
pid_file_path = /var/spool/exim-service/exim.pid
keep_environment =
host_lookup =
rfc1413_hosts =
tls_advertise_hosts = *
tls_certificate = @CHAIN@
tls_privatekey = @KEY@
"""
SERVER = "openssl s_server -accept @PORT@ -cert @CHAIN@ -key @KEY@ -www"
KNOWS_TLS13 = "openssl ciphers -tls1_3 | grep TLS_AES"
OLD = Answer(protocol="TLSv1.2", banner=r"^HTTP/1\.\d 200")
NEW = Answer(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", banner=r"^HTTP/1\.\d 200")
WEB = Service(
    id="web", run=("sh", "/etc/web.sh"), files={"/etc/web.sh": f"exec {SERVER}\n"}, port=8443, ask="tls",
    say="GET / HTTP/1.0\r\n\r\n", library="openssl-libs", before=OLD, after=NEW,
)  # fmt: skip
MAIL = Service(
    id="mail", run=("/usr/sbin/exim", "-C", "/etc/mail.conf", "-bdf", "-oX", "@PORT@"), port=2525,
    files={"/etc/mail.conf": EXIM}, ask="starttls-smtp", library="openssl-libs",
    before=Answer(protocol="TLSv1.2", banner="service.selftest.example ESMTP"),
    after=Answer(protocol="TLSv1.3", banner="service.selftest.example ESMTP"),
)  # fmt: skip
GREETING = MAIL.model_copy(
    update={
        "id": "greeting",
        "ask": "plain",
        "before": None,
        "library": None,
        "after": Answer(banner="^220 "),
    }
)
MISMATCH = Service(
    id="mismatch", port=2222, ask="tls", before=Answer(protocol="TLSv1.2"), after=Answer(protocol="TLSv1.2"),
    run=("sh", "-c", f"if {KNOWS_TLS13}; then echo 'wrong version' >&2; exit 255; fi; {SERVER}"),
)  # fmt: skip


@pytest.fixture(scope="module")
def updated(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    with updated_root(parts, tmp_path_factory.mktemp("updated")) as root:
        yield root


def test_services_are_asked_before_and_after_and_one_that_fails_stops_publication(
    parts: Parts, tmp_path: Path
) -> None:
    examination = selftest.examine(
        parts.candidate.signed,
        SelfTest(install=parts.self_test.install, service=(WEB, MAIL, GREETING, MISMATCH)),
        parts.target,
        candidate=parts.candidate.folder,
        cache=parts.cache,
        workspace=tmp_path,
        progress=Silent(),
    )
    verdicts = {check.id: check.verdict for check in examination.checks}
    assert {name: one for name, one in verdicts.items() if one is not Verdict.PASS} == {
        "service.mismatch.after.start": Verdict.FAIL,
        "service.mismatch.after.answer": Verdict.SKIPPED,
    }
    assert list(verdicts)[0:3] == ["root.installed", "service.web.before.start", "service.web.before.answer"]
    assert "service.greeting.before.start" not in verdicts
    assert "openssl-libs-1:1.1.1" in by_id(examination.checks, "service.web.after.library").found
    assert "service.mail.after.library" in verdicts
    assert any("TLSv1.3 TLS_AES_256_GCM_SHA384" in line for line in examination.headline)
    failed = by_id(examination.checks, "service.mismatch.after.start")
    assert "wrong version" in failed.found
    with pytest.raises(SelfTestError, match=r"service\.mismatch\.after\.start") as caught:
        selftest.passed(parts.candidate.signed, examination)
    assert caught.value.exit_code == 7


@pytest.fixture
def ask(parts: Parts, updated: Root, tmp_path: Path) -> Ask:
    return lambda one: asked(parts, updated, tmp_path, one)


def asked(parts: Parts, root: Root, workspace: Path, one: Service) -> dict[str, Check]:
    ledger = Ledger(ServiceKind.plan((one,))[1])
    examiner = Examiner(
        root=root, candidate=candidate_of(parts.candidate.signed, parts.candidate.folder), wanted=(),
        workspace=workspace, ledger=ledger,
    )  # fmt: skip
    ServiceKind(examiner, (one,)).after()
    return {check.id.rpartition(".")[2]: check for check in ledger.checks()}


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (("/no/such/daemon",), "/no/such/daemon"),
        (("sh", "-c", "echo broken configuration >&2; exit 3"), "broken configuration"),
        (("sh", "-c", "true"), "did not start"),
        (("sh", "-c", SERVER.replace("@PORT@", "8444")), "not listen on port 8443 after 1 s, but on 8444"),
        (("sleep", "1000"), "not listen on port 8443"),
    ],
)
def test_a_daemon_that_does_not_start_fails_with_the_cause(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, run: tuple[str, ...], found: str
) -> None:
    monkeypatch.setattr(daemon, "START_TIMEOUT", 1.0)
    checks = ask(WEB.model_copy(update={"run": run}))
    assert checks["start"].verdict is Verdict.FAIL
    assert found in f"{checks['start'].found} {checks['start'].evidence}"
    assert {checks["answer"].verdict, checks["library"].verdict} == {Verdict.SKIPPED}


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"say": ""}, "no answer within 1"),
        ({"after": Answer(protocol="TLSv1.2")}, "TLSv1.3"),
        ({"after": NEW.model_copy(update={"banner": "404"})}, "HTTP/1.0 200"),
        ({"ask": "plain", "say": "", "after": Answer(banner="^SSH-2.0-")}, "no answer within 1"),
        ({"ask": "starttls-smtp", "say": "", "after": Answer(protocol="TLSv1.3")}, "no answer within 1"),
    ],
)
def test_a_wrong_answer_or_none_fails(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], found: str
) -> None:
    monkeypatch.setattr(service, "ANSWER_TIMEOUT", 1.0)
    checks = ask(WEB.model_copy(update=changed))
    assert checks["start"].verdict is Verdict.PASS
    assert checks["answer"].verdict is Verdict.FAIL
    assert found in checks["answer"].found
    assert checks["library"].verdict is Verdict.PASS


def test_a_library_that_the_daemon_does_not_map_fails_and_its_children_end_with_it(ask: Ask) -> None:
    one = WEB.model_copy(
        update={"library": "crypto-policies", "run": ("sh", "-c", f"sleep 98765 & exec {SERVER}")}
    )
    assert ask(one)["library"].verdict is Verdict.FAIL
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"98765" in _read(path)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
