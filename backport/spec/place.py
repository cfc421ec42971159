"""The place in a %prep section where one more patch is applied: last, always, and in the right directory."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from backport.spec import shell
from backport.spec.lines import HOSTILE, Branches, Line, Section, Spec
from backport.spec.steps import Step, has_flag, tree_name

_ANYWHERE: shell.Directory = ("<anywhere>",)
_NOWHERE: shell.Directory = ("<nowhere>",)


@dataclass(frozen=True, kw_only=True)
class Place:
    """The line behind which a patch is applied, and the directory there."""

    line: Line
    directory: shell.Directory | None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A %prep section with the directory of each step."""

    spec: Spec
    steps: Sequence[Step]
    points: Sequence[_Point]
    base: Branches

    def directory(self, step: Step | None) -> shell.Directory | None:
        """The directory in which a step is done; where %setup ends, if there is none."""
        point = self._by_line.get(step.line.index) if step else None
        return point.before.directory if point else shell.TOP

    def is_open(self, step: Step) -> bool:
        """Whether a step is outside of the script's own blocks, so that the shell always does it."""
        point = self._by_line.get(step.line.index)
        return point is None or point.before.plain

    def is_last_tree(self, step: Step) -> bool:
        """Whether a step is done in the tree that the last %setup unpacks, and not in one before it."""
        behind = bisect(self._tree_lines, step.line.index)
        return not behind or tree_name(self._trees[behind - 1]) == tree_name(self._trees[-1])

    def place(self) -> Place | None:
        """Where a patch is applied after every step, whatever the conditionals say; None: nowhere.

        The directory there is the one in which %setup ends. Where that is only a container of the
        sources (``-c``), it is the one in which the spec applies its last patch, and the place is behind
        that; where it is left for good, it is the one in which the spec applies its first patch.
        """
        last = self.spec.group_end(self.steps[-1].line).index
        for directory, behind in self._wishes(last):
            for point in self.points:
                at = point.after.directory
                if point.open and point.end.index >= behind and directory in (_ANYWHERE, at):
                    return Place(line=point.end, directory=at)
        return None

    def entered_by_hand(self) -> Place | None:
        """Behind the plain ``cd`` that follows the only step, a command that unpacks the source."""
        directory = self._entered_next(self.steps[-1])
        for point in self.points if directory else ():
            if point.start.index > self.steps[-1].line.index and point.after.directory == directory:
                return Place(line=point.end, directory=directory)
        return None

    def _wishes(self, last: int) -> Iterator[tuple[shell.Directory | None, int]]:
        """Directories, the best first, each with the line that the place is behind."""
        unpacked = self._trees[0].line.index if self._trees else 0
        patching = [step for step in self.steps if step.applies and step.line.index > unpacked]
        if not any(has_flag(step.options, "c") for step in self._trees):
            yield from self._in_tree(patching[0] if patching else None, unpacked, last)
        elif patching:
            yield _known(self.directory(patching[-1])), last
            yield _known(self.directory(patching[-1])), self.spec.group_end(patching[-1].line).index
            return
        else:
            yield _known(self._entered_next(self._trees[-1])), last
            yield shell.TOP, last
        if not any(step.line.before == self.base for step in self._trees):
            # All unpacking is done in branches: the script goes on wherever they end.
            yield _ANYWHERE, last

    def _in_tree(
        self, first: Step | None, unpacked: int, last: int
    ) -> Iterator[tuple[shell.Directory | None, int]]:
        own = self.directory(first)
        yield shell.TOP, last
        yield _known(own), last
        if first and own != self.directory(self.steps[-1]):
            yield _known(own), first.line.index
        if own != shell.TOP:
            yield shell.TOP, unpacked

    def _entered_next(self, step: Step) -> shell.Directory | None:
        """The directory after the command behind a step, where that stands open: a ``cd``, it may be."""
        for point in self.points:
            blank = point.start.comment or not point.start.text.strip(" \t\r")
            if point.start.index > step.line.index and not blank:
                return point.after.directory if point.open and _is_below_top(point) else shell.TOP
        return shell.TOP

    @cached_property
    def _by_line(self) -> dict[int, _Point]:
        return {point.start.index: point for point in self.points}

    @cached_property
    def _tree_lines(self) -> list[int]:
        return [tree.line.index for tree in self._trees]

    @cached_property
    def _trees(self) -> list[Step]:
        return [step for step in self.steps if step.unpacks]


def _known(directory: shell.Directory | None) -> shell.Directory:
    return _NOWHERE if directory is None else directory


def _is_below_top(point: _Point) -> bool:
    outside = ("..", "%{_builddir}", "%_builddir", "$RPM_BUILD_DIR")
    return point.after.directory is not None and not set(point.after.directory[:1]) & set(outside)


def lay_out(spec: Spec, section: Section, steps: Sequence[Step]) -> Layout:
    """Follow a %prep section through its directories."""
    points = tuple(_walk(spec, section, {step.line.index for step in steps if step.unpacks}))
    return Layout(spec=spec, steps=steps, points=points, base=spec.lines[section.first].after)


@dataclass(frozen=True, kw_only=True)
class _Point:
    """The place behind one command: its first and last line, the shell's state before and after it."""

    start: Line
    end: Line
    before: shell.State
    after: shell.State
    open: bool


@dataclass(kw_only=True)
class _Walker:
    """Follows the shell's state along the branches of the conditionals."""

    state: shell.State = field(default_factory=shell.State)
    entered: list[shell.State] = field(default_factory=list)
    ended: list[list[shell.State]] = field(default_factory=list)

    def conditional(self, spec: Spec, line: Line) -> None:
        if len(line.after) > len(line.before):
            self.entered.append(self.state)
            self.ended.append([])
        elif self.entered and len(line.after) == len(line.before):
            self.ended[-1].append(self.state)
            self.state = self.entered[-1]
        elif self.entered:
            states = [*self.ended.pop(), self.state]
            start = self.entered.pop()
            if not spec.conditionals[line.before[-1][0]].exhaustive:
                states.append(start)
            self.state = shell.merge(states, name=f"line {line.number}")


def _run(spec: Spec, line: Line, before: shell.State, script: str) -> shell.State:
    try:
        return shell.run(before, script)
    except shell.TooDeepError:
        raise spec.refuse(
            f"the script is nested deeper than {shell.MAX_DEPTH}",
            line,
            hint=HOSTILE,
        ) from None


def _walk(spec: Spec, section: Section, unpacking: set[int]) -> Iterator[_Point]:
    lines = spec.section_lines(section)
    walker, base, backslash = _Walker(), lines[0].after, False
    for line in lines[1:]:
        if line.conditional:
            walker.conditional(spec, line)
            before = walker.state
        elif line.inner or line.joined:
            continue
        else:
            before = walker.state
            script = "".join(
                part.text + "\n"
                for part in lines[line.index - section.first : spec.group_end(line).index + 1 - section.first]
                if not part.conditional and not part.inner
            )
            if line.index in unpacking:
                walker.state = shell.after_unpacking(before)
            elif not (line.comment and not before.heredocs):
                walker.state = _run(spec, line, before, script)
            backslash = script.rstrip("\r\n").endswith("\\")
        end = spec.group_end(line)
        yield _Point(
            start=line,
            end=end,
            before=before,
            after=walker.state,
            open=walker.state.plain and end.after == base and not backslash,
        )
