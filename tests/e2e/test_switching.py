"""Readers while they are led from one generation to another: by any command, on failing disks, by kills."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from backport import repodata
from backport.errors import PublishError, ToolError
from backport.repository import grace, release
from backport.repository.contents import repositories_of
from backport.repository.generations import TargetFolder
from backport.repository.proof import served
from backport.repository.prune import prune
from backport.repository.rollback import rollback
from backport.repository.verification import verify
from backport.signing.detached import verify_file
from backport.target import Target, load_target
from tests.e2e import tiny
from tests.e2e.publisher import Arguments
from tests.e2e.shelf import Publisher, Shelf, seen_by_reader

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def f28() -> Target:
    return load_target(CHECKOUT / "mock-configs", "f28")


def told(publisher: Publisher) -> set[str]:
    """All that a client may ask for which has just read what it gets through `current`."""
    place = publisher.folder.current
    return {
        f"{name}/{path}"
        for name in repositories_of(publisher.target)
        for path in grace.own_files(place, name)
    }


def missing(publisher: Publisher, names: set[str]) -> list[str]:
    return sorted(name for name in names if not (publisher.folder.current / name).is_file())


def back(publisher: Publisher, generation: str | None = None) -> str:
    return rollback(publisher.place(), generation).generation


def test_whoever_has_read_another_generation_finds_all_that_it_names(
    publisher: Publisher, shelf: Shelf
) -> None:
    known: set[str] = set()
    ids: list[Any] = []
    for step in (
        lambda: publisher.publish(shelf("first")).generation,
        lambda: publisher.publish(shelf("first", "2")).generation,
        lambda: back(publisher),
        lambda: publisher.publish(shelf("second")).generation,
        lambda: back(publisher, ids[1]),
        lambda: back(publisher, ids[0]),
        lambda: prune(publisher.place(), 1),
    ):
        ids.append(step())
        known |= told(publisher)
        assert missing(publisher, known) == []
        assert verify(publisher.folder, publisher.target).faults == ()
    assert set(publisher.folder.ids()) == {ids[0], ids[1], ids[3]}
    assert len(seen_by_reader(publisher, shelf("first"))) == 2


def test_loans_go_after_the_grace_and_what_is_foreign_does_not_pass_for_one(
    publisher: Publisher, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publisher.publish(shelf("first")).generation
    second = publisher.publish(shelf("second")).generation
    back(publisher)
    lent = publisher.folder.folder_of(first) / "x86_64/second-1-1.fc28.bp1.noarch.rpm"
    assert lent.is_file()
    assert verify_faults(publisher) == []
    content = lent.read_bytes()
    lent.unlink()
    lent.write_bytes(content + b"\0")
    assert verify_faults(publisher) == [
        f"generations/{first}/x86_64/{lent.name}: is an extra file, which nothing names"
    ]
    lent.unlink()
    lent.hardlink_to(publisher.folder.folder_of(second) / "x86_64" / lent.name)
    monkeypatch.setattr(grace, "GRACE", timedelta(0))
    publisher.publish(shelf("third"))
    grace.unshare(publisher.folder, publisher.target)
    assert not lent.exists()
    assert verify_faults(publisher) == []
    prune(publisher.place(), 1)
    assert len(publisher.folder.ids()) == 2


def verify_faults(publisher: Publisher) -> list[str]:
    return [str(fault) for fault in verify(publisher.folder, publisher.target).faults]


def test_a_mirror_list_that_leads_elsewhere_is_found(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    listed = publisher.folder.current / "x86_64/mirrorlist"
    text = listed.read_text()
    for wrong in ("", "http://elsewhere/\n", text + "http://elsewhere/\n", text.replace("x86_64", "source")):
        listed.write_text(wrong)
        assert any("does not name" in fault for fault in verify_faults(publisher))
    listed.write_text(text)
    assert verify_faults(publisher) == []


def test_clients_in_a_storm_of_switches_never_miss_a_file_nor_mix_signatures(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    seconds = float(os.environ.get("BACKPORT_STORM", "6"))
    whole = shelf("whole", more=[f"part{number}" for number in range(4)]).signed
    parts = [tiny.tested(replace(whole, srpms=(), rpms=(rpm,))) for rpm in whole.rpms]
    with served(publisher.repository.parent) as url:
        publisher = replace(publisher, url=f"{url}/{publisher.repository.name}")
        ids = [publisher.publish(parts[0]).generation]
        clients = [
            Client(f"{publisher.url}/f28", tmp_path / way, way, whole.public_key, whole.fingerprint)
            for way in ("mirrorlist", "current")
        ]
        with clients[0], clients[1]:
            end, number = time.monotonic() + seconds, 0
            while time.monotonic() < end:
                number += 1
                if number < len(parts):
                    ids.append(publisher.publish(parts[number]).generation)
                elif (wanted := ids[number % len(ids)]) != publisher.folder.current_id():
                    back(publisher, wanted)
        print(f"{number} switches, rounds by mirrorlist and by current: {[one.rounds for one in clients]}")
        print(f"signatures of another generation: {[one.mixed for one in clients]}")
    assert [one.problem for one in clients] == [None, None]
    assert all(one.rounds >= 10 for one in clients)
    assert clients[0].mixed == 0


class Client:
    """Asks again and again for all that a repository's metadata names, as dnf does, while the block lasts."""

    def __init__(self, url: str, folder: Path, way: str, key: Path, fingerprint: str) -> None:
        self.url, self.folder, self.way, self.key, self.fingerprint = url, folder, way, key, fingerprint
        self.rounds = self.mixed = 0
        self.problem: BaseException | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.loop)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_details: object) -> None:
        self.stop.set()
        self.thread.join()

    def loop(self) -> None:
        try:
            with requests.Session() as session:
                session.trust_env = False
                while not self.stop.is_set():
                    self.read(session)
                    self.rounds += 1
        except BaseException as problem:  # noqa: BLE001  # told by the test's own thread
            self.problem = problem

    def read(self, session: requests.Session) -> None:
        def fetch(url: str) -> bytes:
            answer = session.get(url, timeout=30)
            answer.raise_for_status()
            return answer.content

        base = f"{self.url}/current/x86_64/"
        if self.way == "mirrorlist":
            base = fetch(f"{base}mirrorlist").decode().strip()
        repomd = self.folder / "repodata/repomd.xml"
        repomd.parent.mkdir(parents=True, exist_ok=True)
        repomd.write_bytes(fetch(f"{base}repodata/repomd.xml"))
        repomd.with_name("repomd.xml.asc").write_bytes(fetch(f"{base}repodata/repomd.xml.asc"))
        try:
            verify_file(repomd, public_key=self.key, fingerprint=self.fingerprint)
        except ToolError:
            self.mixed += 1
            return
        for name in repodata.metadata_files(self.folder):
            (self.folder / name).write_bytes(fetch(f"{base}{name}"))
        for place, package in repodata.read_packages(self.folder).items():
            assert len(fetch(f"{base}{place}")) == package.size_package


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A small file system of its own that can fail."""

    folder: Path
    broken: list[str] = field(default_factory=list)

    def fail(self, how: str) -> None:
        if self.broken:
            return
        self.broken.append(how)
        if how == "full":
            state = os.statvfs(self.folder)
            (self.folder / "ballast").write_bytes(bytes(state.f_bavail * state.f_frsize))
        else:
            # A lock that is held keeps the mount itself from being made read-only; so another is put on it.
            subprocess.run(["mount", "--bind", self.folder, self.folder], check=True)
            subprocess.run(["mount", "-o", "remount,ro,bind", self.folder], check=True)

    def mend(self) -> None:
        (self.folder / "ballast").unlink() if "full" in self.broken else self.uncover()

    def uncover(self) -> None:
        if "read-only" in self.broken:
            self.broken.clear()
            subprocess.run(["umount", self.folder], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        found = Disk(folder=folder)
        yield found
        found.uncover()
    finally:
        subprocess.run(["umount", folder], check=True)


STEPS: dict[str, tuple[object, str]] = {
    "proof": (release, "require_proven"),
    "record": (TargetFolder, "switch"),
    "rename": (TargetFolder, "_let_see"),
    "page": (release, "renew"),
}
SWITCHED = {("rename", "full"), ("page", "full"), ("page", "read-only")}
"""Where readers are led on all the same: a rename takes no room."""


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("step", STEPS)
def test_the_exit_code_says_what_readers_see_however_the_disk_fails(
    publisher: Publisher, shelf: Shelf, disk: Disk, how: str, step: str
) -> None:
    """The disk fails just before a step; then it is well again, and the next command goes on."""
    publisher = replace(publisher, repository=disk.folder / "repository")
    seen = publisher.publish(shelf("first")).generation
    owner, name = STEPS[step]
    original = getattr(owner, name)

    def fails_before(*arguments: object, **options: object) -> object:
        disk.fail(how)
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, fails_before)
        if (step, how) in SWITCHED:
            seen = publisher.publish(shelf("second")).generation
        else:
            with pytest.raises(PublishError, match=r"No space left|Read-only"):
                publisher.publish(shelf("second"))
    assert disk.broken == [how]
    assert publisher.folder.current_id() == seen
    disk.mend()
    publisher.publish(shelf("second"))
    assert len(seen_by_reader(publisher, shelf("second"))) == 4
    assert publisher.folder.is_proven(publisher.folder.current_id() or "")
    assert len(publisher.folder.ids()) == 2
    assert verify_faults(publisher) == []


def test_readers_are_on_a_proven_generation_whenever_a_publisher_is_killed(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    rounds = int(os.environ.get("BACKPORT_KILLS", "8"))
    publisher.publish(shelf("first"))
    arguments = Arguments(
        tested=shelf("second"), target=publisher.target, repository=publisher.repository,
        signing=publisher.signing,
    )  # fmt: skip
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    start = snapshot_of(publisher, tmp_path / "start")
    longest, outcomes = 3.0, set[tuple[int, int]]()
    chance = random.Random(20261124)
    for _ in range(rounds):
        start()
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.publisher", str(tmp_path / "arguments")], cwd=CHECKOUT,
            start_new_session=True,
        ) as process:  # fmt: skip
            try:
                process.wait(chance.uniform(0.3, longest))
                longest = time.monotonic() - began
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        current = publisher.folder.current_id() or ""
        assert publisher.folder.is_proven(current)
        outcomes.add((process.returncode, len(seen_by_reader(publisher, shelf("second")))))
        publisher.publish(shelf("second"))
        assert len(seen_by_reader(publisher, shelf("second"))) == 4
        assert publisher.folder.is_proven(publisher.folder.current_id() or "")
        assert verify_faults(publisher) == []
        assert len(publisher.folder.ids()) == 2
    print(outcomes)


def snapshot_of(publisher: Publisher, kept: Path) -> Callable[[], None]:
    """Keeps a repository as it is; what is given puts it back."""
    shutil.copytree(publisher.repository, kept, symlinks=True)

    def put_back() -> None:
        shutil.rmtree(publisher.repository)
        shutil.copytree(kept, publisher.repository, symlinks=True)

    return put_back
