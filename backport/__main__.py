"""The entry point: the only place that prints errors and exits; everything below raises."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from backport.bindings import LIBRARIES, PACKAGES, missing
from backport.commands import app
from backport.commands.options import debugging
from backport.errors import BackportError, Ending, HostError, Interrupted, explained, from_os
from backport.printable import harmless

if TYPE_CHECKING:
    from types import FrameType


NOBODY_READS = 141
"""Exit code where standard output was closed too early: a shell's for SIGPIPE, 128 + 13."""


def main() -> NoReturn:
    """Run the command line and exit with the documented code."""
    # What is made is never for others to change.
    os.umask(os.umask(0) | 0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    stdout = sys.stdout
    code = _run()
    try:
        stdout.flush()
    except OSError as problem:
        problem.filename = problem.filename or "standard output"
        broken = isinstance(problem, BrokenPipeError)
        code = NOBODY_READS if broken else code or _told(from_os(problem).of(HostError))
        # What is left in the stream's buffer has to go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
    sys.exit(code)


def _run() -> int:
    stdout = sys.stdout
    try:
        app()
    except SystemExit as ended:
        # typer takes a broken pipe for an error like others, and puts a stream of its own in its place.
        return NOBODY_READS if sys.stdout is not stdout else int(ended.code or 0)
    except Ending as problem:
        return _told(problem)
    except OSError as problem:
        return _told(from_os(problem).of(HostError))
    except ModuleNotFoundError as problem:
        return _told(_missing(problem))
    except Exception as problem:
        what = f"unexpected {type(problem).__name__}: {problem}"
        again = shlex.join(["backport", "--debug", *sys.argv[1:]])
        return _told(BackportError(what, hint=f"tell backport's developers what this prints: {again}"))
    return 0


def _missing(problem: ModuleNotFoundError) -> BackportError:
    """What the host's packages bring, or an extra of our own; anything else is an error of ours."""
    module = (problem.name or "").partition(".")[0]
    if module not in (*PACKAGES, *LIBRARIES):
        return BackportError(f"unexpected ModuleNotFoundError: {problem}", hint="install backport again")
    return missing(module)


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def _told(problem: Ending) -> int:
    """Print why a command ended; its exit code."""
    from rich.text import Text

    from backport.commands.terminal import errors

    if debugging():
        import traceback

        sys.stderr.write(harmless(traceback.format_exc()))
    console = errors()
    console.print(Text("error: ", style="bold red") + Text(problem.message))
    for line in explained(
        hint=problem.hint, command=problem.command, sandboxed=problem.sandboxed, log=problem.log,
        evidence=problem.evidence,
    ):  # fmt: skip
        console.print(Text(line))
    return problem.exit_code


if __name__ == "__main__":
    main()
