"""The few ways in which backport fails, each with its exit code and its advice.

Everything below the entry point raises one of these; only ``backport.__main__`` prints them and
exits. The exit codes are part of the command's interface and are listed in the README.
"""

from __future__ import annotations

import contextlib
import errno
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from backport.printable import harmless

SHOWN_EVIDENCE = 10
"""How many lines of evidence a terminal shows; a report has all."""


BUSY = 75
"""The exit code where another process holds what is needed (``EX_TEMPFAIL`` of sysexits.h)."""


class Ending(BaseException):
    """Why a command ends before its time, told so that a person can act on it.

    ``message`` says what failed and in which file or package, ``hint`` what to do about it,
    ``command`` is the argv that failed, ``sandboxed`` whether it means something only in a sandbox that was
    made for it, ``log`` the file that holds the whole story, and ``evidence`` its telling lines.
    """

    exit_code: int = 1
    kind: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        command: tuple[str, ...] | None = None,
        sandboxed: bool = False,
        log: Path | None = None,
        evidence: Sequence[str] = (),
    ) -> None:
        self.message = harmless(message)
        super().__init__(self.message)
        self.hint = hint if hint is None else harmless(hint)
        self.command = command
        self.sandboxed = sandboxed
        self.log = log
        self.evidence = tuple(map(harmless, evidence))


class BackportError(Ending, Exception):
    """A failure: what was to be done could not be done, or must not be."""

    def of(
        self, kind: type[BackportError], *, message: str | None = None, hint: str | None = None
    ) -> BackportError:
        """The same failure as one of another kind, told in other words where these are given."""
        told = kind(
            message or self.message, hint=hint or self.hint, command=self.command, sandboxed=self.sandboxed,
            log=self.log, evidence=self.evidence,
        )  # fmt: skip
        if self.exit_code == BUSY:
            told.exit_code = BUSY
        return told


class ToolError(BackportError):
    """Something that stages use has failed: a program, a lock, a file, a server.

    What that is to the stage is said by `as_kind`, once, where the stage is known.
    """

    kind = "tool"


class BusyError(ToolError):
    """Another process holds what is needed."""

    exit_code = BUSY


class DeadlineError(ToolError):
    """It was ended because its deadline had passed."""


class UsageError(BackportError):
    """The command line, the recipe, the target or the site file is wrong."""

    exit_code = 2
    kind = "usage"


class FetchError(BackportError):
    """A source package could not be had, or is not the one that was asked for."""

    exit_code = 3
    kind = "fetch"


class PatchError(BackportError):
    """A source package could not be unpacked or edited without guessing."""

    exit_code = 4
    kind = "patch"


class BuildError(BackportError):
    """The package itself failed to build; the same inputs would fail again."""

    exit_code = 5
    kind = "build"


class BuildTimeout(BuildError):
    """The build ran past its deadline and was ended."""

    kind = "build timeout"


class BuildRootError(BuildError):
    """The build root could not be made or changed; the package is not to blame."""

    kind = "build root"


class BuildRootLocked(BuildRootError):
    """Another process holds the build root."""

    exit_code = BUSY
    kind = "build root locked"


class SignError(BackportError):
    """A key is missing, expired or locked, or a signature does not verify."""

    exit_code = 6
    kind = "sign"


class SelfTestError(BackportError):
    """The self-test could not run, or a check of it failed."""

    exit_code = 7
    kind = "self-test"


class PublishError(BackportError):
    """The repository could not be changed; what clients see is what they saw before."""

    exit_code = 8
    kind = "publish"


class HostError(BackportError):
    """The host lacks something that the command needs."""

    exit_code = 9
    kind = "host"


class Interrupted(Ending):
    """The user or the system ended the run.

    Like KeyboardInterrupt it is no Exception: whoever copes with failures, here or in a library, must not
    take the wish to end for one of them and go on.
    """

    exit_code = 130
    kind = "interrupted"


_HINTS = {
    errno.ENOSPC: "make room on its file system",
    errno.EDQUOT: "make room within the quota",
    errno.EACCES: "are its owner and mode right, and is this root?",
    errno.EPERM: "are its owner and mode right, and is this root?",
    errno.EROFS: "its file system is mounted read-only: name another folder in the site file",
    errno.EEXIST: "a file is where a folder has to be: name another folder in the site file",
    errno.ENOTDIR: "a file is where a folder has to be: name another folder in the site file",
}


@contextlib.contextmanager
def as_kind(kind: type[BackportError], *, late: type[BackportError] | None = None) -> Iterator[None]:
    """Whatever tool fails in the block, its failure is of this kind; past its deadline of the kind ``late``.

    A function is decorated with it where all that it does belongs to one kind.
    """
    try:
        yield
    except ToolError as problem:
        raise problem.of(late if late and isinstance(problem, DeadlineError) else kind) from problem


def from_os(problem: OSError) -> ToolError:
    """What the operating system refused, with the path and the system's own words.

    >>> from_os(OSError(28, "No space left on device", "/srv/x")).message
    '/srv/x: No space left on device'
    """
    places = [str(name) for name in (problem.filename, problem.filename2) if name is not None]
    reason = problem.strerror or str(problem) or type(problem).__name__
    return ToolError(
        ": ".join((*([" → ".join(places)] if places else []), reason)),
        hint=_HINTS.get(problem.errno or 0, "see to that, then run the same command again"),
    )


def explained(
    *,
    hint: str | None,
    replay: Sequence[str] | None = None,
    command: Sequence[str] | None = None,
    sandboxed: bool = False,
    log: Path | str | None = None,
    evidence: Sequence[str] = (),
) -> Iterator[str]:
    """What is told below an error's message, line by line; ``replay`` is the argv that does it all again.

    Of the evidence the first `SHOWN_EVIDENCE` lines are told.

    >>> list(explained(hint="wait", command=["dnf", "update"], sandboxed=True))
    ['hint: wait', "failed inside the root's sandbox: dnf update"]
    """
    lines = [f"  | {line}" for line in evidence[:SHOWN_EVIDENCE]]
    lines += [f"hint: {hint}"] if hint else []
    lines += [f"command: {shlex.join(replay)}"] if replay else []
    if command:
        where = " inside the root's sandbox" if sandboxed else ""
        lines.append(f"failed{where}: {shlex.join(command)}")
    lines += [f"log: {log}"] if log else []
    yield from map(harmless, lines)
