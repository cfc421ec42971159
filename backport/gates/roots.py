"""Gate ``installable``, and that consumers start: what dnf and programs do in real roots.

One root goes a server's way: the target's packages with what is published already, the update, and back.
The other has none of them installed by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from backport.artifacts import Check, Finding, Nevra, Verdict
from backport.causes import causes_of, failed_scriptlets
from backport.errors import ToolError
from backport.gates.subject import Subject
from backport.roots.root import Root, clean_root
from backport.run import Command

START_TIMEOUT = 120.0
"""Deadline in seconds of a consumer's program."""
UPDATE, DOWNGRADE, FRESH = "gate.installable.update", "gate.installable.downgrade", "gate.installable.fresh"
_TITLES = {
    UPDATE: "dnf updates a root that has what servers have",
    DOWNGRADE: "dnf goes back to what servers have",
    FRESH: "dnf installs all packages into a clean root",
}
_ADVICE = {
    UPDATE: "a server would fail in the same way: mend what dnf names, or rebuild it with the others",
    DOWNGRADE: "a server could not go back: mend what dnf names",
    FRESH: "a server could not install them: mend what dnf names, or have the recipe build what is missing",
}
_EXPECTED = {
    UPDATE: "every package that was installed is the candidate's",
    DOWNGRADE: "every package that was updated is the one before again",
    FRESH: "every package of the candidate is installed",
}


def examine_roots(subject: Subject) -> Iterator[Check]:
    """The checks of update, consumers, downgrade and fresh installation."""
    yield from _there_and_back(subject)
    with _root(subject, "fresh") as root:
        wanted = {f"{one.nevra.name}-{one.nevra.evr}.{one.nevra.arch}" for one in subject.packages}
        log = subject.workspace / "fresh" / "install.log"
        yield _transaction(
            FRESH, root, wanted, log,
            lambda: root.install(sorted(wanted), extra=subject.after, log=log),
        )  # fmt: skip


def start_id(package: str) -> str:
    """The id of the check that a consumer starts."""
    return f"gate.consumers.{package}"


def _there_and_back(subject: Subject) -> Iterator[Check]:
    """What needs the packages before; all of it is skipped behind an update that failed."""
    consumers = subject.gates.consumers
    replaced = [one for one in subject.replaced if one.name not in subject.unchanged]
    stock = {f"{one.name}.{one.arch}": one.str() for one in replaced}
    if not stock and not consumers:
        yield from _skip("servers have none of these packages", UPDATE, DOWNGRADE)
        return
    with _root(subject, "update", *subject.install) as root:
        folder, extra = subject.workspace / "update", subject.before
        if extra:
            root.update(extra=extra, log=folder / "stock.log")
        there = {str(nevra): nevra.name for nevra in root.installed()}
        missing = [short for short, nevra in stock.items() if nevra not in there]
        missing += [name for name in consumers if name not in there.values()]
        if missing:
            root.install(missing, extra=extra, log=folder / "stock.log")
            there = {str(nevra): nevra.name for nevra in root.installed()}
        before = {name: _starts(root, program) for name, program in consumers.items()}
        wanted = {str(one.nevra) for one in subject.packages if one.nevra.name in there.values()}
        log = folder / "update.log"
        check = _transaction(UPDATE, root, wanted, log, lambda: root.update(extra=subject.after, log=log))
        yield check
        if check.stops:
            yield from _skip(f"{UPDATE}: {check.found}", *map(start_id, consumers), DOWNGRADE)
            return
        for name, program in consumers.items():
            yield _consumer(name, program, before[name], _starts(root, program))
        yield _downgrade(subject, root, stock, set(there))


def _downgrade(subject: Subject, root: Root, stock: dict[str, str], there: set[str]) -> Check:
    names = {one.nevra.name for one in subject.packages}
    # What the candidate's packages obsolete has another name: dnf does not call its return a downgrade.
    back = {short: nevra for short, nevra in stock.items() if short.rpartition(".")[0] in names}
    log = subject.workspace / "update" / "downgrade.log"
    return _transaction(
        DOWNGRADE, root, set(back.values()) & there, log,
        lambda: root.downgrade(sorted(back), extra=subject.before, log=log),
    )  # fmt: skip


def _transaction(
    check_id: str, root: Root, wanted: set[str], log: Path, transact: Callable[[], None]
) -> Check:
    """What a transaction came to: dnf's exit code first, then what is installed by rpm's database."""
    problems: list[str] = []
    evidence: Sequence[str] = sorted(wanted)
    try:
        transact()
    except ToolError as problem:
        problems.append(problem.message)
        evidence = problem.evidence
    else:
        installed = {str(nevra) for nevra in root.installed()}
        problems += [f"{nevra} is not installed" for nevra in sorted(wanted - installed)]
        names = {Nevra.parse(nevra).name for nevra in wanted}
        problems += [said for name, said in failed_scriptlets(log).items() if name in names]
        if problems:
            evidence = causes_of(log).evidence
    finding = Finding.unless(
        problems,
        expected=_EXPECTED[check_id],
        found=f"{len(wanted)} packages are",
        evidence=[*evidence, f"log: {log}"],
        advice=_ADVICE[check_id],
    )
    return Check.of(check_id, _TITLES[check_id], finding)


def _starts(root: Root, program: Sequence[str]) -> str | None:
    """None where a program starts and ends well; else what it came to.

    The loader resolves every symbol at the start (ld.so(8), LD_BIND_NOW), so that none is found missing
    later.
    """
    try:
        root.run(Command(program, timeout=START_TIMEOUT, env={"LD_BIND_NOW": "1"}), user="root")
    except ToolError as problem:
        return problem.message
    return None


def _consumer(name: str, program: Sequence[str], before: str | None, after: str | None) -> Check:
    check_id, title = start_id(name), f"{name} starts on the updated packages"
    command = " ".join(program)
    if before is not None:
        finding = Finding(
            verdict=Verdict.ERROR, expected=f"{command}: exit code 0",
            found=f"it does not start on the packages before either: {before}",
            advice="correct the program under [gates.consumers] in the recipe",
        )  # fmt: skip
        return Check.of(check_id, title, finding)
    finding = Finding.unless(
        [after] if after else [],
        expected=f"{command}: exit code 0",
        found=f"{command}: exit code 0",
        advice=f"rebuild {name} for the updated packages, or keep what it needs of the old ones",
    )
    return Check.of(check_id, title, finding)


def _root(subject: Subject, name: str, *packages: str) -> AbstractContextManager[Root]:
    workspace = subject.workspace / name
    return clean_root(subject.target, packages=packages, cache=subject.cache, workspace=workspace)


def _skip(reason: str, *ids: str) -> Iterator[Check]:
    for one in ids:
        yield Check.of(one, _TITLES.get(one, one), Finding.skipped(reason))
