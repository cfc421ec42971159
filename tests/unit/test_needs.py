"""What build roots take of a channel, and what nothing provides, by libsolv over a few packages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backport import needs
from backport.artifacts import Nevra
from backport.gates.repositories import Metadata, TargetRepositories
from backport.needs import Needs, build_requires_in, edited_needs, survey
from backport.progress import Silent
from backport.recipe import Package as RecipePackage
from backport.recipe import SpecEdit
from backport.repository.channel import Channel, ChannelPackage
from backport.runs.job import Job, load_job
from backport.sources.offers import Binary, Offer
from tests.unit.metadata_text import Package, write

STOCK = (
    Package(name="bash", requires=["libc"]),
    Package(name="libc", provides=["libc"]),
    Package(name="gcc", requires=["libc"], files=["/usr/bin/cc", "/usr/share/gcc/notes"]),
    Package(name="zlib-devel", provides=["pkgconfig(zlib)"]),
)
ORIGIN = "1.fc29"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    site = tmp_path / "backport.toml"
    site.write_text('[paths]\ncache = "cache"\nrepository = "repository"\n')
    job = load_job("openssl", "f28", site)
    return replace(job, target=job.target.model_copy(update={"buildroot": ("bash",)}))


def ask(
    job: Job,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: Sequence[str],
    *,
    published: Sequence[tuple[Package, str]] = (),
    binaries: Sequence[Binary] = (),
    whole: bool = True,
) -> Needs:
    """The needs of the last of the recipe's packages, of which the first gives ``binaries``."""
    folder.mkdir()
    stock = write(folder / "stock", STOCK)
    here = write(folder / "published", [one for one, _ in published])
    monkeypatch.setattr(TargetRepositories, "metadata", lambda _self: {"fedora": stock})
    monkeypatch.setattr(needs, "metadata_of_folder", lambda _folder: here)
    packages = tuple(
        ChannelPackage(
            nevra=Nevra(name=one.name, epoch=1, version="1", release=one.release, arch="x86_64"),
            source=source, path=folder / one.name, sha256=one.pkgid,
        )
        for one, source in published
    )  # fmt: skip
    channel = Channel(generation=folder.name, folder=folder, debug=folder, packages=packages, keys=())
    first, *_, last = job.recipe.packages
    builds = {first: build(first, (), binaries), last: build(last, wanted, ())}
    return survey(job, builds, channel, whole=whole, progress=Silent())[last]


def build(name: str, wanted: Sequence[str], binaries: Sequence[Binary]) -> Offer:
    nevra = Nevra(name=name, version="1", release=ORIGIN, arch="src")
    return Offer(
        nevra=nevra, identity="", size=1, copies=(), told_by="hub", origin={}, needs=tuple(wanted),
        binaries=tuple(binaries),
    )  # fmt: skip


def taken(found: Needs) -> list[str]:
    return [one.nevra.name for one in found.published]


@pytest.mark.parametrize(
    ("wanted", "missing"),
    [
        (["gcc", "/usr/bin/cc", "pkgconfig(zlib)", "zlib-devel >= 1:1"], []),
        (["/usr/share/gcc/notes"], []),
        (["(zlib-devel or nothing)", "(nothing if nobody)"], []),
        (["nothing", "bash", "/usr/bin/none"], ["nothing", "/usr/bin/none"]),
        (["zlib-devel >= 1:2"], ["zlib-devel >= 1:2"]),
    ],
)
def test_what_nothing_provides_is_named(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: list[str], missing: list[str]
) -> None:
    found = ask(job, tmp_path / "a", monkeypatch, wanted)
    assert sorted(found.missing) == sorted(missing)
    assert not found.conflicts


def test_a_rich_dependency_that_cannot_be_met_is_told(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ask(job, tmp_path / "a", monkeypatch, ["(nothing if bash)"])
    assert not found.missing
    assert "nothing" in found.conflicts[0]


def test_a_root_takes_of_the_channel_what_it_needs_and_nothing_else(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = [
        (Package(name="libnew-devel", requires=["libnew"]), "libnew"),
        (Package(name="libnew"), "libnew"),
        (Package(name="zlib-devel", release="1.fc28.bp1"), "zlib"),
        (Package(name="unrelated", requires=["libc"]), "unrelated"),
        (Package(name="broken", requires=["nowhere"]), "broken"),
    ]
    found = ask(job, tmp_path / "a", monkeypatch, ["libnew-devel", "zlib-devel"], published=published)
    assert sorted(taken(found)) == ["libnew", "libnew-devel", "zlib-devel"]
    found = ask(job, tmp_path / "b", monkeypatch, ["gcc"], published=published)
    assert taken(found) == []


def test_one_need_that_cannot_be_met_hides_no_other(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = [(Package(name="libnew-devel", requires=["nowhere"]), "libnew"), (Package(name="b"), "b")]
    found = ask(job, tmp_path / "a", monkeypatch, ["libnew-devel", "b"], published=published)
    assert taken(found) == ["b"]
    assert "nowhere" in found.conflicts[0]


def test_what_the_recipe_itself_has_published_is_no_part_of_its_roots(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = next(iter(job.recipe.packages))
    published = [(Package(name="zlib-devel", release="1.fc28.bp1"), own)]
    found = ask(job, tmp_path / "a", monkeypatch, ["zlib-devel"], published=published)
    assert taken(found) == []
    published = [(Package(name="libown"), own), (Package(name="other"), "other")]
    assert ask(job, tmp_path / "b", monkeypatch, ["libown"], published=published).missing == ("libown",)


def test_what_the_run_builds_before_is_there_with_its_own_release(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nevra = Nevra(name="libown-devel", version="1", release=ORIGIN, arch="x86_64")
    binary = Binary(nevra=nevra, requires=("libc.so.6(GLIBC_2.28)",), provides=(f"libown = 1-{ORIGIN}",))
    met = ["libown-devel >= 1", "libown >= 1-1.fc28"]
    assert not ask(job, tmp_path / "a", monkeypatch, met, binaries=[binary]).missing
    # Which files it will have is not known before.
    assert not ask(job, tmp_path / "c", monkeypatch, ["/usr/bin/own"], binaries=[binary]).missing
    too_new = [f"libown-devel >= 1-{ORIGIN}"]
    assert ask(job, tmp_path / "b", monkeypatch, too_new, binaries=[binary]).missing == tuple(too_new)


def test_the_answer_is_kept_until_something_changes(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: list[object] = []
    solve_all = needs._Market.solve_all

    def counted(self: needs._Market, *questions: Any) -> Any:
        solved.append(questions)
        return solve_all(self, *questions)

    monkeypatch.setattr(needs._Market, "solve_all", counted)
    published = [(Package(name="b"), "b")]

    def again(name: str, wanted: str) -> Needs:
        return ask(job, tmp_path / name, monkeypatch, [wanted], published=published, whole=False)

    assert taken(again("one", "b")) == ["b"]
    (kept,) = (job.site.paths.cache / "needs").iterdir()
    assert json.loads(kept.read_text())["answers"]
    (tmp_path / "one").rename(tmp_path / "first")
    assert taken(again("one", "b")) == ["b"]
    assert len(solved) == 1
    assert taken(again("two", "gcc")) == []
    kept.write_text("[]")
    assert taken(again("three", "b")) == ["b"]
    assert len(solved) == 3


def test_without_other_recipes_nothing_is_looked_at(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: TargetRepositories) -> dict[str, Metadata]:
        raise AssertionError("the target's metadata was asked for")

    monkeypatch.setattr(TargetRepositories, "metadata", refuse)
    assert survey(job, {"a": build("a", (), ())}, None, whole=False, progress=Silent()) == {"a": Needs()}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("BuildRequires: a", ["a"]),
        ("  BuildRequires:\ta, b >=2 c\nRequires: d", ["a", "b >= 2", "c"]),
        ("BuildRequires: perl(A::B) >= 1, (x or (y if z))", ["perl(A::B) >= 1", "(x or (y if z))"]),
        ("# BuildRequires: a", []),
    ],
)
def test_build_requires_are_read_from_a_part_of_a_spec(text: str, found: list[str]) -> None:
    assert list(build_requires_in(text)) == found


def test_edits_take_and_add_build_requires() -> None:
    edits = (
        SpecEdit(action="replace", anchor="BuildRequires: a", text="BuildRequires: b >= 2, %{c}"),
        SpecEdit(action="insert_after", anchor="BuildRequires: d", text="BuildRequires: e"),
    )
    package = RecipePackage(nvr="x-1-1", edits=edits)
    assert edited_needs(["a", "d"], package) == ("b >= 2", "d", "e")
