"""What is done with real generations: led back, promoted, pruned, verified; and the key that changes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from backport import repodata
from backport.artifacts import Verdict
from backport.errors import PublishError, SignError
from backport.evidence.store import statements, verify_provenance
from backport.repository import grace
from backport.repository.generations import RECORD, Generation, last_switch
from backport.repository.holds import held_sources
from backport.repository.listing import compare, list_generations
from backport.repository.overview import PAGE
from backport.repository.promote import promote
from backport.repository.prune import collect_garbage, prune
from backport.repository.rollback import Moved, rollback
from backport.repository.surroundings import check_clients
from backport.repository.upkeep import keep_up
from backport.repository.verification import verify
from backport.signing import rollover, sign
from backport.signing.key import other_keys
from backport.site import Signing, load_site
from backport.target import Target, load_target
from tests.e2e import tiny
from tests.e2e.publisher import Arguments, run_until
from tests.e2e.shelf import Publisher, Shelf, notes_of, seen_by_reader, small_key, snapshot

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def f28() -> Target:
    return load_target(CHECKOUT / "mock-configs", "f28")


@pytest.fixture
def testing(publisher: Publisher) -> Publisher:
    return replace(publisher, channel="testing")


def back(publisher: Publisher, generation: str | None = None) -> Moved:
    return rollback(publisher.place(lock_timeout=0), generation)


def promoted(
    source: Publisher, destination: Publisher, *, force: bool = False, dry_run: bool = False
) -> Moved:
    place = replace(destination, signing=source.signing).place(lock_timeout=0)
    return promote(source.place(), place, force=force, dry_run=dry_run)


def pruned(publisher: Publisher, keep: int) -> tuple[str, ...]:
    return prune(publisher.place(), keep)


def collected(publisher: Publisher) -> tuple[str, ...]:
    return collect_garbage(publisher.place())


def faults(publisher: Publisher) -> list[str]:
    return [str(fault) for fault in verify(publisher.folder, publisher.target).faults]


def test_generations_are_listed_and_compared(publisher: Publisher, shelf: Shelf) -> None:
    first = publisher.publish(shelf("first"), run="one", inputs={"tiny": "1"})
    second = publisher.publish(shelf("second"), run="two", inputs={"tiny": "2"})
    new, old = list_generations(publisher.folder)
    assert (new.id, new.current, new.packages, new.added, new.run) == (second.generation, True, 4, 2, "two")
    assert (old.id, old.current, old.packages, old.added, old.run) == (first.generation, False, 2, 2, "one")
    one, two = (publisher.folder.load(each.generation) for each in (first, second))
    difference = compare(publisher.folder, one, two)
    assert difference.added == ("source: second-1-1.fc28.bp1.src", "x86_64: second-1-1.fc28.bp1.noarch")
    assert (difference.removed, difference.changed, difference.inputs) == ((), (), ("tiny",))
    assert compare(publisher.folder, two, one).removed == difference.added
    (publisher.folder.generations / first.generation / RECORD).write_text("{}")
    assert "is damaged" in list_generations(publisher.folder)[1].note


def test_what_was_rolled_back_is_held_until_its_inputs_change(publisher: Publisher, shelf: Shelf) -> None:
    first = publisher.publish(shelf("first"), inputs={"tiny": "1"})
    second = publisher.publish(shelf("first", "2"), inputs={"tiny": "2"})
    assert back(publisher) == Moved(
        folder=str(publisher.folder.path), generation=first.generation, before=second.generation,
        held=("tiny",), packages=("first-2-1.fc28.bp1.noarch", "first-2-1.fc28.bp1.src"),
    )  # fmt: skip
    assert len(seen_by_reader(publisher, shelf("first"))) == 2
    assert publisher.folder.history()[-1].action == "rollback"
    before = snapshot(publisher.repository)
    with pytest.raises(PublishError, match="was rolled back"):
        publisher.publish(shelf("first", "2"), inputs={"tiny": "2"})
    assert snapshot(publisher.repository) == before
    publisher.publish(shelf("first", "3"), inputs={"tiny": "3"})
    assert "2" in publisher.folder.held()
    publisher.publish(shelf("first", "2"), inputs={"tiny": "2"}, force=True)
    assert publisher.folder.held() == frozenset()


def test_no_other_run_brings_back_what_was_rolled_back(
    publisher: Publisher, testing: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    publisher.publish(shelf("first"), inputs={"tiny": "1"})
    bad = shelf("first", "2")
    publisher.publish(bad, inputs={"tiny": "2"})
    back(publisher)
    (built,) = bad.signed.built
    anew = tiny.tested(shelf.sign_again(built, tmp_path / "again"))
    for what, inputs in ((bad, {"tiny": "other tool"}), (bad, {"another recipe": "4"}), (anew, None)):
        with pytest.raises(PublishError, match=r"first-2-1\.fc28\.bp1\.noarch, .*: was rolled back") as told:
            publisher.publish(what, inputs=inputs)
        assert "bump" in (told.value.hint or "")
    assert held_sources(publisher.folder, [built.patched]) == ("first",)
    testing.publish(bad, inputs={"tiny": "another"})
    with pytest.raises(PublishError, match="was rolled back"):
        promoted(testing, publisher)
    publisher.publish(shelf("first", "3"), inputs={"tiny": "3"})
    assert held_sources(publisher.folder, [built.patched]) == ("first",)
    publisher.publish(bad, force=True)
    assert held_sources(publisher.folder, [built.patched]) == ()


def test_a_hold_of_an_earlier_version_is_one_on_its_packages(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"), inputs={"tiny": "1"})
    publisher.publish(shelf("first", "2"), inputs={"tiny": "2"})
    back(publisher)
    history = publisher.folder.path / "history.jsonl"
    *lines, last = history.read_text().splitlines()
    history.write_text("\n".join([*lines, json.dumps({**json.loads(last), "held": ["2"]})]) + "\n")
    assert publisher.folder.held() == {"2"}
    with pytest.raises(PublishError, match=r"first-2-1.*: was rolled back"):
        publisher.publish(shelf("first", "2"), inputs={"tiny": "other tool"})


def test_the_way_forth_again_lets_go(publisher: Publisher, shelf: Shelf) -> None:
    first = publisher.publish(shelf("first"), inputs={"tiny": "1"})
    second = publisher.publish(shelf("second"), inputs={"tiny": "2"})
    back(publisher, first.generation)
    assert len(publisher.folder.held()) == 4
    assert back(publisher, second.generation).held == ()
    assert publisher.folder.held() == frozenset()


def test_what_clients_may_have_got_before_a_rollback_counts(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    publisher.publish(shelf("second"))
    back(publisher)
    with pytest.raises(
        PublishError, match=r"second-1-1\.fc28\.bp1\.noarch: is published already, with other"
    ):
        publisher.publish(shelf("second", content="other"))


@pytest.mark.parametrize("wrong", ["20260101T000000Z-0123456789ab", "../x", "nothing"])
def test_a_generation_that_does_not_exist_is_told(publisher: Publisher, shelf: Shelf, wrong: str) -> None:
    publisher.publish(shelf("first"))
    before = snapshot(publisher.repository)
    with pytest.raises(PublishError, match="generation") as told:
        back(publisher, wrong)
    assert "repo list" in (told.value.hint or "")
    with pytest.raises(PublishError, match="no earlier generation is known"):
        back(publisher)
    with pytest.raises(PublishError, match="already"):
        back(publisher, publisher.folder.current_id())
    assert snapshot(publisher.repository) == before


def test_where_nothing_is_published_there_is_nothing_to_change(
    publisher: Publisher, testing: Publisher
) -> None:
    for action in (
        lambda: back(publisher), lambda: pruned(publisher, 1), lambda: faults(publisher),
        lambda: collected(publisher), lambda: promoted(testing, publisher),
    ):  # fmt: skip
        with pytest.raises(PublishError, match="nothing is published there"):
            action()
    assert not publisher.repository.exists()


def test_a_channel_gets_what_another_has(publisher: Publisher, testing: Publisher, shelf: Shelf) -> None:
    testing.publish(shelf("first"), inputs={"tiny": "1"})
    testing.publish(shelf("second"), inputs={"more": "1"})
    moved = promoted(testing, publisher)
    assert moved.before is None
    assert len(seen_by_reader(publisher, shelf("first"))) == 4
    assert faults(publisher) == faults(testing) == []
    record = publisher.folder.load(moved.generation)
    assert (record.inputs, record.previous) == ({"tiny": "1", "more": "1"}, None)
    for name in ("x86_64/first-1-1.fc28.bp1.noarch.rpm", "x86_64/repodata/repomd.xml.asc"):
        assert (publisher.folder.current / name).samefile(testing.folder.current / name)
    text = testing.folder.repo_file.read_text()
    assert "mirrorlist=http://repo.example.org/testing/f28/current/$basearch/mirrorlist\n" in text
    text = publisher.folder.repo_file.read_text()
    assert "mirrorlist=http://repo.example.org/f28/current/$basearch/mirrorlist\n" in text
    before = snapshot(publisher.repository)
    assert promoted(testing, publisher).generation == moved.generation
    assert snapshot(publisher.repository) == before
    testing.publish(shelf("third"))
    again = promoted(testing, publisher)
    assert publisher.folder.load(again.generation).previous == moved.generation
    assert [event.action for event in publisher.folder.history()] == ["proof", "promote"] * 2
    assert faults(publisher) == []


def test_a_promotion_that_would_take_or_bring_back_is_refused(
    publisher: Publisher, testing: Publisher, shelf: Shelf
) -> None:
    testing.publish(shelf("first"), inputs={"tiny": "1"})
    with pytest.raises(PublishError, match="not promoted to itself"):
        promoted(testing, testing)
    publisher.publish(shelf("second"))
    with pytest.raises(PublishError, match=r"src: .* generation to promote"):
        promoted(testing, publisher)
    testing.publish(shelf("second", content="other"))
    with pytest.raises(PublishError, match="with other content"):
        promoted(testing, publisher)


def test_a_promotion_of_what_was_rolled_back_must_be_forced(
    publisher: Publisher, testing: Publisher, shelf: Shelf
) -> None:
    testing.publish(shelf("first"), inputs={"tiny": "1"})
    promoted(testing, publisher)
    testing.publish(shelf("first", "2"), inputs={"tiny": "2"})
    promoted(testing, publisher)
    back(publisher)
    with pytest.raises(PublishError, match="tiny: was rolled back"):
        promoted(testing, publisher)
    promoted(testing, publisher, force=True)
    assert len(seen_by_reader(publisher, shelf("first"))) == 4


@pytest.fixture
def _no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if what readers saw last had been days ago."""
    monkeypatch.setattr(grace, "GRACE", timedelta(0))


@pytest.mark.usefixtures("_no_grace")
def test_old_generations_go_but_never_what_is_needed(publisher: Publisher, shelf: Shelf) -> None:
    ids = [publisher.publish(shelf("first", version)).generation for version in ("1", "2", "3")]
    with pytest.raises(PublishError, match="at least one"):
        pruned(publisher, 0)
    assert pruned(publisher, 2) == (ids[0],)
    # The newest build of the package is in the last one alone, readers see the one before.
    back(publisher)
    assert pruned(publisher, 1) == ()
    ids.append(publisher.publish(shelf("second")).generation)
    assert pruned(publisher, 1) == (ids[1],)
    assert set(publisher.folder.ids()) == {ids[2], ids[3]}
    assert faults(publisher) == []


@pytest.mark.usefixtures("_no_grace")
def test_what_stays_keeps_its_evidence_and_its_row_when_generations_go(
    publisher: Publisher, shelf: Shelf
) -> None:
    first = publisher.publish(shelf("first"), notes=notes_of("first", shelf("first")))
    second = publisher.publish(shelf("second"), notes=notes_of("second", shelf("second")))
    page = publisher.folder.path / PAGE
    assert "removed since" not in page.read_text()
    assert pruned(publisher, 1) == (first.generation,)
    told = " ".join(page.read_text().split())
    assert f'{first.generation}</code><span class="soft">publish, removed since' in told
    assert f'{second.generation}</code><span class="soft">publish, current' in told
    assert told.count("-1-1.fc28.bp1.noarch.rpm") == 2
    assert len(list(statements(publisher.folder.current))) == 2
    checks = verify_provenance(publisher.folder.path, [publisher.folder.public_key])
    assert [check.id for check in checks if check.stops] == []
    assert faults(publisher) == []


def test_a_page_that_a_killed_process_left_behind_is_renewed(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    page = publisher.folder.path / PAGE
    old = page.read_text()
    publisher.publish(shelf("second"))
    new = page.read_text()
    page.write_text(old)
    assert collected(publisher) == ()
    assert page.read_text() == new


def test_leftovers_are_collected(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    (publisher.folder.generations / ".new-killed/x86_64").mkdir(parents=True)
    (publisher.folder.generations / ".old-killed").mkdir()
    (publisher.folder.path / ".history.jsonl.killed").write_text("")
    assert len(faults(publisher)) == 3
    assert collected(publisher) == (
        ".history.jsonl.killed", "generations/.new-killed", "generations/.old-killed"
    )  # fmt: skip
    assert faults(publisher) == []
    assert collected(publisher) == ()


def flip(path: Path, place: int) -> None:
    """Change one byte of a file that no other generation shares any more."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.unlink()
    path.write_bytes(data)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What can be done to a generation, and what that takes."""

    new: Path
    old: Path
    record: Generation
    signing: Signing
    other_key: Path

    @property
    def package(self) -> Path:
        return self.new / "x86_64/first-1-1.fc28.bp1.noarch.rpm"

    @property
    def repomd(self) -> Path:
        return self.new / "x86_64/repodata/repomd.xml"

    @property
    def signature(self) -> Path:
        return self.repomd.with_name("repomd.xml.asc")

    @property
    def primary(self) -> Path:
        return self.new / "x86_64" / repodata.metadata_files(self.new / "x86_64")[0]

    def keep_rows(self) -> Path:
        """A file of rows, as generations of earlier versions have."""
        text = "first\t1-1\n"
        path = self.new / f"builds/20260102T030405Z-{hashlib.sha256(text.encode()).hexdigest()}.tsv"
        path.parent.mkdir()
        path.write_text(text)
        self.rewrite_record(builds=hashlib.sha256(path.name.encode()).hexdigest())
        return path

    def rewrite_record(self, **changes: Any) -> None:
        """Whoever has the key could."""
        for path in (self.new / RECORD, self.new / f"{RECORD}.asc"):
            path.unlink()
        (self.new / RECORD).write_text(replace(self.record, **changes).to_json())
        sign.sign_file(self.new / RECORD, self.signing)

    def take(self, theirs: Path, path: Path) -> None:
        path.unlink()
        shutil.copy(theirs, path)

    def sign_by_another(self) -> None:
        self.signature.unlink()
        sign.sign_file(self.repomd, Signing(gnupghome=self.other_key))

    def take_all_metadata(self) -> None:
        for path in (self.repomd, self.signature):
            self.take(self.old / "x86_64/repodata" / path.name, path)

    def link(self) -> None:
        self.package.rename(self.new / "elsewhere")
        self.package.symlink_to("../elsewhere")


DAMAGES: dict[str, tuple[Callable[[Damage], object], str]] = {
    "missing package": (lambda it: it.package.unlink(), "first-1-1.fc28.bp1.noarch.rpm: is missing"),
    "missing signature": (lambda it: it.signature.unlink(), "repomd.xml: is not signed"),
    "missing record signature": (
        lambda it: (it.new / f"{RECORD}.asc").unlink(),
        "generation.json: is not signed",
    ),
    "extra package": (
        lambda it: shutil.copy(it.package, it.package.with_name("other-1-1.fc28.bp1.noarch.rpm")),
        "other-1-1.fc28.bp1.noarch.rpm: is an extra file",
    ),
    "extra file": (lambda it: (it.new / "notes.txt").write_text(""), "notes.txt: is an extra file"),
    "flipped lead": (lambda it: flip(it.package, 12), "noarch.rpm: is not the file that was published"),
    "flipped header": (lambda it: flip(it.package, 3000), "noarch.rpm: is not the file that was published"),
    "flipped payload": (lambda it: flip(it.package, -20), "noarch.rpm: is not the file that was published"),
    "flipped metadata": (lambda it: flip(it.primary, 60), "primary.xml.gz: is not what repomd.xml names"),
    "flipped record": (lambda it: flip(it.new / RECORD, -10), "generation.json: "),
    "flipped build": (
        lambda it: flip(it.keep_rows(), 5),
        ".tsv: is not the file that its name tells of",
    ),
    "missing build": (lambda it: it.keep_rows().unlink(), "builds: is not what this generation tells"),
    "extra build": (
        lambda it: it.keep_rows().with_name("0.tsv").write_text(""),
        "builds: is not what this generation tells",
    ),
    "record of other signers": (
        lambda it: it.rewrite_record(signers={it.record.fingerprint: 5}),
        "generation.json: tells of other signers than the packages have",
    ),
    "record of other metadata": (
        lambda it: it.rewrite_record(metadata=dict.fromkeys(it.record.metadata, "0" * 64)),
        "generation.json: is of other metadata than that which gave the generation its name",
    ),
    "metadata of another generation": (
        lambda it: it.take(it.old / "x86_64" / repodata.metadata_files(it.old / "x86_64")[0], it.primary),
        "primary.xml.gz: is not what repomd.xml names",
    ),
    "whole metadata of another generation": (
        lambda it: it.take_all_metadata(),
        "repomd.xml: is not that of this generation",
    ),
    "metadata by another key": (
        lambda it: it.sign_by_another(),
        "repomd.xml: its signature is not a good one by the key",
    ),
    "package by another key": (
        lambda it: it.take(it.other_key.parent / it.package.name, it.package),
        "noarch.rpm: signed by the key",
    ),
    "link in place of a file": (lambda it: it.link(), "noarch.rpm: is a symbolic link"),
}


@pytest.fixture(scope="module")
def other_key(tmp_path_factory: pytest.TempPathFactory, f28: Target, shelf: Shelf) -> Path:
    """Another key's home; beside it, the package signed by that key."""
    folder = tmp_path_factory.mktemp("other")
    signing = Signing(gnupghome=folder / "home")
    small_key(signing)
    signed = sign.sign(shelf("first").signed.built, signing=signing, target=f28, workspace=folder / "work")
    for rpm in signed.rpms:
        shutil.copy(rpm.path, folder)
    return signing.gnupghome


def test_rows_that_an_earlier_version_kept_are_as_they_were(
    publisher: Publisher, shelf: Shelf, other_key: Path
) -> None:
    new = publisher.publish(shelf("first"))
    place = publisher.folder.generations / new.generation
    record = publisher.folder.load(new.generation)
    Damage(
        new=place, old=place, record=record, signing=publisher.signing, other_key=other_key
    ).keep_rows()  # fmt: skip
    assert faults(publisher) == []
    later = publisher.publish(shelf("second"))
    assert not (publisher.folder.generations / later.generation / "builds").exists()
    assert faults(publisher) == []


@pytest.mark.parametrize("what", DAMAGES)
def test_every_damage_is_found(publisher: Publisher, shelf: Shelf, other_key: Path, what: str) -> None:
    old = publisher.publish(shelf("first"))
    new = publisher.publish(shelf("second"))
    assert faults(publisher) == []
    generations = publisher.folder.generations
    do, told = DAMAGES[what]
    do(
        Damage(
            new=generations / new.generation, old=generations / old.generation,
            record=publisher.folder.load(new.generation), signing=publisher.signing, other_key=other_key,
        )
    )  # fmt: skip
    found = faults(publisher)
    assert any(told in fault for fault in found), found
    assert all(new.generation in fault or "current" in fault or "index.html" in fault for fault in found)


def test_a_package_for_which_somebody_changed_everything_but_the_key_is_found(
    publisher: Publisher, shelf: Shelf, other_key: Path
) -> None:
    """A forged repository, signed throughout by another key that lies beside it, needs `--key` to be told."""
    forged = replace(publisher, signing=Signing(gnupghome=other_key))
    theirs = sign.sign(
        shelf("first").signed.built, signing=forged.signing, target=forged.target,
        workspace=publisher.repository.parent / "forged",
    )  # fmt: skip
    forged.publish(tiny.tested(theirs))
    assert faults(forged) == []
    key = shelf("first").signed.public_key
    found = [str(one) for one in verify(publisher.folder, publisher.target, keys=[key]).faults]
    assert any("noarch.rpm: signed by the key" in one for one in found)
    assert any("is not the key" in one for one in found)


@pytest.mark.usefixtures("_no_grace")
@pytest.mark.parametrize("action", ["rollback", "promote", "prune"])
def test_a_process_killed_at_any_point_leaves_a_whole_repository(
    publisher: Publisher, testing: Publisher, shelf: Shelf, tmp_path: Path, action: str
) -> None:
    ids = [publisher.publish(shelf("first", version)).generation for version in ("1", "2")]
    testing.publish(shelf("first", "1"))
    testing.publish(shelf("first", "2"))
    testing.publish(shelf("second"))
    step, seen = 0, []
    while True:
        copy = tmp_path / f"step-{step}"
        shutil.copytree(publisher.repository, copy, symlinks=True)
        here, there = replace(publisher, repository=copy), replace(testing, repository=copy)
        actions: dict[str, Callable[[], object]] = {
            "rollback": partial(back, here, ids[0]),
            "promote": partial(promoted, there, here),
            "prune": partial(pruned, here, 1),
        }
        status = run_until(actions[action], copy, step)
        seen.append(len(seen_by_reader(here, shelf("first"))))
        collected(here)
        collected(there)
        assert faults(here) == []
        assert last_switch(here.folder.history()) == here.folder.current_id()
        if status == 0:
            break
        assert status == signal.SIGKILL
        step += 1
        assert step < 300
    assert step > 4
    assert seen == sorted(seen, reverse=action == "rollback")
    assert len(set(seen)) == (1 if action == "prune" else 2)


def test_another_process_is_waited_for_or_told(
    publisher: Publisher, testing: Publisher, shelf: Shelf
) -> None:
    publisher.publish(shelf("first"))
    testing.publish(shelf("first"))
    with publisher.folder.locked(timeout=0):
        for action in (partial(back, publisher), partial(promoted, testing, publisher)):
            with pytest.raises(PublishError, match=rf"another process \(pid {os.getpid()}\) holds"):
                action()


def test_foreign_files_are_left_alone_and_told(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    foreign = [publisher.folder.path / "notes.txt", publisher.folder.generations / "lost+found"]
    foreign[0].write_text("")
    foreign[1].mkdir()
    publisher.publish(shelf("second"))
    back(publisher)
    pruned(publisher, 1)
    collected(publisher)
    assert all(path.exists() for path in foreign)
    assert faults(publisher) == [
        "generations/lost+found: is no generation; see `backport repo gc`",
        "notes.txt: is an extra file, which nothing names",
    ]


def test_a_folder_of_another_user_is_told(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        repository = place / "repository"
        shutil.copytree(publisher.repository, repository, symlinks=True)
        arguments = Arguments(
            tested=shelf("second"), target=publisher.target, repository=repository, signing=publisher.signing
        )
        (place / "arguments").write_bytes(pickle.dumps(arguments))
        before = snapshot(repository)
        # He may read everything, the checkout too, wherever it lies; he may write nothing of others.
        another = [
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search", "--",
        ]  # fmt: skip
        done = subprocess.run(
            [*another, sys.executable, "-m", "tests.e2e.publisher", place / "arguments"],
            cwd=CHECKOUT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == PublishError.exit_code, done.stderr
        assert "Permission denied" in done.stdout
        assert "run as the folder's owner" in done.stdout
        assert snapshot(repository) == before


def test_a_clock_that_went_back_stops_a_promotion(
    publisher: Publisher, testing: Publisher, shelf: Shelf
) -> None:
    published = testing.publish(shelf("first"))
    path = testing.folder.generations / published.generation / RECORD
    record = Generation.from_json(path.read_text())
    path.write_text(replace(record, time=datetime.now(UTC) + timedelta(days=1)).to_json())
    with pytest.raises(PublishError, match="clock"):
        promoted(testing, publisher)
    assert publisher.folder.current_id() is None


def test_an_expired_key_publishes_and_promotes_nothing(
    publisher: Publisher, testing: Publisher, shelf: Shelf, tmp_path: Path
) -> None:
    home = tmp_path / "expiring"
    shutil.copytree(publisher.signing.gnupghome, home, ignore=shutil.ignore_patterns("S.*"))
    expiring = Signing(gnupghome=home)
    publisher.publish(shelf("first"))
    testing.publish(shelf("first"))
    testing.publish(shelf("second"))
    before = snapshot(publisher.repository)
    environment = {"PATH": "/usr/bin", "GNUPGHOME": str(home)}
    fingerprint = shelf("first").signed.fingerprint
    for command in (
        ["gpg", "--batch", "--quick-set-expire", fingerprint, "seconds=1"],
        ["sleep", "2"],
        ["gpgconf", "--kill", "all"],
    ):
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=60)
    for action in (
        lambda: replace(publisher, signing=expiring).publish(shelf("second")),
        lambda: promoted(replace(testing, signing=expiring), publisher),
    ):
        with pytest.raises(PublishError, match=f"cannot be signed: the signing key {fingerprint} .*expired"):
            action()
        assert snapshot(publisher.repository) == before


def test_the_key_changes_while_clients_know_both(publisher: Publisher, shelf: Shelf, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(publisher.signing.gnupghome, home, ignore=shutil.ignore_patterns("S.*"))
    signing = Signing(gnupghome=home)
    here = replace(publisher, signing=signing)
    first = shelf("first")
    here.publish(first)
    name = sign.show_key(signing).user_id
    begun = rollover.begin(signing, name)
    assert (begun.signs, len(begun.others)) == (first.signed.fingerprint, 1)
    with pytest.raises(SignError, match="under way"):
        rollover.begin(signing, name)
    (announced,) = other_keys(signing)
    assert certifiers(signing, announced.fingerprint) == {announced.fingerprint, first.signed.fingerprint}
    assert {one.user_id for one in (announced, sign.show_key(signing))} == {name}
    # The nightly run has nothing to publish, and tells clients all the same.
    assert keep_up(here.place()) == (f"RPM-GPG-KEY-backport-{announced.fingerprint[-16:]}", "backport.repo")
    assert keep_up(here.place()) == ()
    base = "http://repo.example.org/f28/RPM-GPG-KEY-backport"
    both = f"gpgkey={base} {base}-{announced.fingerprint[-16:]}\n"
    assert both in here.folder.repo_file.read_text()
    next_key = here.folder.path / f"RPM-GPG-KEY-backport-{announced.fingerprint[-16:]}"
    assert next_key.read_text() == announced.public_key
    assert rollover.switch(signing).signs == announced.fingerprint
    anew = sign.sign(first.signed.built, signing=signing, target=here.target, workspace=tmp_path / "anew")
    here.publish(tiny.tested(anew))
    assert here.folder.public_key.read_text() == announced.public_key
    assert f"{base} {base}-{first.signed.fingerprint[-16:]}\n" in here.folder.repo_file.read_text()
    assert faults(here) == []
    back(here)
    assert faults(here) == []
    back(here, here.folder.ids()[-1])
    rollover.finish(signing)
    with pytest.raises(SignError, match="no change of the key"):
        rollover.switch(signing)
    other = sign.sign(
        shelf("second").signed.built, signing=signing, target=here.target, workspace=tmp_path / "second"
    )
    here.publish(tiny.tested(other))
    assert f"gpgkey={base}\n" in here.folder.repo_file.read_text()


def certifiers(signing: Signing, fingerprint: str) -> set[str]:
    """The keys that made a good signature over a key's name (gpg's doc/DETAILS, fields 2 and 13)."""
    listing = subprocess.run(
        ["gpg", "--batch", "--with-colons", "--check-sigs", fingerprint],
        env={"PATH": "/usr/bin", "GNUPGHOME": str(signing.gnupghome)}, capture_output=True, text=True,
        check=True, timeout=60,
    ).stdout  # fmt: skip
    fields = [line.split(":") for line in listing.splitlines() if line.startswith("sig:")]
    return {one[12] for one in fields if one[1] == "!"}


def test_the_command_line(publisher: Publisher, shelf: Shelf, tmp_path: Path) -> None:
    first = publisher.publish(shelf("first"))
    second = publisher.publish(shelf("second"))
    site = tmp_path / "backport.toml"
    site.write_text(
        f'base_url = "https://repo.example.org"\n[paths]\nrepository = "{publisher.repository}"\n'
        f'[signing]\ngnupghome = "{publisher.signing.gnupghome}"\n'
    )

    def command(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "backport", "repo", *arguments, "--target", "f28", "--config", str(site)],
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout if done.returncode == 0 else done.stderr + done.stdout

    def everything(*arguments: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "backport", "repo", *arguments, "--target", "f28", "--config", str(site)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return done.stdout, done.stderr

    code, listed = command("list")
    assert code == 0
    assert listed.index(second.generation) < listed.index(first.generation)
    assert command("diff", first.generation, "current")[1].startswith("+ source: second-1-1.fc28.bp1.src\n")
    url = "https://repo.example.org/f28"
    # The repository has moved since: the site file says where to, what lies there does not yet.
    code, told = command("add-to-host")
    assert (code, "repo gc" in told) == (PublishError.exit_code, True)
    for name in ("verify", "show"):
        told = "".join(everything(name))
        assert "backport.repo: is not what the site and the published generation make it" in told
    (check,) = check_clients(load_site(site))
    assert (check.verdict, check.advice) == (Verdict.FAIL, "backport repo gc --target f28")
    assert command("gc")[0] == 0
    assert check_clients(load_site(site))[0].verdict is Verdict.PASS
    assert "all as it was published" in command("verify")[1]
    assert command("add-to-host")[1].splitlines() == [
        f"curl --fail --location --output /etc/yum.repos.d/backport.repo {url}/backport.repo",
        f"rpm --import {url}/RPM-GPG-KEY-backport",
        "dnf update",
    ]
    assert "addrepo --from-repofile=https://" in command("add-to-host", "--with", "dnf5")[1]
    assert "would see" in command("rollback", "--dry-run")[1]
    assert publisher.folder.current_id() == second.generation
    assert command("withdraw", "second", "--dry-run")[1].splitlines() == [
        "would be withdrawn: second-1-1.fc28.bp1.src", "would be withdrawn: second-1-1.fc28.bp1.noarch",
    ]  # fmt: skip
    code, told = command("withdraw", "secnd")
    assert (code, "did you mean second" in told) == (PublishError.exit_code, True)
    assert command("rollback")[0] == 0
    assert publisher.folder.current_id() == first.generation
    assert command("rollback", "nothing")[0] == 2
    assert command("prune", "--keep", "0")[0] == PublishError.exit_code
    assert command("promote", "stable", "stable")[0] == PublishError.exit_code
    assert command("promote", "stable", "f28")[0] == 2
    code, told = command("promote", "stable", "testing")
    assert (code, "begin one by --create" in told) == (PublishError.exit_code, True)
    assert command("promote", "stable", "testing", "--create", "--dry-run")[0] == 0
    assert not (publisher.repository / "testing").exists()
    assert command("promote", "stable", "testing", "--create")[0] == 0
    assert command("list", "--channel", "testing")[1].count("\t+2\t") == 1
    assert command("gc")[0] == 0
    (publisher.folder.current / "extra").write_text("")
    code, told = command("verify")
    assert (code, "extra: is an extra file" in told) == (PublishError.exit_code, True)
