"""The page of a target's folder, from what lies in it: written anew whenever clients see something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from backport.artifacts import Check, Finding
from backport.errors import PublishError
from backport.evidence.store import NEWEST, age_of, test_results
from backport.files import write_atomically
from backport.repository.advisories import Advisory, read_advisories
from backport.repository.builds import builds_in
from backport.repository.clients import write_client_files
from backport.repository.contents import basearch
from backport.repository.generations import STABLE, Generation, TargetFolder
from backport.repository.history import SWITCHES
from backport.repository.page import (
    PROOF,
    Entry,
    Event,
    Notice,
    Page,
    Tests,
    render_index,
    render_page,
)
from backport.repository.place import Place
from backport.repository.tree import difference
from backport.target import Target

PAGE = "index.html"
SHOWN_EVENTS = 20
"""How many of the last changes the page tells."""
_MEANINGS = {
    "provenance.json": "Provenance, in-toto and SLSA",
    "test-results.json": "Test results, in-toto",
    "sbom.cdx.json": "Bill of materials, CycloneDX",
}


def write_page(place: Place) -> None:
    """Write ``index.html`` into a target's folder; where nothing is published, remove it.

    For the lock's holder alone. Raises PublishError when what is published cannot be read, OSError.
    """
    folder = place.folder
    path = folder.path / PAGE
    record = folder.current_generation()
    if record is None:
        path.unlink(missing_ok=True)
        return
    _write(path, rendered_page(folder, record, place.target, place.url))
    write_index(folder.repository)


def write_index(repository: Path) -> None:
    """Write ``index.html`` into the repository folder: its targets in all channels.

    One whose record cannot be read is left out. Raises OSError.
    """
    entries = []
    for place in sorted({*repository.glob("*/generations"), *repository.glob("*/*/generations")}):
        path = place.parent.relative_to(repository)
        channel = STABLE if len(path.parts) == 1 else path.parts[0]
        with suppress(PublishError):
            if record := TargetFolder(path=place.parent, channel=channel).current_generation():
                entries.append(
                    Entry(
                        target=path.name, channel=channel, path=path.as_posix(), changed=record.time,
                        packages=record.packages,
                    )
                )  # fmt: skip
    _write(
        repository / PAGE, render_index(sorted(entries, key=lambda one: (one.target, one.channel != STABLE)))
    )


def _write(path: Path, text: str) -> None:
    if difference(path, text):
        write_atomically(path, text)


def renew(place: Place) -> tuple[str, ...]:
    """Let all that lies beside the generations be what the site and the generation that clients see make it.

    Gives the names of the files for clients that were otherwise. For the lock's holder alone. Raises
    PublishError, SignError, OSError.
    """
    record = place.folder.current_generation()
    renewed = write_client_files(place, [record]) if record else ()
    write_page(place)
    return renewed


def rendered_page(folder: TargetFolder, record: Generation, target: Target, base_url: str) -> str:
    """The page of a generation, as it is written. Raises PublishError."""
    return render_page(overview(folder, record, target, base_url))


def overview(folder: TargetFolder, record: Generation, target: Target, base_url: str) -> Page:
    """What the page tells of a generation. Raises PublishError when it is damaged."""
    generation = folder.folder_of(record.id)
    repository = generation / basearch(target)
    advisories = read_advisories(repository) if repository.is_dir() else ()
    return Page(
        target=target.name,
        summary=target.summary,
        base_url=f"{base_url.rstrip('/')}/{target.name}",
        fingerprint=record.fingerprint,
        public_key=folder.public_key.name,
        generation=record.id,
        made=record.time,
        builds=builds_in(generation, target),
        notices=_notices(folder, advisories),
        tests=tuple(_tests(folder, generation)),
        advisories=advisories,
        history=_history(folder),
        evidence=tuple((name, _MEANINGS[name]) for name in NEWEST if (generation / name).exists()),
    )


def _tests(folder: TargetFolder, generation: Path) -> Iterator[Tests]:
    """What was tested last of each recipe's packages, the newest first."""
    seen: set[str] = set()
    for name, statement in test_results(generation):
        told, tested = statement.predicate, age_of(name)
        recipe = next((one.name or "" for one in told.configuration), "").removesuffix(".self_test")
        if recipe in seen:
            continue
        seen.add(recipe)
        yield Tests(
            recipe=recipe, headline=told.headline, tested=tested,
            checks=(*(Check.read(data) for data in told.checks), *_proof(folder, tested)),
            transcript=(told.transcript.text or "") if told.transcript else "",
        )  # fmt: skip


def _proof(folder: TargetFolder, tested: datetime) -> Iterator[Check]:
    """The checks of the first proof after packages were tested: it is theirs."""
    proofs = (event for event in folder.history() if event.action == "proof" and event.time >= tested)
    if proof := next(proofs, None):
        for id_, title in PROOF.items():
            yield Check.of(id_, title, Finding.passed(f"in {proof.generation}"))


def _notices(folder: TargetFolder, advisories: Sequence[Advisory]) -> tuple[Notice, ...]:
    """That clients were led back, and what was taken back."""
    found = [
        Notice(time=one.issued, title=one.title, text=one.description)
        for one in advisories
        if one.is_withdrawal
    ]
    switches = [event for event in folder.history() if event.action in SWITCHES]
    if switches and switches[-1].action == "rollback":
        last = switches[-1]
        text = (
            f"Clients see {last.generation} again, not {last.before}. Hosts that have updated since then "
            "keep what they have until dnf distro-sync."
        )
        found.append(Notice(time=last.time, title="Led back", text=text))
    return tuple(sorted(found, key=lambda one: one.time, reverse=True))


def _history(folder: TargetFolder) -> tuple[Event, ...]:
    switches = [event for event in folder.history() if event.action in SWITCHES]
    there = set(folder.ids())
    return tuple(
        Event(
            time=event.time, action=event.action, generation=event.generation or "nothing",
            gone=event.generation is not None and event.generation not in there,
        )
        for event in switches[: -SHOWN_EVENTS - 1 : -1]
    )  # fmt: skip
