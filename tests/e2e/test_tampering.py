"""What can be done to a published folder behind the program's back: `repo verify` finds all of it, and a run
that has nothing to publish mends or refuses what would hurt those that update from it."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from backport import repodata
from backport.errors import PublishError, ToolError
from backport.repository import grace
from backport.repository.clients import SiteKeys, site_keys
from backport.repository.generations import RECORD, TargetFolder
from backport.repository.prune import anchor, collect_garbage, prune
from backport.repository.rollback import rollback
from backport.repository.upkeep import keep_up
from backport.repository.verification import verify
from backport.signing import sign
from backport.signing.detached import verify_file
from backport.site import Signing
from backport.target import Target, load_target
from tests.e2e.shelf import URL, Publisher, Shelf, notes_of, small_key

CHECKOUT = Path(__file__).parents[2]
SECONDS = 60.0
"""No reading of a folder takes longer, whatever lies in it."""


@pytest.fixture(scope="module")
def f28() -> Target:
    return load_target(CHECKOUT / "mock-configs", "f28")


@dataclass(frozen=True, kw_only=True)
class Site:
    """A published folder with three generations, of which readers see the last."""

    publisher: Publisher
    other: Path
    """The GNUPGHOME of somebody else."""
    keys: SiteKeys

    @property
    def folder(self) -> TargetFolder:
        return self.publisher.folder

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def ids(self) -> tuple[str, ...]:
        return self.folder.ids()

    @property
    def now(self) -> Path:
        return self.folder.generations / self.ids[-1]

    @property
    def old(self) -> Path:
        return self.folder.generations / self.ids[0]

    def first(self, pattern: str, place: Path | None = None) -> Path:
        return min((place or self.now).glob(pattern))

    def edit(self, path: Path, old: str, new: str, *, count: int = -1) -> None:
        text = path.read_text()
        assert old in text
        self.put(path, text.replace(old, new, count))

    def put(self, path: Path, content: str | bytes) -> None:
        """In place of what is there; files that generations share are one file."""
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def foreign_key(self) -> str:
        return sign.show_key(Signing(gnupghome=self.other)).public_key

    def sign_by_another(self, path: Path) -> None:
        path.with_name(f"{path.name}.asc").unlink()
        sign.sign_file(path, Signing(gnupghome=self.other))

    def faults(self, *keys: Path) -> list[str]:
        began = time.monotonic()
        url = URL.rstrip("/")
        found = verify(self.folder, self.publisher.target, keys=keys, site=self.keys, base_url=url).faults
        assert time.monotonic() - began < SECONDS
        return [str(one) for one in found]

    def keep_up(self) -> tuple[str, ...]:
        return keep_up(self.publisher.place(lock_timeout=0))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, signing: Signing, shelf: Shelf, f28: Target) -> Site:
    place = tmp_path_factory.mktemp("tampering")
    publisher = Publisher(repository=place / "repository", signing=signing, target=f28, notes=[])
    for name in ("first", "second", "third"):
        publisher.publish(shelf(name), notes=notes_of(name, shelf(name)), inputs={name: name})
    other = Signing(gnupghome=place / "other")
    small_key(other)
    return Site(publisher=publisher, other=other.gnupghome, keys=site_keys(signing))


@pytest.fixture
def site(published: Site, tmp_path: Path) -> Site:
    copy = tmp_path / "repository"
    # With the hard links that its generations share among themselves, and none to the original.
    subprocess.run(["cp", "-a", published.publisher.repository, copy], check=True, timeout=60)
    return replace(published, publisher=replace(published.publisher, repository=copy, notes=[]))


def as_link(path: Path) -> None:
    aside = path.with_name(f".aside-{path.name}")
    path.rename(aside)
    path.symlink_to(aside.name)


def as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o644)


def as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_sparse(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.touch()
    os.truncate(path, size + 2**42)


def moved_out(path: Path, to: Path) -> None:
    path.rename(to)
    path.symlink_to(to)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def lead(site: Site, to: str) -> None:
    site.folder.current.unlink()
    site.folder.current.symlink_to(to)


def without_link(site: Site) -> Path:
    site.folder.current.unlink()
    return site.folder.current


def cut_history(site: Site, lines: int) -> None:
    kept = site.folder.history_file.read_bytes().splitlines(keepends=True)[:lines]
    site.folder.history_file.write_bytes(b"".join(kept))


def edit_history(site: Site, **changes: object) -> None:
    *before, last = site.folder.history_file.read_text().splitlines(keepends=True)
    entry = json.dumps({**json.loads(last), **changes}, sort_keys=True)
    site.folder.history_file.write_text("".join((*before, entry, "\n")))


def strip_history(site: Site) -> None:
    entries = [json.loads(line) for line in site.folder.history_file.read_text().splitlines()]
    for entry in entries:
        for name in ("signature", "key", "chain", "place"):
            entry.pop(name)
    site.folder.history_file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))


def sign_history_by_another(site: Site) -> None:
    site.folder.history_file.unlink()
    site.folder.anchor(Signing(gnupghome=site.other))


def older_evidence(site: Site) -> None:
    """A set that was signed, and is of another generation."""
    for end in ("", ".asc"):
        theirs = site.first(f"provenance/*.provenance.json{end}", site.old)
        site.put(site.now / f"provenance.json{end}", theirs.read_bytes())


def older_set(site: Site) -> None:
    """What tells of the newest package goes, with its signatures; what is left was signed, all of it."""
    for path in sorted((site.now / "provenance").glob("*"))[-6:]:
        path.unlink()
    for name, end in (("provenance", "provenance"), ("test-results", "tests"), ("sbom.cdx", "cdx")):
        theirs = max((site.now / "provenance").glob(f"*.{end}.json"))
        site.put(site.now / f"{name}.json", theirs.read_bytes())
        site.put(site.now / f"{name}.json.asc", theirs.with_name(f"{theirs.name}.asc").read_bytes())


def older_repomd(site: Site) -> None:
    for end in ("", ".asc"):
        name = f"x86_64/repodata/repomd.xml{end}"
        site.put(site.now / name, (site.old / name).read_bytes())


def older_generation(site: Site) -> None:
    for end in ("", ".asc"):
        site.put(site.now / f"{RECORD}{end}", (site.old / f"{RECORD}{end}").read_bytes())


def take_another_target(site: Site) -> None:
    record = site.now / RECORD
    site.put(record, json.dumps({**json.loads(record.read_text()), "target": "f27"}, indent=2) + "\n")
    (site.now / f"{RECORD}.asc").unlink()
    sign.sign_file(record, site.publisher.signing)


def own(site: Site, kind: str) -> Path:
    """A file of metadata that is the generation's own, not one on loan."""
    place = site.now / "x86_64"
    return place / next(one for one in repodata.metadata_files(place) if kind in one)


def swap_updateinfo(site: Site) -> None:
    path = own(site, "updateinfo")
    text = gzip.decompress(path.read_bytes()).replace(b"third", b"thira")
    site.put(path, gzip.compress(text))


def revoked_copy(site: Site, place: Path) -> str:
    """The site's own key, revoked."""
    home = place / "revoked"
    shutil.copytree(site.publisher.signing.gnupghome, home, ignore=shutil.ignore_patterns("S.*"))
    fingerprint = sign.show_key(Signing(gnupghome=home)).fingerprint
    text = (home / f"openpgp-revocs.d/{fingerprint}.rev").read_text().replace(":---", "---")
    environment = {"PATH": "/usr/bin", "GNUPGHOME": str(home)}
    for command in (["gpg", "--batch", "--import"], ["gpgconf", "--kill", "all"]):
        subprocess.run(
            command, input=text, env=environment, check=True, capture_output=True, timeout=60, text=True
        )
    exported = ["gpg", "--batch", "--armor", "--export", fingerprint]
    done = subprocess.run(exported, env=environment, check=True, capture_output=True, timeout=60, text=True)
    return done.stdout


MENDED = "mended"
REFUSED = "refused"
NOTED = "noted"
"""What a run that has nothing to publish does about it."""
REPO, KEY, PAGE = "backport.repo", "RPM-GPG-KEY-backport", "index.html"
PACKAGE = "x86_64/third-1-1.fc28.bp1.noarch.rpm"
OLD_PACKAGE = "x86_64/first-1-1.fc28.bp1.noarch.rpm"
REPOMD = "x86_64/repodata/repomd.xml"

TAMPERINGS: dict[str, tuple[Callable[[Site], object], str, str]] = {
    # What clients get beside the generations
    "gpgcheck off": (lambda it: it.edit(it.path / REPO, "\ngpgcheck=1", "\ngpgcheck=0"), REPO, MENDED),
    "repo_gpgcheck off": (
        lambda it: it.edit(it.path / REPO, "repo_gpgcheck=1", "repo_gpgcheck=0"), REPO, MENDED,
    ),
    "another host": (lambda it: it.edit(it.path / REPO, "repo.example", "evil.example"), REPO, MENDED),
    "another host for one": (
        lambda it: it.edit(it.path / REPO, "repo.example.org", "evil.example.org", count=1), REPO, MENDED,
    ),
    "another gpgkey": (lambda it: it.edit(it.path / REPO, f"/{KEY}", f"/{KEY}-2"), REPO, MENDED),
    "one more gpgkey": (
        lambda it: it.edit(it.path / REPO, f"/{KEY}\n", f"/{KEY} http://evil/key\n"), REPO, MENDED,
    ),
    "a mirror list": (
        lambda it: it.edit(it.path / REPO, "enabled=1", "enabled=1\nmirrorlist=http://evil/"), REPO, MENDED,
    ),
    "a section more": (
        lambda it: it.put(it.path / REPO, (it.path / REPO).read_text() + "[x]\nbaseurl=http://evil/\n"),
        REPO, MENDED,
    ),
    "no .repo file": (lambda it: (it.path / REPO).unlink(), REPO, MENDED),
    ".repo file as link": (lambda it: moved_out(it.path / REPO, it.path.parent / "x"), REPO, MENDED),
    ".repo file as FIFO": (lambda it: as_fifo(it.path / REPO), REPO, MENDED),
    ".repo file as device": (lambda it: as_device(it.path / REPO), REPO, MENDED),
    ".repo file without an end": (lambda it: as_sparse(it.path / REPO), REPO, MENDED),
    ".repo file that anybody may write": (lambda it: (it.path / REPO).chmod(0o666), REPO, MENDED),
    ".repo file that nobody may read": (lambda it: (it.path / REPO).chmod(0o600), REPO, MENDED),
    "a foreign key": (lambda it: it.put(it.path / KEY, it.foreign_key()), KEY, MENDED),
    "a foreign key appended": (
        lambda it: it.put(it.path / KEY, (it.path / KEY).read_text() + it.foreign_key()), KEY, MENDED,
    ),
    "a foreign key before": (
        lambda it: it.put(it.path / KEY, it.foreign_key() + (it.path / KEY).read_text()), KEY, MENDED,
    ),
    "a foreign key beside": (lambda it: it.put(it.path / f"{KEY}-1", it.foreign_key()), f"{KEY}-1", NOTED),
    "no key": (lambda it: (it.path / KEY).unlink(), KEY, MENDED),
    "an empty key": (lambda it: it.put(it.path / KEY, ""), KEY, MENDED),
    "the key as FIFO": (lambda it: as_fifo(it.path / KEY), KEY, MENDED),
    "the key as link": (lambda it: moved_out(it.path / KEY, it.path.parent / "x"), KEY, MENDED),
    "the key as device": (lambda it: as_device(it.path / KEY), KEY, MENDED),
    "the page edited": (lambda it: it.edit(it.path / PAGE, "third", "thirb"), PAGE, MENDED),
    "the page with a script": (
        lambda it: it.edit(it.path / PAGE, "</body>", "<script src=//evil></script></body>"), PAGE, MENDED,
    ),
    "no page": (lambda it: (it.path / PAGE).unlink(), PAGE, MENDED),
    "the page as FIFO": (lambda it: as_fifo(it.path / PAGE), PAGE, MENDED),
    "the page as link": (lambda it: moved_out(it.path / PAGE, it.path.parent / "x"), PAGE, MENDED),
    # The link
    "no link": (lambda it: it.folder.current.unlink(), "current", REFUSED),
    "the link to an older generation": (lambda it: lead(it, f"generations/{it.ids[0]}"), "current", NOTED),
    "the link outside": (lambda it: lead(it, "/etc"), "current", REFUSED),
    "the link outside by a generation's name": (
        lambda it: lead(it, f"../other/generations/{it.ids[-1]}"), "current", REFUSED,
    ),
    "the link to nothing": (
        lambda it: lead(it, "generations/20200101T000000Z-0123456789ab"), "current", REFUSED,
    ),
    "a folder in place of the link": (
        lambda it: shutil.copytree(it.now, without_link(it)),
        "current", REFUSED,
    ),
    # The record
    "no record": (lambda it: it.folder.history_file.unlink(), "history.jsonl", REFUSED),
    "an empty record": (lambda it: it.folder.history_file.write_text(""), "history.jsonl", REFUSED),
    "a record cut by one line": (lambda it: cut_history(it, -1), "current", NOTED),
    "a record cut by two lines": (lambda it: cut_history(it, -2), "", REFUSED),
    "a record cut to its first half": (lambda it: cut_history(it, 4), "current", REFUSED),
    "a record without its first line": (
        lambda it: it.put(it.folder.history_file, it.folder.history_file.read_text().split("\n", 1)[1]),
        "history.jsonl", REFUSED,
    ),
    "a line edited": (lambda it: edit_history(it, generation=it.ids[0]), "history.jsonl", REFUSED),
    "holds edited": (lambda it: edit_history(it, held=["other"]), "history.jsonl", REFUSED),
    "a record without signatures": (strip_history, "history.jsonl", REFUSED),
    "a record by another key": (sign_history_by_another, "history.jsonl", REFUSED),
    "the record as FIFO": (lambda it: as_fifo(it.folder.history_file), "history.jsonl", REFUSED),
    "the record as device": (lambda it: as_device(it.folder.history_file), "history.jsonl", REFUSED),
    "the record without an end": (lambda it: as_sparse(it.folder.history_file), "history.jsonl", REFUSED),
    "the record of another target": (
        lambda it: it.edit(it.folder.history_file, "stable/f28", "stable/f27"), "history.jsonl", REFUSED,
    ),
    # Generations
    "an older generation gone": (lambda it: shutil.rmtree(it.old), "generations/", NOTED),
    "an older generation renamed": (
        lambda it: it.old.rename(it.old.with_name("20200101T000000Z-0123456789ab")), "generations/", NOTED,
    ),
    "a generation copied to another name": (
        lambda it: shutil.copytree(it.now, it.now.with_name(f"{it.now.name}.2")), "generations/", NOTED,
    ),
    "an older package damaged": (lambda it: flip(it.old / OLD_PACKAGE), OLD_PACKAGE, NOTED),
    "older metadata gone": (lambda it: (it.old / REPOMD).unlink(), REPOMD, NOTED),
    "an older record edited": (
        lambda it: it.edit(it.old / RECORD, '"added": 2', '"added": 3'), RECORD, NOTED,
    ),
    "a generation as link": (
        lambda it: moved_out(it.old, it.path.parent / "elsewhere"), "generations/", NOTED,
    ),
    "the current generation as link": (
        lambda it: moved_out(it.now, it.path.parent / "elsewhere"), "generations/", REFUSED,
    ),
    "all generations as link": (
        lambda it: moved_out(it.folder.generations, it.path.parent / "elsewhere"), "", REFUSED,
    ),
    "a repository as link": (lambda it: as_link(it.now / "x86_64"), "/x86_64", REFUSED),
    "its metadata as link": (lambda it: as_link(it.now / "x86_64/repodata"), "/repodata", REFUSED),
    "evidence as link": (lambda it: as_link(it.now / "provenance"), "/provenance", REFUSED),
    "record gone": (lambda it: (it.now / RECORD).unlink(), RECORD, REFUSED),
    "record as FIFO": (lambda it: as_fifo(it.now / RECORD), RECORD, REFUSED),
    "record of an older generation": (older_generation, RECORD, REFUSED),
    "record of another target": (take_another_target, RECORD, REFUSED),
    "record by another key": (lambda it: it.sign_by_another(it.now / RECORD), RECORD, REFUSED),
    "record without signature": (lambda it: (it.now / f"{RECORD}.asc").unlink(), RECORD, REFUSED),
    "a record of deep brackets": (lambda it: it.put(it.now / RECORD, "[" * 100_000), RECORD, REFUSED),
    # Packages and metadata
    "a package damaged": (lambda it: flip(it.now / PACKAGE), PACKAGE, REFUSED),
    "a package gone": (lambda it: (it.now / PACKAGE).unlink(), PACKAGE, REFUSED),
    "a package as link": (lambda it: as_link(it.now / PACKAGE), PACKAGE, REFUSED),
    "a package as FIFO": (lambda it: as_fifo(it.now / PACKAGE), PACKAGE, REFUSED),
    "a package without an end": (lambda it: as_sparse(it.now / PACKAGE), PACKAGE, REFUSED),
    "a package that anybody may write": (lambda it: (it.now / PACKAGE).chmod(0o666), PACKAGE, REFUSED),
    "a package that nobody may read": (lambda it: (it.now / PACKAGE).chmod(0o600), PACKAGE, REFUSED),
    "a set-id package": (lambda it: (it.now / PACKAGE).chmod(0o4755), PACKAGE, REFUSED),
    "a package of another user": (lambda it: os.chown(it.now / PACKAGE, 12345, 0), PACKAGE, REFUSED),
    "a folder that nobody may enter": (lambda it: (it.now / "x86_64").chmod(0o700), "x86_64", REFUSED),
    "a folder that anybody may write": (lambda it: (it.now / "x86_64").chmod(0o777), "x86_64", REFUSED),
    "metadata as FIFO": (lambda it: as_fifo(it.now / REPOMD), REPOMD, REFUSED),
    "metadata as device": (lambda it: as_device(it.now / REPOMD), REPOMD, REFUSED),
    "metadata of an older generation": (older_repomd, REPOMD, REFUSED),
    "metadata by another key": (lambda it: it.sign_by_another(it.now / REPOMD), REPOMD, REFUSED),
    "its signature as FIFO": (lambda it: as_fifo(it.now / f"{REPOMD}.asc"), REPOMD, REFUSED),
    "primary gone": (lambda it: own(it, "primary").unlink(), "primary", REFUSED),
    "primary as FIFO": (lambda it: as_fifo(own(it, "primary")), "primary", REFUSED),
    "updateinfo edited": (swap_updateinfo, "updateinfo", REFUSED),
    # Evidence, what the page is made of, and what has no place
    "evidence gone": (lambda it: shutil.rmtree(it.now / "provenance"), "provenance", REFUSED),
    "newest evidence gone": (lambda it: (it.now / "provenance.json").unlink(), "provenance", REFUSED),
    "evidence of an older generation": (older_evidence, "provenance", REFUSED),
    "the newest set of evidence gone": (older_set, "provenance", REFUSED),
    "evidence edited": (lambda it: flip(it.first("provenance/*.tests.json")), "tests.json", REFUSED),
    "evidence as FIFO": (lambda it: as_fifo(it.first("provenance/*.cdx.json")), "cdx.json", REFUSED),
    "an extra file": (lambda it: (it.path / "x.html").write_text(""), "x.html", NOTED),
    "a hidden file": (lambda it: (it.path / ".htaccess").write_text(""), ".htaccess", NOTED),
    "a hidden folder": (lambda it: (it.path / ".git").mkdir(), ".git", NOTED),
    "an extra package": (
        lambda it: shutil.copy(it.now / PACKAGE, it.now / "x86_64/evil-1-1.noarch.rpm"), "evil", NOTED,
    ),
    "a hidden file in a generation": (lambda it: (it.now / ".htaccess").write_text(""), ".htaccess", NOTED),
    "an empty folder in a generation": (lambda it: (it.now / "X86_64").mkdir(), "X86_64", REFUSED),
    "an FIFO in a generation": (lambda it: os.mkfifo(it.now / "x86_64/x"), "x86_64/x", REFUSED),
    "an extra file among generations": (
        lambda it: (it.folder.generations / ".htaccess").write_text(""), ".htaccess", NOTED,
    ),
    "the lock as FIFO": (lambda it: as_fifo(it.path / ".lock"), ".lock", REFUSED),
    "the lock as link": (lambda it: moved_out(it.path / ".lock", it.path.parent / "x"), ".lock", REFUSED),
}  # fmt: skip


def test_what_nobody_touched_is_as_it_was_published(site: Site) -> None:
    assert site.faults() == []
    assert site.faults(site.folder.public_key) == []
    assert site.keep_up() == ()
    assert site.publisher.notes == []
    alone = verify(site.folder, site.publisher.target)
    assert alone.faults == ()
    assert "which proves no more" in alone.trusted


@pytest.mark.parametrize("what", TAMPERINGS)
def test_whatever_is_done_to_the_folder_is_found(site: Site, what: str, tmp_path: Path) -> None:
    do, place, answer = TAMPERINGS[what]
    own = tmp_path / "own.asc"
    own.write_text(sign.show_key(site.publisher.signing).public_key)
    do(site)
    try:
        found = site.faults(own)
    except PublishError as problem:
        found = [problem.message]
    assert any(place in fault.partition(": ")[0] for fault in found), found
    before = {path: path.lstat().st_ino for path in site.folder.generations.glob("*")}
    began = time.monotonic()
    if answer == REFUSED:
        with pytest.raises(PublishError) as told:
            site.keep_up()
        assert told.value.hint
    elif answer == MENDED:
        assert site.keep_up() or place == PAGE
        assert site.faults(own) == []
    else:
        site.keep_up()
    assert time.monotonic() - began < SECONDS
    assert {path: path.lstat().st_ino for path in site.folder.generations.glob("*")} == before


def test_a_revoked_key_signs_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "key.asc").write_text(revoked_copy(site, tmp_path))
    fingerprint = sign.show_key(site.publisher.signing).fingerprint
    with pytest.raises(ToolError, match="its signature is not a good one"):
        verify_file(site.now / RECORD, public_key=tmp_path / "key.asc", fingerprint=fingerprint)


RECORDS: dict[str, Callable[[Site], object]] = {
    "missing": lambda it: it.folder.history_file.unlink(),
    "empty": lambda it: it.folder.history_file.write_text(""),
    "older": lambda it: cut_history(it, 3),
    "oldest": lambda it: cut_history(it, 1),
    "damaged": lambda it: it.folder.history_file.write_text("rubbish\n"),
    "of another target": lambda it: it.edit(it.folder.history_file, "stable/f28", "stable/f27"),
    "unsigned": strip_history,
    "no link": lambda it: it.folder.current.unlink(),
    "no link, no record": lambda it: without_link(it).with_name("history.jsonl").unlink(),
    "a generation's record missing": lambda it: (it.old / RECORD).unlink(),
    "a generation's record damaged": lambda it: it.put(it.old / RECORD, "{}"),
    "the current record missing": lambda it: (it.now / RECORD).unlink(),
}


@pytest.mark.parametrize("what", RECORDS)
def test_nothing_is_removed_on_the_word_of_a_record_that_is_not_whole(site: Site, what: str) -> None:
    """Whatever somebody asks for, unless he asks for a removal and the record bears it out."""
    ids = site.ids
    RECORDS[what](site)
    place = site.publisher.place()
    collected, back = partial(collect_garbage, place), partial(rollback, place)
    actions: tuple[Callable[[], object], ...] = (
        collected, partial(back, ids[0]), partial(back, None), collected, partial(back, ids[2]),
        site.keep_up, collected,
    )  # fmt: skip
    for action in actions:
        try:
            action()
        except PublishError as problem:
            assert problem.hint or "already" in problem.message, problem.message  # noqa: PT017
        assert site.ids == ids


def test_what_the_record_does_not_know_is_not_pruned_until_somebody_accepts_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grace, "GRACE", timedelta(0))
    ids = site.ids
    cut_history(site, 2)
    pruned = partial(prune, site.publisher.place(), 1)
    assert site.folder.unknown() == ids[1:]
    assert pruned() == (ids[0],)
    assert site.folder.unknown() == (ids[1],)
    assert pruned() == ()
    assert anchor(site.publisher.place()) == ids[1:]
    assert pruned() == (ids[1],)
    assert site.faults() == [
        f"current: no client is recorded to have installed from {ids[2]}; build once more"
    ]
