"""A disk without room: who writes says so with the place, and leaves nothing half."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from backport.artifacts import BuiltRpms
from backport.builders import BuildRequest
from backport.builders.common import collect
from backport.errors import BackportError
from backport.pipeline import _offer
from backport.runs.history import Recorder
from backport.runs.job import Job, Stage, load_job
from backport.runs.results import ResultStore
from backport.signing import sign
from backport.site import Signing
from tests.e2e import tiny

ROOM = 30_000
"""Less than a package has, and enough for what is written beside it."""


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A file system of its own, and what fills it but for a little."""

    folder: Path

    def fill(self) -> None:
        state = os.statvfs(self.folder)
        (self.folder / "ballast").write_bytes(bytes(state.f_bavail * state.f_frsize - ROOM))

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        yield Disk(folder=folder)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRpms:
    return tiny.build(tmp_path_factory.mktemp("built"), content=os.urandom(100_000).hex())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    site = tmp_path / "backport.toml"
    site.write_text('[paths]\ncache = "cache"\n')
    return load_job("openssl", "f28", site)


Case: TypeAlias = tuple[Stage, int, Callable[[BuiltRpms, Job, Path], object]]
"""A stage, the exit code of its failures, and something that it writes."""


def _collect(built: BuiltRpms, job: Job, disk: Path) -> object:
    request = BuildRequest(patched=built.patched, workspace=disk)
    return collect(built.srpm.path.parent, request, target=job.target, logs=[], builder="b")


def _store(disk: Path) -> ResultStore:
    return ResultStore(disk / "built", key=disk.with_name("cache-key"), note=print)


def _keep(built: BuiltRpms, _job: Job, disk: Path) -> object:
    return _store(disk).keep("key", built)


def _sign(built: BuiltRpms, job: Job, disk: Path) -> object:
    signing = Signing(gnupghome=job.site.paths.cache / "gnupg")
    return sign.sign([built], signing=signing, target=job.target, workspace=disk / "sign")


def _candidates(built: BuiltRpms, job: Job, disk: Path) -> None:
    folder = disk / "candidates"
    folder.mkdir(exist_ok=True)
    _offer(built.rpms, folder, job)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param((Stage.BUILD, 5, _collect), id="collect"),
        pytest.param((Stage.BUILD, 5, _keep), id="keep"),
        pytest.param((Stage.SIGN, 6, _sign), id="sign"),
        pytest.param((Stage.SELF_TEST, 7, _candidates), id="candidates"),
    ],
)
def test_a_full_disk_is_told_as_the_stages_own_failure(
    disk: Disk, built: BuiltRpms, job: Job, case: Case
) -> None:
    stage, code, write = case
    disk.fill()
    record = Recorder(job, runs=job.site.paths.cache / "runs")
    with pytest.raises(BackportError) as caught, record.stage(stage):
        write(built, job, disk.folder)
    report = record.finish(caught.value)
    assert report.failure is not None
    assert (report.exit_code, report.failure.stage) == (code, stage)
    assert report.failure.message.endswith(": No space left on device")
    assert str(disk.folder) in report.failure.message
    assert "make room" in str(report.failure.hint)


def test_what_the_store_could_not_keep_leaves_nothing_and_can_be_kept_later(
    disk: Disk, built: BuiltRpms
) -> None:
    store = _store(disk.folder)
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        store.keep("key", built)
    assert list((disk.folder / "built").iterdir()) == []
    assert store.find("key", built.patched) is None
    disk.make_room()
    assert store.keep("key", built).srpm.sha256 == built.srpm.sha256


def test_a_report_finds_room_where_a_run_filled_the_disk(disk: Disk, job: Job) -> None:
    record = Recorder(job, runs=disk.folder / "runs")
    workspace = record.workspace("build")
    with pytest.raises(BackportError) as caught, record.stage(Stage.BUILD):
        (workspace / "large.rpm").write_bytes(bytes(4_000_000))
    report = record.finish(caught.value)
    assert report.exit_code == 5
    assert (record.folder / "report.json").stat().st_size > 0
    assert (record.folder / "junit.xml").stat().st_size > 0
    assert not (workspace / "large.rpm").exists()
