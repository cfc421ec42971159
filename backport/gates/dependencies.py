"""Gates ``installable.closure`` and ``consumers``: whether everything finds what it requires.

Held against what a client has after the update: the candidate's packages, and of the target's and the
published ones the newest, except those whose place the candidate's take.
"""

from __future__ import annotations

from collections.abc import Iterator

from backport.artifacts import Check, Finding
from backport.gates.pool import ids
from backport.gates.subject import Subject


def examine_dependencies(subject: Subject) -> Iterator[Check]:
    """The two checks."""
    yield _closure(subject)
    yield _consumers(subject)


def _closure(subject: Subject) -> Check:
    pool = subject.pool
    there = ids((*pool.kept, *pool.candidate))
    problems = [
        f"{one.str()} requires {requirement.text}"
        for one in pool.candidate
        for requirement in pool.requirements(one)
        if not requirement.providers & there
    ]
    finding = Finding.unless(
        problems,
        expected="each requirement is provided by the target, by what is published or by the candidate",
        found=f"{len(pool.candidate)} packages beside {len(pool.kept)} others do",
        advice="add the package that provides it to the recipe, or build without what needs it",
    )
    return Check.of("gate.installable.closure", "Every package finds what it requires", finding)


def _consumers(subject: Subject) -> Check:
    """Of the other packages only those that lose something count, not what never was to be had."""
    pool = subject.pool
    before, gone = ids(pool.server), ids(pool.replaced)
    there = ids((*pool.kept, *pool.candidate))
    consumers: set[str] = set()
    problems = []
    for one in pool.kept:
        for requirement in pool.requirements(one):
            if not requirement.providers & gone:
                continue
            consumers.add(one.str())
            if requirement.providers & before and not requirement.providers & there:
                problems.append(f"{one.str()} requires {requirement.text}")
    finding = Finding.unless(
        problems,
        expected="all that they require is provided after the update, too",
        found=f"{len(consumers)} packages do" if consumers else "no package needs what is replaced",
        evidence=sorted(consumers),
        advice="rebuild these packages in the same recipe, or keep the old library beside the new one",
    )
    return Check.of("gate.consumers", "Every package that needs what is replaced still finds it", finding)
