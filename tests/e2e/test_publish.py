"""Publishing into real folders, with real packages, gpg, createrepo_c and disks that fail."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backport import repodata
from backport.artifacts import Check, SignedRpms, TestedRpms, Verdict
from backport.errors import PublishError
from backport.files import digest_of
from backport.repository.generations import RECORD, Generation, TargetFolder
from backport.repository.overview import PAGE
from backport.repository.proof import Exhibit
from backport.repository.publish import Run, publish
from backport.settings import Key
from backport.signing import sign
from backport.signing.detached import verify_file
from backport.site import Signing
from backport.target import Target, load_target
from backport.trust import verify_rpm
from tests.e2e import tiny
from tests.e2e.publisher import Arguments, publish_until
from tests.e2e.shelf import Publisher, Shelf, seen_by_reader, small_key, snapshot

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def f28() -> Target:
    return load_target(CHECKOUT / "mock-configs", "f28")


def test_a_first_publication_is_a_whole_repository(publisher: Publisher, shelf: Shelf) -> None:
    first = shelf("split", more=("split-libs", "split-debuginfo", "split-debugsource"))
    published = publisher.publish(first, run="abc", inputs={"target": "1"})
    assert published.folder == publisher.folder.path
    assert published.checks == tiny.proven(published)
    assert seen_by_reader(publisher, first) == {
        "split-1-1.fc28.bp1.noarch.rpm", "split-libs-1-1.fc28.bp1.noarch.rpm",
        "split-debuginfo-1-1.fc28.bp1.noarch.rpm", "split-debugsource-1-1.fc28.bp1.noarch.rpm",
        "split-1-1.fc28.bp1.src.rpm",
    }  # fmt: skip
    current = publisher.folder.current
    assert {path.name for path in (current / "x86_64").glob("*.rpm")} == {
        "split-1-1.fc28.bp1.noarch.rpm", "split-libs-1-1.fc28.bp1.noarch.rpm",
    }  # fmt: skip
    assert {path.name for path in (current / "debug/x86_64").glob("*.rpm")} == {
        "split-debuginfo-1-1.fc28.bp1.noarch.rpm", "split-debugsource-1-1.fc28.bp1.noarch.rpm",
    }  # fmt: skip
    assert [path.name for path in (current / "source").glob("*.rpm")] == ["split-1-1.fc28.bp1.src.rpm"]
    key = Key(fingerprint=first.signed.fingerprint, file=publisher.folder.public_key)
    for path in current.resolve().rglob("*.rpm"):
        assert verify_rpm(path, (key,), publisher.repository.parent) == key.fingerprint
    state = publisher.folder.published()
    assert state is not None
    assert (state.id, state.run, state.inputs) == (published.generation, "abc", {"target": "1"})
    names = [file.name for file in (current / "x86_64/repodata").iterdir()]
    assert sorted(name.rsplit("-", 1)[-1] for name in names) == [
        "filelists.xml.gz", "other.xml.gz", "primary.xml.gz", "repomd.xml", "repomd.xml.asc",
    ]  # fmt: skip
    own = f"http://repo.example.org/f28/generations/{published.generation}"
    for name in ("x86_64", "debug/x86_64", "source"):
        assert (current / name / "mirrorlist").read_text() == f"{own}/{name}/\n"


def test_everybody_may_read_what_is_published(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    for path in publisher.folder.path.rglob("*"):
        mode = path.stat().st_mode & 0o777
        if path.is_dir():
            assert mode == 0o755, path
        elif path.name != ".lock":
            assert mode == 0o644, path


def test_the_files_for_clients_never_change_without_need(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    text = publisher.folder.repo_file.read_text()
    assert "\nmirrorlist=http://repo.example.org/f28/current/$basearch/mirrorlist\n" in text
    assert "baseurl" not in text
    assert "gpgkey=http://repo.example.org/f28/RPM-GPG-KEY-backport\n" in text
    assert text.count("\ngpgcheck=1\nrepo_gpgcheck=1\n") == 3
    assert publisher.folder.public_key.read_text() == sign.show_key(publisher.signing).public_key
    before = publisher.folder.repo_file.stat()
    publisher.publish(shelf("second"))
    assert publisher.folder.repo_file.stat() == before


def test_the_next_generation_holds_everything_and_shares_it(publisher: Publisher, shelf: Shelf) -> None:
    first = publisher.publish(shelf("first"))
    old = {path: path.read_bytes() for path in publisher.folder.current.resolve().rglob("*.xml*")}
    publisher.publish(shelf("first", "2"))
    last = publisher.publish(shelf("second"))
    assert seen_by_reader(publisher, shelf("second")) == {
        f"{nvr}.fc28.bp1.{arch}.rpm"
        for nvr in ("first-1-1", "first-2-1", "second-1-1")
        for arch in ("noarch", "src")
    }
    name = "x86_64/first-1-1.fc28.bp1.noarch.rpm"
    generations = publisher.folder.generations
    assert (generations / first.generation / name).samefile(generations / last.generation / name)
    for path, content in old.items():
        assert path.read_bytes() == content
        if not path.name.startswith("repomd"):
            kept = publisher.folder.current / path.relative_to(generations / first.generation)
            assert kept.read_bytes() == content
    state = publisher.folder.published()
    assert state is not None
    second = publisher.folder.load(state.previous or "")
    assert second.previous == first.generation


def test_publishing_the_same_again_changes_nothing(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    first = shelf("first")
    published = publisher.publish(first)
    before = snapshot(publisher.repository)
    assert publisher.publish(first).generation == published.generation
    (built,) = first.signed.built
    again = shelf.sign_again(built, tmp_path / "again")
    assert publisher.publish(tiny.tested(again)).generation == published.generation
    assert snapshot(publisher.repository) == before
    assert publisher.notes[-1] == "everything is published already"


def test_other_inputs_make_a_generation_that_clients_see_no_change_of(
    publisher: Publisher, shelf: Shelf
) -> None:
    first = publisher.publish(shelf("first"), inputs={"tiny": "1", "other": "1"})
    repomd = (publisher.folder.current / "x86_64/repodata/repomd.xml").read_bytes()
    assert publisher.publish(shelf("first"), inputs={"tiny": "1"}).generation == first.generation
    second = publisher.publish(shelf("first"), inputs={"tiny": "2"})
    assert second.generation != first.generation
    assert publisher.folder.load(second.generation).inputs == {"tiny": "2", "other": "1"}
    assert (publisher.folder.current / "x86_64/repodata/repomd.xml").read_bytes() == repomd
    assert len(seen_by_reader(publisher, shelf("first"))) == 2


def test_other_content_under_the_same_name_is_refused(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    before = snapshot(publisher.repository)
    with pytest.raises(PublishError, match=r"first-1-1.fc28.bp1.noarch: is published already") as told:
        publisher.publish(shelf("first", content="other"))
    assert "bump" in (told.value.hint or "")
    assert snapshot(publisher.repository) == before


def test_a_package_signed_by_a_new_key_takes_the_place_of_the_old(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    first = shelf("first")
    publisher.publish(first)
    other = Signing(gnupghome=tmp_path / "other")
    small_key(other)
    signed = sign.sign(first.signed.built, signing=other, target=publisher.target, workspace=tmp_path / "w")
    anew = tiny.tested(signed)
    with pytest.raises(PublishError, match="the packages are signed by"):
        publisher.publish(anew)
    with pytest.raises(PublishError, match="last line is not signed") as told:
        replace(publisher, signing=other).publish(anew)
    assert "repo anchor" in (told.value.hint or "")
    publisher.folder.anchor(other)
    replace(publisher, signing=other).publish(anew)
    assert len(seen_by_reader(publisher, anew)) == 2
    state = publisher.folder.published()
    assert state is not None
    assert (state.signers, state.added) == ({signed.fingerprint: 2}, 0)
    assert verify_rpm(
        publisher.folder.current / "x86_64/first-1-1.fc28.bp1.noarch.rpm",
        (Key(fingerprint=signed.fingerprint, file=publisher.folder.public_key),), tmp_path,
    )  # fmt: skip


def changed(tested: TestedRpms, *, arch: str = "noarch", release: str = "1.fc28.bp1") -> TestedRpms:
    (rpm,) = tested.signed.rpms
    other = replace(rpm, nevra=replace(rpm.nevra, arch=arch, release=release))
    return tiny.tested(replace(tested.signed, rpms=(other,)))


@pytest.mark.parametrize(
    ("nevra", "message"),
    [
        ({"arch": "aarch64"}, "is for aarch64, the target f28 is x86_64"),
        ({"release": "1.fc29"}, r"does not name the target f28 \(.fc28\)"),
    ],
)
def test_a_package_for_something_else_is_refused(
    publisher: Publisher, shelf: Shelf, nevra: dict[str, str], message: str
) -> None:
    with pytest.raises(PublishError, match=message):
        publisher.publish(changed(shelf("first"), **nevra))
    assert publisher.folder.published() is None


def test_a_package_that_changed_after_its_test_is_refused(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    publisher.publish(shelf("second"))
    before = snapshot(publisher.repository)
    (rpm,) = shelf("first").signed.rpms
    path = tmp_path / rpm.path.name
    path.write_bytes(rpm.path.read_bytes() + b"\0")
    tested = tiny.tested(replace(shelf("first").signed, rpms=(replace(rpm, path=path),)))
    with pytest.raises(PublishError, match="changed since it was tested"):
        publisher.publish(tested)
    assert snapshot(publisher.repository) == before


def test_where_files_cannot_be_linked_they_are_copied(
    publisher: Publisher, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish(shelf("first"))

    def no_links(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    publisher.publish(shelf("second"))
    assert any("copied 7 files: the file system has no hard links" in note for note in publisher.notes)
    assert len(seen_by_reader(publisher, shelf("second"))) == 4


def test_a_repository_on_a_file_system_that_is_not_there_is_refused(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    away = replace(publisher, repository=tmp_path / "mount/repository")
    with pytest.raises(PublishError, match="its parent folder does not exist"):
        away.publish(shelf("first"))
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="file: File exists") as told:
        replace(publisher, repository=tmp_path / "file").publish(shelf("first"))
    assert "move away" in (told.value.hint or "")


@pytest.mark.parametrize(
    ("options", "messages"),
    [("size=600k", ["No space left on device", "make room"]), ("ro", ["Read-only file system", "writable"])],
)
def test_a_disk_that_does_not_take_it_changes_nothing(
    publisher: Publisher, shelf: Shelf, tmp_path: Path, options: str, messages: list[str]
) -> None:
    publisher.publish(shelf("first"))
    big = shelf("big", content="x" * 100)
    (rpm,) = big.signed.rpms
    padded = tmp_path / rpm.path.name
    shutil.copyfile(rpm.path, padded)
    with padded.open("r+b") as stream:
        stream.truncate(2 * 1024 * 1024)
    big = tiny.tested(replace(big.signed, rpms=(replace(rpm, path=padded, sha256=digest_of(padded)),)))
    mounted = tmp_path / "disk"
    mounted.mkdir()
    arguments = Arguments(
        tested=big, target=publisher.target, repository=mounted / "repository", signing=publisher.signing
    )
    (tmp_path / "arguments").write_bytes(pickle.dumps(arguments))
    listing = '(cd "$1/repository" && find -print0 | sort -z | xargs -0 ls -ld --time-style=full-iso)'
    script = f"""
        set -e; mount -t tmpfs -o size=600k tmpfs "$1"; cp -a "$2" "$1/"; mount -o "remount,$3" "$1"; shift 3
        {listing} > "$2.before"
        code=0; "$3" -m tests.e2e.publisher "$2" || code=$?
        {listing} > "$2.after"
        exit $code"""
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", mounted, publisher.repository, options, mounted,
         tmp_path / "arguments", sys.executable],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == PublishError.exit_code, done.stderr
    for message in messages:
        assert message in done.stdout
    before, after = ((tmp_path / f"arguments.{when}").read_text() for when in ("before", "after"))
    unlisted = (" ./f28\n", " ./f28/.lock\n", " ./f28/generations\n")
    assert [line for line in before.splitlines(keepends=True) if not line.endswith(unlisted)] == [
        line for line in after.splitlines(keepends=True) if not line.endswith(unlisted)
    ]


def test_damaged_state_is_told_and_left_alone(publisher: Publisher, shelf: Shelf) -> None:
    published = publisher.publish(shelf("first"))
    folder = publisher.folder.generations / published.generation
    primary = next(folder.glob("x86_64/repodata/*primary.xml.gz"))
    whole = primary.read_bytes()
    primary.write_bytes(whole[:-20])
    with pytest.raises(PublishError, match="metadata"):
        publisher.publish(shelf("second"))
    primary.write_bytes(whole)
    (folder / RECORD).write_text("{}")
    with pytest.raises(PublishError, match="is damaged"):
        publisher.publish(shelf("second"))
    publisher.folder.current.unlink()
    publisher.folder.current.symlink_to("elsewhere")
    with pytest.raises(PublishError, match="which is no generation"):
        publisher.publish(shelf("second"))
    publisher.folder.current.unlink()
    publisher.folder.current.mkdir()
    with pytest.raises(PublishError, match="is not a link"):
        publisher.publish(shelf("second"))


def test_a_lost_package_keeps_the_next_generation_from_readers(publisher: Publisher, shelf: Shelf) -> None:
    published = publisher.publish(shelf("first"))
    (publisher.folder.current / "x86_64/first-1-1.fc28.bp1.noarch.rpm").unlink()
    with pytest.raises(PublishError, match=r"first-1-1.fc28.bp1.noarch.rpm: No such file"):
        publisher.publish(shelf("second"))
    assert publisher.folder.current_id() == published.generation


def test_a_package_that_nothing_names_is_not_carried_on(publisher: Publisher, shelf: Shelf) -> None:
    published = publisher.publish(shelf("first"))
    folder = publisher.folder.generations / published.generation / "x86_64"
    (foreign,) = shelf("second").signed.rpms
    shutil.copy(foreign.path, folder / "stray.rpm")
    shutil.copy(foreign.path, folder)
    publisher.publish(shelf("third"))
    assert len(seen_by_reader(publisher, shelf("third"))) == 4
    publisher.publish(shelf("second"))
    assert len(seen_by_reader(publisher, shelf("second"))) == 6


def test_a_clock_that_went_back_is_refused(publisher: Publisher, shelf: Shelf) -> None:
    published = publisher.publish(shelf("first"))
    path = publisher.folder.generations / published.generation / RECORD
    record = Generation.from_json(path.read_text())
    path.write_text(replace(record, time=datetime.now(UTC) + timedelta(days=1)).to_json())
    with pytest.raises(PublishError, match="clock"):
        publisher.publish(shelf("second"))


def test_metadata_that_cannot_be_signed_is_not_published(
    publisher: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    publisher.publish(shelf("first"))
    before = snapshot(publisher.repository)
    missing = replace(publisher, signing=Signing(gnupghome=tmp_path / "nothing"))
    with pytest.raises(PublishError, match="no signing key"):
        missing.publish(shelf("second"))
    assert snapshot(publisher.repository) == before


def test_another_publisher_is_waited_for_or_told(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    with (
        publisher.folder.locked(timeout=0),
        pytest.raises(PublishError, match=rf"another process \(pid {os.getpid()}\) holds"),
    ):
        publish(Run(gated=tiny.gated(shelf("second"))), publisher.place(lock_timeout=0), prove=tiny.proven)


def test_two_publishers_at_once_lose_nothing(publisher: Publisher, shelf: Shelf) -> None:
    both = [shelf("first"), shelf("second")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(publisher.publish, both))
    assert len(seen_by_reader(publisher, both[0])) == 4


def refuse(_exhibit: Exhibit) -> tuple[Check, ...]:
    return (Check(id="no", title="It installs", verdict=Verdict.FAIL, found="not so"),)


def test_no_reader_ever_sees_what_no_client_can_install(publisher: Publisher, shelf: Shelf) -> None:
    seen: list[str] = []

    def look_and_refuse(exhibit: Exhibit) -> tuple[Check, ...]:
        """The whole generation is there, and nobody is led to it."""
        seen.append(exhibit.record.id)
        assert publisher.folder.current_id() != exhibit.record.id
        assert exhibit.record.id not in publisher.folder.ids()
        assert list(exhibit.content.glob("x86_64/*.rpm"))
        return refuse(exhibit)

    with pytest.raises(PublishError, match="It installs: not so"):
        publisher.publish(shelf("first"), prove=look_and_refuse)
    assert publisher.folder.published() is None
    assert not (publisher.folder.path / PAGE).exists()
    second = publisher.publish(shelf("second")).generation
    with pytest.raises(PublishError, match="It installs: not so"):
        publisher.publish(shelf("third"), prove=look_and_refuse)
    assert len(seen_by_reader(publisher, shelf("second"))) == 2
    assert len(seen) == 2
    history = [(event.action, event.generation) for event in publisher.folder.history()]
    assert history == [("proof", second), ("publish", second)]
    assert [path.name for path in publisher.folder.generations.iterdir()] == [second]


def test_readers_of_what_was_never_proven_are_led_to_the_last_that_was(
    publisher: Publisher, shelf: Shelf
) -> None:
    """Earlier versions proved what readers saw already, and could be killed meanwhile."""
    first = publisher.publish(shelf("first")).generation
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TargetFolder, "mark_proven", lambda *_arguments, **_options: None)
        second = publisher.publish(shelf("second")).generation
    assert (publisher.folder.current_id(), publisher.folder.is_proven(second)) == (second, False)
    with pytest.raises(PublishError, match=f"clients see {first} again"):
        publisher.publish(shelf("second"), prove=refuse)
    assert publisher.folder.current_id() == first


@pytest.fixture(scope="module")
def killed_states(
    tmp_path_factory: pytest.TempPathFactory, signing: Signing, f28: Target, shelf: Shelf
) -> list[tuple[int, Path]]:
    """Repositories after a publisher was killed before each of its steps, and the one it finished."""
    folder = tmp_path_factory.mktemp("killed")
    start = Publisher(repository=folder / "start", signing=signing, target=f28, notes=[])
    start.publish(shelf("first"))
    states = []
    step = 0
    while True:
        repository = folder / f"step-{step}"
        shutil.copytree(start.repository, repository, symlinks=True)
        arguments = Arguments(tested=shelf("second"), target=f28, repository=repository, signing=signing)
        status = publish_until(arguments, step)
        states.append((status, repository))
        if status == 0:
            break
        step += 1
        assert step < 500
    return states


def test_a_publisher_killed_before_any_step_leaves_a_whole_repository(
    killed_states: list[tuple[int, Path]], publisher: Publisher, shelf: Shelf
) -> None:
    assert {status for status, _ in killed_states[:-1]} == {signal.SIGKILL}
    assert len(killed_states) > 40
    seen = []
    for _, repository in killed_states:
        reader = replace(publisher, repository=repository)
        seen.append(len(seen_by_reader(reader, shelf("first"))))
        assert reader.folder.is_proven(reader.folder.current_id() or "")
    assert set(seen) == {2, 4}
    assert seen == sorted(seen)


def test_the_next_publisher_cleans_up(
    killed_states: list[tuple[int, Path]], publisher: Publisher, shelf: Shelf
) -> None:
    for _, repository in killed_states[:-20:4] + killed_states[-20:]:
        reader = replace(publisher, repository=repository)
        reader.publish(shelf("second"))
        assert len(seen_by_reader(reader, shelf("second"))) == 4
        # One that nobody was led to may be left, whole: it is known, and nothing whole is removed by itself.
        assert len(list(reader.folder.generations.iterdir())) in (2, 3)
        assert reader.folder.unknown() == ()
        assert {path.name for path in reader.folder.path.glob(".*")} == {".lock"}
        assert [event.generation for event in reader.folder.history()][-1] == reader.folder.current_id()


def test_a_reader_that_never_pauses_sees_only_whole_states(publisher: Publisher, shelf: Shelf) -> None:
    names = [f"part{number:03}" for number in range(PUBLICATIONS)]
    whole = shelf("whole", more=names).signed
    parts = {rpm.nevra.name: rpm for rpm in whole.rpms}
    publisher.publish(tiny.tested(replace(whole, srpms=(), rpms=(parts["whole"],))))
    # An agent that runs already is not started and ended for each publication.
    environment = {"PATH": "/usr/bin", "GNUPGHOME": str(publisher.signing.gnupghome)}
    subprocess.run(["gpgconf", "--launch", "gpg-agent"], env=environment, check=True, timeout=60)
    reader = Reader(publisher, whole)
    with reader:
        for name in names:
            publisher.publish(tiny.tested(replace(whole, srpms=(), rpms=(parts[name],))))
    subprocess.run(["gpgconf", "--kill", "all"], env=environment, check=True, timeout=60)
    assert reader.problem is None
    assert reader.rounds > PUBLICATIONS
    assert len(reader.named) > PUBLICATIONS
    assert len(seen_by_reader(publisher, tiny.tested(whole))) == PUBLICATIONS + 1


PUBLICATIONS = 60


class Reader:
    """Reads the repository again and again through the link, as a client with a base URL does."""

    def __init__(self, publisher: Publisher, signed: SignedRpms) -> None:
        self.publisher, self.signed = publisher, signed
        self.problem: BaseException | None = None
        self.rounds = 0
        self.named: set[str] = set()
        """Every metadata file that some ``repomd.xml`` named since the reader began."""
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.read)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_details: object) -> None:
        self.stop.set()
        self.thread.join()

    def read(self) -> None:
        try:
            while not self.stop.is_set():
                self.read_once(self.publisher.folder.current / "x86_64")
                self.rounds += 1
        except BaseException as problem:
            self.problem = problem
            raise

    def read_once(self, folder: Path) -> None:
        """What is read through the link may be of two generations; all that repomd.xml names is there, and
        so is what it named before."""
        before = self.publisher.folder.current_id()
        repomd = folder / repodata.FOLDER / repodata.REPOMD
        text, signature = repomd.read_bytes(), repomd.with_name("repomd.xml.asc").read_bytes()
        copy = self.publisher.repository.parent / "reader" / "repodata"
        copy.mkdir(parents=True, exist_ok=True)
        (copy / "repomd.xml").write_bytes(text)
        (copy / "repomd.xml.asc").write_bytes(signature)
        if self.publisher.folder.current_id() == before:
            verify_file(
                copy / "repomd.xml", public_key=self.signed.public_key, fingerprint=self.signed.fingerprint
            )
        for name in repodata.metadata_files(copy.parent):
            data = (folder / name).read_bytes()
            (copy.parent / name).write_bytes(data)
            self.named.add(name)
        assert [name for name in self.named if not (folder / name).is_file()] == []
        found = repodata.check_repodata(copy.parent)
        assert {problem.kind for problem in found} == {"missing"}
        for place, package in repodata.read_packages(copy.parent).items():
            assert (folder / place).stat().st_size == package.size_package
        for name in repodata.metadata_files(copy.parent):
            (copy.parent / name).unlink()
