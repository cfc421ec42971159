"""Two recipes of one channel: one builds with what the other has published, and neither breaks the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command import Bench, Result, bench
from tests.lab.serve import Served

pytestmark = pytest.mark.usefixtures("services")

LIBRARY = """\
summary = "A greeting's library"
targets = ["f28"]
[source]
tag = "f29-updates"
keys = ["fedora-29"]
[packages.libgreet]
nvr = "libgreet-1.0-1.fc29"
[self_test]
update = ["libgreet-devel"]
[[self_test.commands]]
id = "the-header-is-there"
run = ["/usr/bin/test", "-e", "/usr/include/greet.h"]
"""

OTHER_SONAME = (
    '{action = "insert_after", anchor = "%patch -P 0 -p1", text = "sed -i s/[.]so[.]1/.so.9/g Makefile"}',
    '{action = "replace", anchor = "%{_libdir}/libgreet.so.1", text = "%{_libdir}/libgreet.so.9"}',
)


def run(place: Bench, recipe: str, *words: str) -> tuple[Result, dict[str, object]]:
    result = place.run("build", recipe, "--target", "f28", "--json", *words)
    return result, json.loads(result.output) if result.output else {}


@pytest.fixture(scope="module")
def place(services: Served, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A site whose recipe hello has no library of its own: another recipe, library, brings it."""
    place = bench(services, tmp_path_factory.mktemp("two"))
    place.change('[packages.libgreet]\nnvr = "libgreet-1.0-1.fc29"\n', "")
    (place.folder / "specs" / "library.toml").write_text(LIBRARY)
    assert place.run("keys", "init").code == 0
    return place


def test_a_recipe_builds_with_what_another_has_published(place: Bench) -> None:
    planned = place.run("plan", "hello", "--target", "f28")
    assert planned.code == 5
    assert "libgreet-devel" in planned.output
    result, report = run(place, "library")
    assert report["outcome"] == "published", result.errors
    result, report = run(place, "hello")
    assert report["outcome"] == "published", result.errors
    inputs = report["inputs"]
    assert isinstance(inputs, dict)
    assert sorted(name for name in inputs if " takes " in name) == [
        "hello takes libgreet-devel.x86_64", "hello takes libgreet.x86_64",
    ]  # fmt: skip
    assert inputs["hello takes libgreet.x86_64"].startswith("1.0-1.fc28.bp1 ")


def test_what_would_stop_a_build_is_planned_without_a_key_or_a_package(
    services: Served, tmp_path: Path
) -> None:
    place = bench(services, tmp_path)
    nvr = 'nvr = "libgreet-1.0-1.fc29"'
    edit = 'action = "insert_after", anchor = "License: MIT", text = "BuildRequires: libno-devel >= 2"'
    place.change(nvr, f"{nvr}\nedits = [{{{edit}}}]")
    planned = place.run("plan", "hello", "--target", "f28", "--json")
    plan = json.loads(planned.output)
    assert (planned.code, plan["exit_code"]) == (5, 5)
    told = [(one["kind"], one["message"].partition(":")[0]) for one in plan["findings"]]
    assert told == [
        ("not examined", "signing"), ("not examined", "libgreet"), ("not examined", "hello"),
        ("problem", "libgreet"),
    ]  # fmt: skip
    assert "libno-devel >= 2" in plan["findings"][-1]["message"]
    assert not (tmp_path / "cache/sources/sha256").exists()
    # With the source package there, its spec is looked at: the anchor is not in it.
    assert place.run("fetch", "hello").code == 0
    planned = place.run("plan", "hello", "--target", "f28")
    assert planned.code == 4
    assert "does not stand in the spec" in planned.output
    place.change(f"\nedits = [{{{edit}}}]", "")
    planned = place.run("plan", "hello", "--target", "f28")
    assert (planned.code, planned.output.count("not examined")) == (0, 1), planned.output
    patch = place.folder / "patches/hello/postmaster.patch"
    place.change('puts(greet(argc > 1 ? argv[1] : "world"));', "puts(x);", file=patch)
    planned = place.run("plan", "hello", "--target", "f28")
    assert planned.code == 5
    assert "postmaster.patch does not apply" in planned.output


def test_a_build_that_no_pinned_key_signed_is_planned_to_fail(services: Served, tmp_path: Path) -> None:
    place = bench(services, tmp_path)
    place.change('keys = ["fedora-29"]', 'keys = ["fedora-28"]')
    planned = place.run("plan", "hello", "--target", "f28")
    assert planned.code == 3
    assert "not signed by a pinned key" in planned.output


def test_publications_of_these_and_of_others_make_nothing_to_do(place: Bench) -> None:
    # Since the library was published, hello was as well: that is looked at once.
    for recipe, looks in (("hello", False), ("library", True), ("library", False)):
        result, report = run(place, recipe)
        assert report["outcome"] == "unchanged", result.errors
        assert ("looking for what the builds need" in result.errors) is looks


def test_another_library_sends_its_consumer_through_a_build(place: Bench) -> None:
    recipe = place.folder / "specs" / "library.toml"
    place.change("[packages.libgreet]", "[packages.libgreet]\nbump = 2", file=recipe)
    result, report = run(place, "library")
    assert report["outcome"] == "published", result.errors
    planned = json.loads(place.run("plan", "hello", "--target", "f28", "--json").output)
    assert planned["published"] is False
    assert {line.split(" changed: ")[0] for line in planned["reasons"]} == {
        "hello takes libgreet-devel.x86_64", "hello takes libgreet.x86_64",
    }  # fmt: skip
    result, report = run(place, "hello")
    assert report["outcome"] == "published", result.errors
    logs = list(Path(str(report["folder"])).glob("build/hello/installed_pkgs.log"))
    assert logs
    assert "libgreet-devel-1.0-1.fc28.bp2" in logs[0].read_text()


def test_a_library_without_what_a_published_program_needs_is_not_published(place: Bench) -> None:
    recipe = place.folder / "specs" / "library.toml"
    place.change(
        "[packages.libgreet]\nbump = 2",
        f"[packages.libgreet]\nbump = 3\nedits = [{', '.join(OTHER_SONAME)}]",
        file=recipe,
    )
    result, report = run(place, "library")
    assert result.code == 8
    assert "gate.consumers" in str(report["failure"])
