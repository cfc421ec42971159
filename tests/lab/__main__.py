"""``python -m tests.lab build|path|serve|clean``: the lab from the command line."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from backport.errors import BackportError
from tests.lab.build import clean, ensure, whole_lab
from tests.lab.layout import LabError
from tests.lab.serve import served


def main(arguments: list[str]) -> int:
    """Run one command; the exit code is 1 when it failed and 2 when it is none."""
    commands = {"build": _build, "path": _path, "serve": _serve, "clean": clean}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"usage: python -m tests.lab {'|'.join(commands)}", file=sys.stderr)
        return 2
    try:
        commands[arguments[0]]()
    except BackportError as problem:
        print(f"lab: {problem.message}", file=sys.stderr)
        for what, told in (("hint", problem.hint), ("log", problem.log)):
            if told:
                print(f"  {what}: {told}", file=sys.stderr)
        return 1
    return 0


def _build() -> None:
    print(ensure(_tell).path)


def _path() -> None:
    lab = whole_lab()
    if lab is None:
        raise LabError("the lab has not been built", hint="make lab")
    print(lab.path)


def _serve() -> None:
    lab = ensure(_tell)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with TemporaryDirectory(prefix="backport-lab-") as folder, served(lab, Path(folder)) as services:
        print(f"koji:         {services.hub_url}\nrepositories: {services.repositories_url}")
        print(f"site file:    {services.site}\nCtrl-C ends it.", flush=True)
        signal.sigwait(ends)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
