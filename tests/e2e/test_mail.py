"""Mail rules and the crypto policy by the updated server: right, and in every state that must be caught."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backport.artifacts import Verdict
from backport.roots.root import Bind, Root
from backport.run import Command
from backport.selftest import mail
from backport.selftest.configuration import ALL_POLICIES, Policy
from backport.selftest.exim import CONFIGURATION, PROGRAM, Exim
from tests.conformity import check_document
from tests.e2e.examined import POLICY, Parts, by_id, stopping, updated_root
from tests.e2e.smtp_stub import Peer, serving
from tests.lab.layout import Lab
from tests.lab.serve import Served

ROUNDS = 50


@pytest.fixture(scope="module")
def updated(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root that has been updated from the candidate repository; tests leave it as it was."""
    with updated_root(parts, tmp_path_factory.mktemp("updated")) as root:
        yield root


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test knows not to come is waited for but a moment."""
    monkeypatch.setattr(mail, "LOG_TIMEOUT", 2.0)
    monkeypatch.setattr(mail, "_DROP_TIMEOUT", 2.0)


def test_a_correct_server_gives_no_false_alarm(parts: Parts, updated: Root, tmp_path: Path) -> None:
    for number in range(ROUNDS):
        examiner = parts.examiner(updated, tmp_path / str(number))
        examiner.after()
        assert stopping(examiner.ledger.checks()) == set()


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize(
    ("missing", "failing"),
    [
        (Policy.REQUIRE_HELO, {"mail.requires-helo"}),
        (Policy.HELO_BOTNET, {"mail.helo-botnet"}),
        (Policy.SENDER_BOTNET, {"mail.sender-botnet.refined"}),
        (Policy.REQUIRE_TLS_INBOUND, {"mail.rcpt-requires-tls"}),
        (
            Policy.REQUIRE_TLS_OUTBOUND,
            {
                "mail.outbound.no-starttls",
                "mail.outbound.refused-starttls",
                "mail.outbound.failed-handshake",
            },
        ),
    ],
)
def test_a_rule_that_is_missing_fails_its_own_checks_alone(
    parts: Parts, updated: Root, tmp_path: Path, missing: Policy, failing: set[str]
) -> None:
    examiner = parts.examiner(updated, tmp_path, policies=ALL_POLICIES - {missing})
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == failing
    for check_id in failing:
        assert by_id(found, check_id).verdict is Verdict.FAIL
        assert str(missing) in by_id(found, check_id).advice


@pytest.mark.usefixtures("_impatient")
def test_the_coarse_rule_in_the_place_of_the_refined_one_is_told(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    policies = ALL_POLICIES - {Policy.SENDER_BOTNET} | {Policy.SENDER_BOTNET_COARSE}
    examiner = parts.examiner(updated, tmp_path, policies=policies)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == {"mail.sender-botnet.refined"}
    assert "Anastasia.Kulikovwa: 550" in by_id(found, "mail.sender-botnet.refined").found


def test_mail_sent_in_clear_is_shown(parts: Parts, updated: Root, tmp_path: Path) -> None:
    examiner = parts.examiner(updated, tmp_path, policies=ALL_POLICIES - {Policy.REQUIRE_TLS_OUTBOUND})
    examiner.after()
    found = by_id(examiner.ledger.checks(), "mail.outbound.no-starttls")
    assert found.found.startswith("delivered, sent in clear: MAIL FROM:")


@pytest.mark.usefixtures("_impatient")
def test_garbage_in_the_place_of_smtp_leaves_what_needs_no_smtp(
    parts: Parts, updated: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def garbage(peer: Peer) -> None:
        peer.say("\x00\xffHTTP/1.1 200 OK\r\n\r\n")

    with serving(garbage) as dial:
        monkeypatch.setattr(Exim, "dial", lambda _exim, deadline: dial(deadline))
        examiner = parts.examiner(updated, tmp_path)
        examiner.after()
    found = examiner.ledger.checks()
    dialogues = {
        "mail.helo-botnet", "mail.requires-helo", "mail.sender-botnet.coarse", "mail.sender-botnet.refined",
    }  # fmt: skip
    assert stopping(found) == {"after.starttls", "transport.banner", *dialogues}
    assert "no SMTP reply" in by_id(found, "after.starttls").found
    assert by_id(found, "mail.outbound.delivered").verdict is Verdict.SKIPPED
    passed = {check.id for check in found if check.verdict is Verdict.PASS}
    assert {"after.exim", "library.maps", "library.owner", "policy.block", "transport.connect"} <= passed


@pytest.fixture
def policy_file(updated: Root) -> Iterator[Path]:
    """Where the policy's file was and will be again: moved, for it may be a base root's too."""
    path = updated.locate(POLICY)
    aside = path.with_name("kept")
    path.rename(aside)
    yield path
    aside.replace(path)


def test_a_policy_that_permits_old_protocols_is_a_warning(
    parts: Parts, updated: Root, tmp_path: Path, policy_file: Path
) -> None:
    strict = policy_file.with_name("kept").read_text()
    policy_file.write_text(strict.replace("MinProtocol = TLSv1.2", "MinProtocol = TLSv1"))
    examiner = parts.examiner(updated, tmp_path)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == set()
    for version in ("tlsv1", "tlsv1.1"):
        check = by_id(found, f"after.refuses-{version}")
        assert check.verdict is Verdict.WARN
        assert f"MinProtocol = TLSv1 in {POLICY}" in check.found
        assert "update-crypto-policies" in check.advice
    assert by_id(found, "transport.refuses-tlsv1.1").verdict is Verdict.WARN


def test_a_policy_that_is_ignored_is_a_failure(
    parts: Parts, updated: Root, tmp_path: Path, policy_file: Path
) -> None:
    """OpenSSL takes the last value, which this file gives where the policy is not looked for."""
    policy_file.write_text("MinProtocol = TLSv1.2\n")
    settings = updated.locate("/etc/pki/tls/openssl.cnf")
    kept = settings.read_bytes()
    settings.unlink()
    settings.write_bytes(kept.replace(b"openssl_conf", b"openssl_conf_not", 1))
    try:
        examiner = parts.examiner(updated, tmp_path)
        examiner.after()
    finally:
        settings.unlink()
        settings.write_bytes(kept)
    failed = stopping(examiner.ledger.checks())
    assert {"policy.block", "after.refuses-tlsv1", "after.refuses-tlsv1.1"} <= failed
    assert not any(check_id.startswith("mail.") for check_id in failed)


@pytest.mark.usefixtures("policy_file")
def test_where_the_policy_s_file_is_missing_the_patched_defaults_hold_with_a_warning(
    parts: Parts, updated: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(updated, tmp_path)
    examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == set()
    assert by_id(found, "policy.include").verdict is Verdict.WARN
    assert by_id(found, "after.refuses-tlsv1").verdict is Verdict.PASS


def test_with_the_stock_crypto_policies_the_patched_defaults_are_proven_by_behaviour(
    parts: Parts, lab: Lab, tmp_path: Path
) -> None:
    """Fedora 28's own package, which openssl-libs rejects, has no file for openssl.cnf to include."""
    package = next((lab.repositories / "updates").glob("crypto-policies-*.rpm"))
    command = ["rpm", "-U", "--oldpackage", "--nodeps", "--nosignature", "/stock.rpm"]
    binds = (Bind(host=package, inside="/stock.rpm"),)
    with updated_root(parts, tmp_path) as root:
        root.run(Command(command, timeout=60), user="root", binds=binds)
        examiner = parts.examiner(root, tmp_path / "stock")
        examiner.after()
    found = examiner.ledger.checks()
    assert stopping(found) == set()
    assert by_id(found, "policy.include").verdict is Verdict.WARN
    assert f"{POLICY} is not there" in by_id(found, "policy.include").found
    for version in ("tlsv1", "tlsv1.1"):
        assert by_id(found, f"after.refuses-{version}").verdict is Verdict.PASS


@pytest.mark.parametrize("policy", [None, *Policy])
def test_exim_takes_the_configuration_that_is_printed(
    updated: Root, tmp_path: Path, policy: Policy | None
) -> None:
    words = ["--policy", str(policy)] if policy else ["--host", "mx.example.org", "--staple", "/etc/ocsp.der"]
    printed = backport("exim-config", *words)
    settings = tmp_path / "exim.conf"
    settings.write_text(printed.stdout)
    settings.chmod(0o644)
    updated.run(
        Command([PROGRAM, "-C", CONFIGURATION, "-bV"], timeout=60),
        user="root",
        binds=(Bind(host=settings, inside=CONFIGURATION),),
    )


def test_two_forms_of_one_rule_are_a_usage_error() -> None:
    words = ("--policy", "sender-botnet", "--policy", "sender-botnet-coarse")
    assert "two forms" in backport("exim-config", *words, code=2).stderr


@pytest.fixture(scope="module")
def published(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a target as clients see it, with the candidate's packages in it."""
    folder = tmp_path_factory.mktemp("published") / "f28"
    (folder / "current").mkdir(parents=True)
    (folder / "current" / "x86_64").symlink_to(parts.candidate.folder)
    key = folder / "RPM-GPG-KEY-backport"
    key.write_bytes(parts.candidate.signed.public_key.read_bytes())
    (folder / "backport.repo").write_text(
        "[backport]\nname=Backports\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\n"
        f"baseurl={folder.as_uri()}/current/$basearch/\ngpgkey={key.as_uri()}\n"
    )
    return folder


def test_what_is_published_is_examined_alone(services: Served, published: Path, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("junit", "transcript")}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    done = selftest(services, "--repo", published.as_uri(), "--json", *words)
    document = json.loads(done.stdout)
    check_document("selftest", document)
    assert document["version"] == 1
    assert document["passed"] is True
    assert document["repository"] == f"{published.as_uri()}/current/x86_64/"
    assert {"before.protocol", "update.installed", "mail.outbound.delivered"} <= {
        check["id"] for check in document["checks"] if check["verdict"] == "pass"
    }
    cases = ET.parse(files["junit"]).getroot().findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == [check["id"] for check in document["checks"]]
    assert "Connection converted to SSL" in files["transcript"].read_text()


def _strip(folder: Path) -> None:
    (folder / "current/x86_64/repodata/repomd.xml.asc").unlink()


def _empty(folder: Path) -> None:
    (folder / "backport.repo").write_text("[other]\n")


def _gone(folder: Path) -> None:
    (folder / "backport.repo").unlink()


@pytest.mark.parametrize(("spoil", "code"), [(_strip, 7), (_empty, 3), (_gone, 3)])
def test_what_cannot_be_installed_or_found_has_its_exit_code(
    services: Served, published: Path, tmp_path: Path, spoil: Callable[[Path], None], code: int
) -> None:
    folder = tmp_path / "f28"
    subprocess.run(["cp", "-rL", published, folder], check=True)
    settings = folder / "backport.repo"
    settings.write_text(settings.read_text().replace(published.as_uri(), folder.as_uri()))
    spoil(folder)
    done = selftest(services, "--repo", folder.as_uri(), code=code)
    assert ("update.installed" if code == 7 else "backport.repo") in done.stdout + done.stderr


def test_a_repository_that_is_no_url_is_a_usage_error(services: Served) -> None:
    assert "no URL" in selftest(services, "--repo", "repo.example.org", code=2).stderr


def selftest(services: Served, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    return backport(
        "selftest", "openssl", "--target", "f28", *words, "--config", str(services.site), code=code
    )


def backport(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "backport", *words],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done
