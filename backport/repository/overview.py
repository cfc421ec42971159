"""The page of a target's folder, from what lies in it: written anew whenever readers see something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backport.artifacts import Check, Verdict
from backport.errors import PublishError
from backport.evidence.intoto import TestResult
from backport.evidence.store import NEWEST, age_of, test_results
from backport.files import write_atomically
from backport.repository.advisories import read_advisories
from backport.repository.builds import Rows, read_rows
from backport.repository.contents import basearch
from backport.repository.generations import Generation, TargetFolder
from backport.repository.history import SWITCHES
from backport.repository.page import Event, Page, render_page
from backport.target import Target

PAGE = "index.html"
SHOWN_EVENTS = 20
"""How many of the last changes the page tells."""
_MEANINGS = {
    "provenance.json": "Provenance, in-toto and SLSA",
    "test-results.json": "Test results, in-toto",
    "sbom.cdx.json": "Bill of materials, CycloneDX",
}


def write_page(folder: TargetFolder, target: Target, base_url: str) -> None:
    """Write ``index.html`` into a target's folder; where nothing is published, remove it.

    ``base_url`` is the URL of the repository folder as clients see it. For the lock's holder alone. Raises
    PublishError when what is published cannot be read, OSError.
    """
    path = folder.path / PAGE
    record = folder.current_generation()
    if record is None:
        path.unlink(missing_ok=True)
        return
    text = render_page(overview(folder, record, target, base_url))
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def overview(folder: TargetFolder, record: Generation, target: Target, base_url: str) -> Page:
    """What the page tells of a generation. Raises PublishError when it is damaged."""
    generation = folder.folder_of(record.id)
    tested, result = next(iter(test_results(generation)), ("", None))
    told = result.predicate if result else None
    repository = generation / basearch(target)
    builds = _rows(generation)
    return Page(
        target=target.name,
        summary=target.summary,
        base_url=f"{base_url.rstrip('/')}/{target.name}",
        fingerprint=record.fingerprint,
        public_key=folder.public_key.name,
        generation=record.id,
        made=record.time,
        rows=builds.rows,
        packages=builds.packages,
        headline=told.headline if told else (),
        checks=_checks(told),
        tested=age_of(tested) if tested else None,
        transcript=(told.transcript.text or "") if told and told.transcript else "",
        advisories=read_advisories(repository) if repository.is_dir() else (),
        history=_history(folder),
        evidence=tuple((name, _MEANINGS[name]) for name in NEWEST if (generation / name).exists()),
    )


def _rows(generation: Path) -> Rows:
    try:
        return read_rows(generation)
    except (ValueError, OSError) as problem:
        raise PublishError(f"{generation}: what is told of its builds is damaged: {problem}") from None


def _checks(told: TestResult | None) -> tuple[Check, ...]:
    return tuple(_check(data) for data in told.checks) if told else ()


def _check(data: Mapping[str, Any]) -> Check:
    """A check as the evidence tells it; one of a kind that is not known is no pass."""
    verdict = str(data.get("verdict", ""))
    return Check(
        id=str(data.get("id", "")),
        title=str(data.get("title", "")),
        verdict=Verdict(verdict) if verdict in set(Verdict) else Verdict.ERROR,
        expected=str(data.get("expected", "")),
        found=str(data.get("found", "")),
        evidence=str(data.get("evidence", "")),
        advice=str(data.get("advice", "")),
    )


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
