"""The place in a %prep section where one more patch is applied: last, always, and in the right directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from backport.spec import shell
from backport.spec.lines import Line, Section, Spec
from backport.spec.steps import Step


def find_place(spec: Spec, section: Section, steps: Sequence[Step]) -> Line:
    """The line behind which a patch is applied after every step, whatever the conditionals say.

    The directory there is the one in which the spec applies its own first patch. Without patches, or
    where the script has left that directory for good, it is the one in which %setup ends. Raises
    :class:`backport.errors.PatchError` where no such place is.
    """
    last = spec.group_end(steps[-1].line).index
    unpacked = next((step.line.index for step in steps if step.unpacks), 0)
    first = next((step.line.index for step in steps if step.applies and step.line.index > unpacked), None)
    points = list(_walk(spec, section, {step.line.index for step in steps if step.unpacks}))
    places = {point.start.index: point.before.directory for point in points}
    own = places.get(first, shell.TOP) if first is not None else shell.TOP
    tries: list[tuple[shell.Directory | None, int]] = [(own, last), (shell.TOP, last)]
    if own != places.get(steps[-1].line.index, shell.TOP):
        tries.append((own, first or last))
    if own != shell.TOP:
        tries.append((shell.TOP, unpacked))
    for directory, behind in [*tries, *_after_alternatives(spec, section, steps, last)]:
        for point in points:
            if point.open and point.end.index >= behind and directory in (None, point.after.directory):
                return point.end
    raise spec.refuse(
        "behind the last patch, %prep has no place outside of shell blocks and conditionals"
        " whose directory is known",
        spec.lines[last],
        hint="Apply the patch with a spec edit in the recipe.",
    )


def _after_alternatives(
    spec: Spec, section: Section, steps: Sequence[Step], last: int
) -> list[tuple[shell.Directory | None, int]]:
    """Where all unpacking is done in branches, the script goes on wherever they end."""
    base = spec.lines[section.first].after
    return [] if any(step.unpacks and step.line.before == base for step in steps) else [(None, last)]


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
                walker.state = shell.run(before, script)
            backslash = script.rstrip("\r\n").endswith("\\")
        end = spec.group_end(line)
        yield _Point(
            start=line,
            end=end,
            before=before,
            after=walker.state,
            open=walker.state.plain and end.after == base and not backslash,
        )
