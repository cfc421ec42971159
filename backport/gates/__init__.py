"""Gates: what is asked of tested packages before anybody can install them.

All look at the signed candidate repository together with the target's own repositories and everything that
is published: that is what clients choose from. Results are checks, as those of the self-test. A recipe may
turn a gate into a warning, with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from backport.artifacts import Check, Finding, GatedRpms, Nevra, TestedRpms, Verdict
from backport.errors import BackportError, HostError, PublishError
from backport.gates.abi import examine_abi
from backport.gates.contents import examine_files
from backport.gates.dependencies import examine_dependencies
from backport.gates.pool import newest_of_sources
from backport.gates.repositories import TargetRepositories
from backport.gates.roots import examine_roots
from backport.gates.signed import examine_signatures
from backport.gates.subject import Subject
from backport.gates.upgrade_path import examine_upgrade_paths
from backport.progress import Progress
from backport.recipe import Gates, Recipe
from backport.repository.channel import Channel
from backport.settings import unknown
from backport.target import Target

__all__ = ["GATES", "check_names", "examine", "newest_of_target", "passed"]

Examination: TypeAlias = Callable[[Subject], Iterator[Check]]

GATES: Mapping[str, tuple[str, Examination]] = {
    "signed": ("Signatures and metadata", examine_signatures),
    "upgrade-path": ("Versions", examine_upgrade_paths),
    "consumers": ("Requirements", examine_dependencies),
    "files": ("Files", examine_files),
    "abi": ("Libraries keep their ABI", examine_abi),
    "installable": ("Installation in a root", examine_roots),
}
"""Title and examination by name, the quick ones first; a gate's checks are called ``gate.`` and its name."""


def check_names(recipe: Recipe) -> None:
    """Refuse a recipe that takes a gate for a warning which there is not. Raises UsageError."""
    for name in recipe.gates.warn:
        if (gate := name.partition(".")[0]) not in GATES:
            raise unknown(f"{recipe.place('gates', 'warn', name)}: there is no gate", gate, GATES)


def newest_of_target(
    target: Target, names: Collection[str], *, cache: Path, progress: Progress
) -> dict[str, Nevra]:
    """The newest EVR that the target has of these source packages. Raises ToolError, HostError."""
    metadata = TargetRepositories.of(target, cache=cache, progress=progress).metadata()
    return newest_of_sources(target, metadata, names)


def examine(
    tested: TestedRpms,
    recipe: Recipe,
    target: Target,
    *,
    candidate: Path,
    accepted: Iterable[str] = (),
    published: Channel | None = None,
    cache: Path,
    workspace: Path,
    progress: Progress,
) -> tuple[Check, ...]:
    """Ask all gates of the candidate repository of ``tested``.

    ``candidate`` is its folder, packages and metadata signed; ``accepted`` are the digests of those
    packages of which the target's own rpmkeys has accepted the signature already, ``published`` what
    clients can install now. ``cache`` keeps roots and downloads, ``workspace`` gets the logs.

    Raises HostError where this host lacks something; everything else is in the checks.
    """
    subject = Subject(
        signed=tested.signed,
        candidate=candidate,
        accepted=frozenset(accepted),
        target=target,
        gates=recipe.gates,
        install=recipe.self_test.install,
        published=published,
        cache=cache,
        workspace=workspace,
        progress=progress,
    )
    return tuple(check for name, gate in GATES.items() for check in _asked(name, *gate, subject))


def passed(tested: TestedRpms, checks: tuple[Check, ...]) -> GatedRpms:
    """The packages that may be published. Raises PublishError that names the gates that forbid it."""
    failed = [check for check in checks if check.stops]
    if failed:
        first = failed[0]
        raise PublishError(
            f"not published: {', '.join(check.id for check in failed)}: {first.title}: {first.found}",
            hint=first.advice or None,
            evidence=first.evidence.splitlines(),
        )
    return GatedRpms(tested=tested, checks=checks)


def _asked(name: str, title: str, examination: Examination, subject: Subject) -> Iterator[Check]:
    """A gate's checks; where it could not go on, the last one says so."""
    subject.progress.note(f"gate {name}")
    try:
        for check in examination(subject):
            yield _weighed(check, subject.gates)
    except HostError:
        raise
    except BackportError as problem:
        finding = Finding.of_problem(
            problem,
            expected="all its checks are done",
            advice="the gate could not be asked: mend that, then run the build again",
            verdict=Verdict.ERROR,
        )
        yield _weighed(Check.of(f"gate.{name}", title, finding), subject.gates)


def _weighed(check: Check, gates: Gates) -> Check:
    """The check as the recipe wants it taken."""
    reason = gates.reason_to_warn(check.id.removeprefix("gate."))
    if not check.stops or reason is None:
        return check
    return replace(check, verdict=Verdict.WARN, advice=f"the recipe takes it as a warning: {reason}")
