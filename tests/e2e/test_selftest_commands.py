"""The self-test of a recipe without STARTTLS, in a real root, with packages made in a moment."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from backport import selftest
from backport.artifacts import TestedRpms, Verdict
from backport.errors import SelfTestError
from backport.progress import Silent
from backport.recipe import Command, SelfTest
from backport.selftest import Examination
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny
from tests.e2e.candidates import Candidate, describe, make_candidate

READS = Command(id="reads", run=("cat", "/usr/share/tiny/file"), output="^content$")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selftest")


@pytest.fixture(scope="module")
def target(f28: Target) -> Target:
    return f28.model_copy(update={"buildroot": ("bash", "coreutils", "fedora-release")})


@pytest.fixture(scope="module")
def candidate(shared: Path, target: Target) -> Candidate:
    signing = Signing(gnupghome=shared / "gnupg")
    built = [tiny.build(shared / "tiny")]
    return make_candidate(built, signing=signing, target=target, folder=shared)


def examine(
    candidate: Candidate,
    target: Target,
    shared: Path,
    workspace: Path,
    *,
    commands: Sequence[Command] = (READS,),
    update: Sequence[str] = ("tiny",),
    install: Sequence[str] = (),
) -> Examination:
    return selftest.examine(
        candidate.signed,
        SelfTest(install=tuple(install), update=tuple(update), commands=tuple(commands)),
        target,
        candidate=candidate.folder,
        cache=shared / "cache",
        workspace=workspace,
        progress=Silent(),
    )


def verdicts(examination: Examination) -> Mapping[str, Verdict]:
    return {check.id: check.verdict for check in examination.checks}


def test_packages_are_installed_from_the_candidate_and_the_commands_pass(
    candidate: Candidate, target: Target, shared: Path, tmp_path: Path
) -> None:
    examination = examine(candidate, target, shared, tmp_path)
    assert verdicts(examination) == {
        "root.installed": Verdict.PASS,
        "update.installed": Verdict.PASS,
        "command.reads": Verdict.PASS,
    }
    tested = selftest.passed(candidate.signed, examination)
    assert isinstance(tested, TestedRpms)
    assert tested.checks == examination.checks
    assert (tmp_path / "update.log").exists()


def test_packages_that_the_target_never_had_are_taken_where_nothing_is_named(
    candidate: Candidate, target: Target, shared: Path, tmp_path: Path
) -> None:
    examination = examine(candidate, target, shared, tmp_path, update=())
    assert set(verdicts(examination).values()) == {Verdict.PASS}
    updated = next(check for check in examination.checks if check.id == "update.installed")
    assert updated.found == "tiny-1-1.fc28.bp1.noarch"
    assert examination.replaced == ()


def test_a_command_that_fails_stops_publishing_and_disturbs_no_other(
    candidate: Candidate, target: Target, shared: Path, tmp_path: Path
) -> None:
    commands = (
        Command(id="fails", run=("cat", "/no/such/file")),
        READS,
        Command(id="missing", run=("/no/such/program",)),
        Command(id="echoed", run=("test", "other"), output="test other"),
    )
    examination = examine(candidate, target, shared, tmp_path, commands=commands)
    assert {check.id for check in examination.checks if check.stops} == {
        "command.fails",
        "command.missing",
        "command.echoed",
    }
    fails = next(check for check in examination.checks if check.id == "command.fails")
    assert "/no/such/file" in fails.evidence
    with pytest.raises(SelfTestError, match=r"command\.fails, command\.missing") as problem:
        selftest.passed(candidate.signed, examination)
    assert problem.value.exit_code == 7
    assert any("/no/such/file" in line for line in problem.value.evidence)
    assert problem.value.hint


def test_a_package_that_does_not_exist_leaves_every_check_accounted_for(
    candidate: Candidate, target: Target, shared: Path, tmp_path: Path
) -> None:
    examination = examine(candidate, target, shared, tmp_path, install=("no-such-package",))
    assert verdicts(examination) == {
        "root.installed": Verdict.ERROR,
        "update.installed": Verdict.SKIPPED,
        "command.reads": Verdict.SKIPPED,
    }
    assert "no-such-package" in examination.checks[0].evidence


def _unsign_metadata(folder: Path) -> None:
    (folder / "repodata" / "repomd.xml.asc").unlink()


def _change_metadata(folder: Path) -> None:
    path = folder / "repodata" / "repomd.xml"
    path.write_bytes(path.read_bytes().replace(b"<repomd", b"<repomd ", 1))


def _change_package(folder: Path) -> None:
    path = next(folder.glob("tiny-*.rpm"))
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("spoil", [_unsign_metadata, _change_metadata, _change_package])
def test_both_gpgchecks_are_on(
    candidate: Candidate, target: Target, shared: Path, tmp_path: Path, spoil: object
) -> None:
    assert callable(spoil)
    folder = tmp_path / "spoilt"
    shutil.copytree(candidate.folder, folder)
    spoil(folder)
    spoilt = Candidate(signed=candidate.signed, folder=folder)
    examination = examine(spoilt, target, shared, tmp_path)
    assert verdicts(examination) == {
        "root.installed": Verdict.PASS,
        "update.installed": Verdict.ERROR,
        "command.reads": Verdict.SKIPPED,
    }


def test_an_unsigned_package_is_refused(
    target: Target, shared: Path, candidate: Candidate, tmp_path: Path
) -> None:
    unsigned = tiny.build(tmp_path / "built")
    folder = tmp_path / "unsigned"
    shutil.copytree(candidate.folder, folder)
    for path in folder.glob("*.rpm"):
        path.unlink()
    shutil.copy(unsigned.rpms[0].path, folder)
    describe(folder, signing=Signing(gnupghome=shared / "gnupg"))
    examination = examine(Candidate(signed=candidate.signed, folder=folder), target, shared, tmp_path)
    assert verdicts(examination)["update.installed"] is Verdict.ERROR
    assert any("sign" in check.evidence.lower() for check in examination.checks)
