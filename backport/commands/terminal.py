"""What a person sees in a terminal: progress on standard error, results on standard output.

Colours and moving lines only where the stream is a terminal; rich respects NO_COLOR and TERM=dumb.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from backport.artifacts import Check, Verdict
from backport.commands.options import is_quiet, is_verbose
from backport.printable import harmless
from backport.progress import Follower
from backport.run import talk

if TYPE_CHECKING:
    from backport.roots.root import Root

_STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.ERROR: "bold red",
    Verdict.WARN: "yellow",
    Verdict.SKIPPED: "dim",
}
HEARTBEAT = 120.0
"""After how many seconds a sign of life is due where no line moves."""
_LOOK, _JOIN = 1.0, 10.0
_LEVELS = ("B", "kB", "MB", "GB")


_ROOM = 40
"""Columns that what was expected and found take at least, beside each other."""
_SHORT = 25
"""Characters of a cell that is kept on one line: dates with their time are not to be broken."""
_WHOLE = {"run", "generation", "package"}
"""Columns of names that one copies: they are never broken."""
_PIPE_WIDTH = 400
"""Columns where no terminal sets a limit: a pipe's reader wants whole words."""


class _Harmless(Console):
    """What is printed quotes what others wrote: none of it acts on the terminal, but rich's own codes do."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else harmless(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


class _Results(_Harmless):
    """Results that nobody reads any more end the command: the entry point knows the exit code."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Notes(_Harmless):
    """Progress that nobody reads any more keeps no work from being done."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


def output() -> Console:
    """The console for results."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return _Results(highlight=False, soft_wrap=True, width=width)


def errors() -> Console:
    """The console for progress and errors."""
    return _Notes(stderr=True, highlight=False, soft_wrap=True)


class TerminalProgress:
    """Progress for people: a moving line on a terminal, one plain line per step elsewhere.

    ``doing`` is the word for what a transfer does. Where no line moves, work that is followed in its log
    gives a sign of life every few minutes; with ``verbose`` the log itself is shown.
    """

    def __init__(
        self, console: Console | None = None, *, doing: str = "downloading", verbose: bool = False
    ) -> None:
        self._console = console or errors()
        self._doing = doing
        self._verbose = verbose or is_verbose()
        self._started = time.monotonic()
        self._live: Progress | None = None
        self._step: TaskID | None = None
        self._transfers: dict[str, TaskID] = {}
        self._announced: set[str] = set()

    def __enter__(self) -> TerminalProgress:
        if self._console.is_terminal and not self._console.is_dumb_terminal and not is_quiet():
            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def note(self, message: str) -> None:
        """Show what is being done now, with the time since the start in seconds."""
        self._print_note(message)
        if self._live:
            if self._step is not None:
                self._live.remove_task(self._step)
            self._step = self._live.add_task(message, total=None)

    def _print_note(self, message: str) -> None:
        if is_quiet():
            return
        self._console.print(Text(f"[{time.monotonic() - self._started:7.1f}] {message}"))

    @contextlib.contextmanager
    def following(self, message: str, log: Path) -> Iterator[None]:
        """Show what is being done and its log at once; while the block lasts, that it still goes on."""
        self.note(f"{message}; log: {log}")
        start = log.stat().st_size if log.is_file() else 0
        follower, done = Follower(log, start=start), threading.Event()
        thread = threading.Thread(target=self._follow, args=(message, follower, done), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(_JOIN)

    def _follow(self, message: str, follower: Follower, done: threading.Event) -> None:
        """Show a log until it is done with; what it held at its end, too."""
        told = began = time.monotonic()
        last = False
        while not last:
            last = done.wait(_LOOK)
            for line in follower.lines():
                if self._verbose:
                    self._console.print(Text(line))
            now = time.monotonic()
            state = f"{message}: {follower.section}" if follower.section else message
            if self._live and self._step is not None:
                with contextlib.suppress(KeyError):
                    self._live.update(self._step, description=state)
            elif not last and now - told >= HEARTBEAT:
                told = now
                self._print_note(f"still {state}, {(now - began) / 60:.0f} min")

    def open_shell(self, root: Root) -> None:
        """Let the person look around in a root; nothing moves on the terminal meanwhile."""
        if self._live:
            self._live.stop()
        self._console.print(Text(f"a shell in {root.path}; leave it by `exit`, and the run ends"))
        try:
            talk(root.entrance())
        finally:
            if self._live:
                self._live.start()

    def transfer(self, what: str, done: int, total: int | None) -> None:
        """Show a transfer's bar; without a terminal, one line when it begins."""
        if is_quiet():
            return
        if self._live is None:
            if what not in self._announced:
                self._announced.add(what)
                self.note(f"{self._doing} {what}" + (f", {_size(total)}" if total else ""))
            return
        if what not in self._transfers:
            self._transfers[what] = self._live.add_task(f"{self._doing} {what}", total=total)
        sizes = f"{_size(done)} of {_size(total)}" if total else _size(done)
        self._live.update(
            self._transfers[what], completed=done, total=total, description=f"{self._doing} {what}, {sizes}"
        )
        if total is not None and done >= total:
            self._live.remove_task(self._transfers.pop(what))


@dataclass(frozen=True)
class ChecksTable:
    """Checks as a table: id, verdict, expected, found; where that is too wide, the last below the first."""

    checks: Sequence[Check]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Segment]:
        """The table that fits the console."""
        if _is_pipe(console, options):
            rows = [(one.id, one.verdict, one.expected, _found(one)) for one in self.checks]
            yield from _tabbed([("check", "verdict", "expected", "found"), *rows])
            return
        longest = max((len(check.id) for check in self.checks), default=0)
        texts = [text for check in self.checks for text in (check.expected, _found(check))]
        # Paths, ids and fingerprints are whole in a column of half the room, or below each other.
        word = max((len(word) for text in texts for word in text.split()), default=0)
        roomy = options.max_width - longest - len(" verdict    ") >= max(_ROOM, 2 * word)
        yield self._beside() if roomy else self._below()

    def _beside(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("check", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("expected", overflow="fold")
        table.add_column("found", overflow="fold")
        for check in self.checks:
            table.add_row(_cell(check.id), _verdict(check), _cell(check.expected), _cell(_found(check)))
        return table

    def _below(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("verdict", no_wrap=True)
        table.add_column("check, what was found, and what was expected", overflow="fold")
        for check in self.checks:
            told = _found(check)
            if check.expected not in ("", told):
                told += f" (expected: {check.expected})"
            table.add_row(_verdict(check), _cell(check.id))
            table.add_row("", Padding(Text(told, overflow="fold"), (0, 0, 0, 2)))
        return table


def checks_table(checks: Sequence[Check]) -> ChecksTable:
    """The checks as a table that fits where it is printed."""
    return ChecksTable(checks)


def _cell(text: str) -> str:
    """A text as it is to be measured and printed."""
    return escape(harmless(text))


def _verdict(check: Check) -> Text:
    return Text(check.verdict, style=_STYLES[check.verdict])


def _found(check: Check) -> str:
    return check.found if check.verdict is not Verdict.SKIPPED else check.advice


@dataclass(frozen=True)
class RowsTable:
    """Plain rows under a header: columns on a terminal, or where they do not fit a line for each cell; words
    between tabs and no padding in a pipe."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Segment]:
        """The rows as they fit the console."""
        if _is_pipe(console, options):
            yield from _tabbed((self.header, *self.rows))
            return
        columns = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        whole = [title in _WHOLE or columns[number] <= _SHORT for number, title in enumerate(self.header)]
        least = [width if kept else _SHORT for width, kept in zip(columns, whole, strict=True)]
        yield self._beside(whole) if sum(least) + 2 * len(least) <= options.max_width else self._below()

    def _beside(self, whole: Sequence[bool]) -> Table:
        table = Table(box=None, pad_edge=False)
        for title, kept in zip(self.header, whole, strict=True):
            table.add_column(title, overflow="fold", no_wrap=kept)
        for row in self.rows:
            table.add_row(*(_cell(cell) for cell in row))
        return table

    def _below(self) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for number, row in enumerate(self.rows):
            if number:
                table.add_row("", "")
            for title, cell in zip(self.header, row, strict=True):
                if cell:
                    table.add_row(title, _cell(cell))
        return table


def rows_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> RowsTable:
    """Plain rows under a header; where there is no room for them, columns of long texts give way first."""
    return RowsTable(header, list(rows))


def _is_pipe(console: Console, options: ConsoleOptions) -> bool:
    return not console.is_terminal and options.max_width >= _PIPE_WIDTH


def _tabbed(rows: Iterable[Sequence[str]]) -> Iterator[Segment]:
    """Rows without padding. rich makes blanks of the tabs in a Text, not of those in a segment."""
    for row in rows:
        cells = (harmless(cell).replace("\t", " ").replace("\n", " ") for cell in row)
        yield Segment("\t".join(cells) + "\n")


def _size(count: int) -> str:
    """A number of bytes for people.

    >>> _size(9_900_000)
    '9.9 MB'
    """
    amount = float(count)
    for level in _LEVELS[:-1]:
        if amount < 1000:
            return f"{amount:.0f} {level}" if level == "B" else f"{amount:.1f} {level}"
        amount /= 1000
    return f"{amount:.1f} {_LEVELS[-1]}"
