"""Main logs of Exim, read for the TLS that each peer still uses: see `tally` for what is counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backport.errors import UsageError
from backport.maillog.files import in_order, line_blocks
from backport.maillog.lines import SYSLOG, recognise
from backport.maillog.tally import Tally
from backport.progress import Progress

_PATIENCE = 200_000
"""Lines without one of Exim's after which a file is given up."""


def read(names: Sequence[str], tally: Tally, *, progress: Progress) -> list[UsageError]:
    """Count the lines of files (``-``: standard input) in constant memory.

    Gives what is wrong with files that cannot be read, or not to their end, or in which no line is one of
    Exim's main log. Raises it where nothing was counted of any file.
    """
    problems = []
    for name in in_order(names):
        try:
            _read_one(name, tally, progress)
        except UsageError as problem:
            problems.append(problem)
    if len(problems) == len(names) and not tally.has_counted:
        raise problems[0]
    return problems


def _read_one(name: str, tally: Tally, progress: Progress) -> None:
    form: int | None = None
    tally.begin(name)
    strange = 0
    for lines in line_blocks(name, progress):
        form = form or _form(lines)
        if form is None:
            strange += sum(map(bool, lines))
            if strange > _PATIENCE:
                break
        tally.add(lines, syslog=form == SYSLOG)
    if form is None and strange:
        raise UsageError(
            f"{name} is not an Exim main log: no line of it begins as Exim's do",
            hint="Give the file that Exim's log_file_path names, such as /var/log/exim/main.log.",
        )


def _form(lines: Iterable[bytes]) -> int | None:
    return next(filter(None, map(recognise, lines)), None)
