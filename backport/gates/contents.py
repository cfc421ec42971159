"""Gate ``files``: what the candidate's files do beside those of the target and of what is published.

Two packages may have the same file where rpm sees no conflict (rpm's ``rpmfilesCompare``), and where
both are programs of different word lengths, of which rpm keeps the longer (its file colours).
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import rpm as rpm_bindings

from backport.artifacts import Check, Finding, Verdict, is_for_debugging
from backport.gates.pool import Solvable, ids
from backport.gates.subject import Subject
from backport.trust import read_header

File = Any
"""rpm.file: one file of a header."""

_CONFLICTS = "gate.files.conflicts"


def examine_files(subject: Subject) -> Iterator[Check]:
    """The checks of conflicts and of privileges."""
    yield _conflicts(subject)
    yield _privileges(subject)


def is_conflict(one: File, other: File) -> bool:
    """Whether rpm refuses to install two packages with these files of the same name."""
    if (one.fflags | other.fflags) & rpm_bindings.RPMFILE_GHOST:
        return False
    if one.color and other.color and one.color != other.color:
        return False
    if one.mode != other.mode:
        return True
    if stat.S_ISDIR(one.mode):
        return False
    facts = [(file.user, file.group, file.linkto) for file in (one, other)]
    if stat.S_ISREG(one.mode):
        return facts[0] != facts[1] or (one.size, one.digest) != (other.size, other.digest)
    return facts[0] != facts[1]


def privileges_of(file: File) -> frozenset[str]:
    """What a file gives to those who run or change it beyond their own rights."""
    found = set()
    if stat.S_ISREG(file.mode):
        if file.mode & stat.S_ISUID:
            found.add(f"set-user-id {file.user}")
        if file.mode & stat.S_ISGID:
            found.add(f"set-group-id {file.group}")
        if file.caps and file.caps != "=":
            found.add(f"capabilities {file.caps}")
    sticky_folder = stat.S_ISDIR(file.mode) and file.mode & stat.S_ISVTX
    if file.mode & stat.S_IWOTH and not stat.S_ISLNK(file.mode) and not sticky_folder:
        found.add("writable by all")
    return frozenset(found)


def _conflicts(subject: Subject) -> Check:
    shared = _shared(subject)
    others: dict[str, list[str]] = {"other": [], "sibling": []}
    names = {one.nevra.name for one in subject.packages}
    for owner, paths in shared:
        kind = "sibling" if owner.name in names else "other"
        theirs = {file.name: file for file in _files_of(subject, owner)}
        others[kind] += [
            f"{file.name}: {nevra} and {owner.str()}"
            for path in paths
            for nevra, files in subject.files.items()
            for file in files
            if file.name == path and path in theirs and is_conflict(file, theirs[path])
        ]
    verdict = Verdict.FAIL if others["other"] else Verdict.WARN
    advice = (
        "leave the file to its owner: remove it in the spec, or give it another name"
        if others["other"]
        else "hosts that have the package of the other architecture cannot update before they remove it"
    )
    finding = Finding.unless(
        [*others["other"], *others["sibling"]],
        expected="shared files are the same, except of packages that are replaced",
        found=f"{sum(len(files) for files in subject.files.values())} files, "
        f"{sum(len(paths) for _, paths in shared)} of them shared",
        advice=advice,
        verdict=verdict,
    )
    return Check.of(_CONFLICTS, "No file is in the way of the target's and the published packages", finding)


def _shared(subject: Subject) -> list[tuple[Solvable, set[str]]]:
    """The packages that stay, with those of their files that the candidate has as well.

    What several of these packages have already is left out where it is a folder of ours: it can
    only be one of theirs, too. A folder such as /usr/lib/.build-id has thousands of owners.
    """
    pool = subject.pool
    kept = ids(pool.kept)
    by_number: dict[int, Solvable] = {}
    paths: dict[int, set[str]] = defaultdict(set)
    for name, is_folder in _kinds(subject).items():
        owners = [owner for owner in pool.owners(name) if owner.id in kept]
        if is_folder and len(owners) > 1:
            continue
        for owner in owners:
            by_number[owner.id] = owner
            paths[owner.id].add(name)
    return [(by_number[number], paths[number]) for number in sorted(paths)]


def _kinds(subject: Subject) -> dict[str, bool]:
    """Every path of the candidate, and whether it is only a folder."""
    kinds: dict[str, bool] = {}
    for file in (file for files in subject.files.values() for file in files):
        kinds[file.name] = kinds.get(file.name, True) and stat.S_ISDIR(file.mode)
    return kinds


def _privileges(subject: Subject) -> Check:
    ours = {
        (nevra, file.name): privileges
        for nevra, files in subject.files.items()
        for file in files
        if (privileges := privileges_of(file))
    }
    theirs: dict[str, frozenset[str]] = defaultdict(frozenset)
    if ours:
        for owner in _models(subject):
            for file in _files_of(subject, owner):
                theirs[file.name] |= privileges_of(file)
    problems = [
        f"{nevra}: {path} is {', '.join(sorted(more))}"
        for (nevra, path), privileges in ours.items()
        if (more := privileges - theirs[path])
    ]
    finding = Finding.unless(
        problems,
        expected="no new set-user-id, set-group-id, capability or file that all may write",
        found=f"{len(ours)} such files, all as in the packages before" if ours else "no such file",
        evidence=[f"{path}: {', '.join(sorted(privileges))}" for (_, path), privileges in ours.items()],
        advice="take the right away in the spec (%attr, %caps), or say under [gates.warn] why it is needed",
    )
    return Check.of(
        "gate.files.privileges", "No file gives rights that the package before does not give", finding
    )


def _models(subject: Subject) -> list[Solvable]:
    """The packages whose files tell which rights are nothing new: the target's own, and what is published of
    what the target has not."""
    pool = subject.pool
    names = {one.name for one in pool.replaced_of_target}
    published = [one for one in subject.replaced if one.name not in names]
    return [one for one in (*pool.replaced_of_target, *published) if not is_for_debugging(one.name)]


def _files_of(subject: Subject, one: Solvable) -> tuple[File, ...]:
    return tuple(rpm_bindings.files(read_header(subject.file_of(one))))
