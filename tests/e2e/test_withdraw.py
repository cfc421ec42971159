"""One package taken back: from real packages, and proven in a root of the lab's release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backport.artifacts import BuiltRpms, Check, TestedRpms, Verdict
from backport.errors import PublishError
from backport.evidence.store import verify_provenance
from backport.repository import proof
from backport.repository.advisories import read_advisories
from backport.repository.holds import held_packages, held_sources
from backport.repository.overview import PAGE
from backport.repository.rollback import rollback
from backport.repository.verification import verify
from backport.repository.withdraw import Withdrawn, withdraw
from backport.target import Target
from tests.e2e import tiny
from tests.e2e.shelf import Publisher, Shelf, notes_of, seen_by_reader

PASSED = (Check(id="p", title="P", verdict=Verdict.PASS),)


def taken_back(publisher: Publisher, name: str, **options: object) -> Withdrawn:
    shown: list[proof.Exhibit] = []

    def prove(exhibit: proof.Exhibit) -> tuple[Check, ...]:
        shown.append(exhibit)
        assert publisher.folder.current_id() != exhibit.record.id
        return PASSED

    done = withdraw(
        publisher.place(), name, prove=prove, publisher="A <a@example.org>",
        **options,  # type: ignore[arg-type]  # the tests' own keywords
    )  # fmt: skip
    assert len(shown) == (not options.get("dry_run"))
    return done


def test_one_package_goes_and_the_rest_stays(publisher: Publisher, shelf: Shelf) -> None:
    bad = shelf("split", more=("split-libs", "split-debuginfo"))
    publisher.publish(shelf("first"), inputs={"first": "1"}, notes=notes_of("first", shelf("first")))
    before = publisher.publish(bad, inputs={"tiny": "2"}, notes=notes_of("split", bad)).generation
    assert taken_back(publisher, "split-libs", dry_run=True).generation is None
    assert publisher.folder.current_id() == before
    done = taken_back(publisher, "split-libs", reason="it crashes")
    assert done.advice == "dnf distro-sync split split-libs"
    assert seen_by_reader(publisher, bad) == {"first-1-1.fc28.bp1.noarch.rpm", "first-1-1.fc28.bp1.src.rpm"}
    record = publisher.folder.load(done.generation or "")
    assert (record.inputs, record.packages) == ({"first": "1"}, 2)
    assert [event.action for event in publisher.folder.history()][-2:] == ["proof", "withdraw"]
    assert "2" in publisher.folder.held()
    assert held_sources(publisher.folder, [bad.signed.built[0].patched]) == ("split",)
    with pytest.raises(PublishError, match="was rolled back"):
        publisher.publish(bad, inputs={"tiny": "3"})
    told = read_advisories(publisher.folder.current / "x86_64")
    assert [one.title for one in told] == ["Withdrawn: split 1-1.fc28.bp1", "first"]
    assert "it crashes" in told[0].description
    assert "dnf distro-sync split split-libs" in (publisher.folder.path / PAGE).read_text()
    assert "split-1-1.fc28.bp1.noarch.rpm" not in (publisher.folder.path / PAGE).read_text()
    assert verify(publisher.folder, publisher.target).faults == ()
    checks = verify_provenance(publisher.folder.path, [publisher.folder.public_key])
    assert [check.evidence for check in checks if check.stops] == []
    publisher.publish(shelf("split", "2"))
    told = read_advisories(publisher.folder.current / "x86_64")
    assert [one.title for one in told] == ["Withdrawn: split 1-1.fc28.bp1", "first"]
    rollback(publisher.place(), before)
    assert held_sources(publisher.folder, [bad.signed.built[0].patched]) == ()


def test_an_earlier_build_takes_the_place_of_the_newest(publisher: Publisher, shelf: Shelf) -> None:
    publisher.publish(shelf("first"), notes=notes_of("first", shelf("first")))
    publisher.publish(shelf("first", "2"), notes=notes_of("second", shelf("first", "2")))
    done = taken_back(publisher, "first")
    assert done.instead == ("first-1-1.fc28.bp1.src", "first-1-1.fc28.bp1.noarch")
    assert seen_by_reader(publisher, shelf("first")) == {
        "first-1-1.fc28.bp1.noarch.rpm", "first-1-1.fc28.bp1.src.rpm"
    }  # fmt: skip
    # What is withdrawn now is the last, and nothing of it comes back.
    again = taken_back(publisher, "first")
    assert again.instead == ()
    assert seen_by_reader(publisher, shelf("first")) == set()
    assert held_packages(publisher.folder.held()) == tuple(
        f"first-{version}-1.fc28.bp1.{arch}" for version in "12" for arch in ("noarch", "src")
    )
    assert verify(publisher.folder, publisher.target).faults == ()


def test_an_earlier_build_comes_back_from_an_older_generation(publisher: Publisher, shelf: Shelf) -> None:
    first = publisher.publish(shelf("first"), notes=notes_of("first", shelf("first"))).generation
    taken_back(publisher, "first")
    # Somebody wants it again, and then the next version alone.
    newest = publisher.publish(shelf("first", "2"), notes=notes_of("second", shelf("first", "2"))).generation
    rollback(publisher.place(), first)
    rollback(publisher.place(), newest)
    assert seen_by_reader(publisher, shelf("first")) == {
        "first-2-1.fc28.bp1.noarch.rpm", "first-2-1.fc28.bp1.src.rpm"
    }  # fmt: skip
    done = taken_back(publisher, "first")
    assert done.instead == ("first-1-1.fc28.bp1.src", "first-1-1.fc28.bp1.noarch")
    assert len(seen_by_reader(publisher, shelf("first"))) == 2
    page = (publisher.folder.path / PAGE).read_text()
    assert "first-1-1.fc28.bp1.noarch.rpm" in page
    assert verify(publisher.folder, publisher.target).faults == ()
    checks = verify_provenance(publisher.folder.path, [publisher.folder.public_key])
    assert [check.evidence for check in checks if check.stops] == []


def requiring(folder: Path, shelf: Shelf, name: str, requirement: str) -> TestedRpms:
    """A package that requires something."""
    built: BuiltRpms = tiny.build(folder, name, requires=requirement)
    return tiny.tested(shelf.sign_again(built, folder / "signed"))


def test_a_client_takes_what_is_left_and_what_others_require_is_not_taken(
    publisher: Publisher, shelf: Shelf, root_cache: Path, tmp_path: Path, f28: Target
) -> None:
    publisher.publish(shelf("first"))
    publisher.publish(requiring(tmp_path / "user", shelf, "user", "first >= 1"))
    before = publisher.publish(requiring(tmp_path / "shell", shelf, "shell", "bash")).generation

    def prove(exhibit: proof.Exhibit) -> tuple[Check, ...]:
        return proof.prove(exhibit, target=f28, cache=root_cache, workspace=tmp_path)

    def take(name: str) -> Withdrawn:
        place = replace(publisher, target=f28).place()
        return withdraw(place, name, prove=prove, publisher="A <a@example.org>")

    with pytest.raises(PublishError, match=r"first cannot be withdrawn: user-1-1\..* requires first"):
        take("first")
    assert publisher.folder.current_id() == before
    take("user")
    assert len(take("first").packages) == 2
    assert {name.split("-")[0] for name in seen_by_reader(publisher, shelf("first"))} == {"shell"}
