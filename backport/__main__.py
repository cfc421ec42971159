"""The entry point: the only place that prints errors and exits; everything below raises."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from backport.commands import app
from backport.errors import BackportError, Interrupted

if TYPE_CHECKING:
    from types import FrameType


def main() -> NoReturn:
    """Run the command line and exit with the documented code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupted)
    try:
        app()
    except BackportError as problem:
        _fail(problem)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as problem:
        if _debugging():
            raise
        _fail(
            BackportError(f"unexpected {type(problem).__name__}: {problem}", hint="run it again with --debug")
        )
    sys.exit(0)


def _interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}")


def _debugging() -> bool:
    return bool(os.environ.get("BACKPORT_DEBUG"))


def _fail(problem: BackportError) -> NoReturn:
    import shlex

    from rich.text import Text

    from backport.commands.terminal import errors

    if _debugging():
        import traceback

        traceback.print_exception(problem)
    console = errors()
    console.print(Text("error: ", style="bold red") + Text(problem.message))
    if problem.hint:
        console.print(Text(f"hint: {problem.hint}"))
    if problem.command:
        console.print(Text(f"command: {shlex.join(problem.command)}"))
    if problem.log:
        console.print(Text(f"log: {problem.log}"))
    sys.exit(problem.exit_code)


if __name__ == "__main__":
    main()
