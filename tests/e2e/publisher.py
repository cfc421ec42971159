"""Publishes in a process of its own that can be killed before any of its steps, or be given a bad disk.

``python -m tests.e2e.publisher ARGUMENTS [STEP]``: ARGUMENTS is a pickled `Arguments`; with STEP the
process kills itself before its STEPth change of the file system. Exit code 0: published; 8: refused.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport.artifacts import TestedRpms
from backport.errors import BackportError
from backport.repository.place import Place
from backport.repository.publish import Run, publish
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny

_CHANGES = {
    "os.link", "os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir", "os.chmod", "os.truncate",
    "shutil.copyfile",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is published, and where."""

    tested: TestedRpms
    target: Target
    repository: Path
    signing: Signing

    def publish(self) -> None:
        """Publish here and now."""
        place = Place(
            repository=self.repository, target=self.target, signing=self.signing,
            base_url="http://repo.example.org",
        )  # fmt: skip
        publish(Run(gated=tiny.gated(self.tested)), place, prove=tiny.proven)


def publish_until(arguments: Arguments, step: int) -> int:
    """Publish in a child that is killed before its change number ``step``; its wait status."""
    return run_until(arguments.publish, arguments.repository, step)


def run_until(action: Callable[[], object], repository: Path, step: int) -> int:
    """Do something in a child that is killed before its change number ``step``; its wait status.

    Python's audit events (PEP 578) come before the change that they tell of.
    """
    child = os.fork()
    if child == 0:
        try:
            sys.addaudithook(_Killer(repository, step))
            action()
        except BaseException:  # noqa: BLE001  # a child must never go on as a second parent
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


class _Killer:
    def __init__(self, folder: Path, step: int) -> None:
        self.folder = str(folder)
        self.left = step

    def __call__(self, event: str, values: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)
        if event in _CHANGES or (writes and str(values[0]).startswith(self.folder)):
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    """Publish once, and tell a refusal by the exit code and on standard output."""
    arguments: Arguments = pickle.loads(Path(sys.argv[1]).read_bytes())
    try:
        arguments.publish()
    except BackportError as problem:
        print(f"{problem.message}\n{problem.hint}")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
