"""The few ways in which backport fails, each with its exit code and its advice.

Everything below the entry point raises one of these; only ``backport.__main__`` prints them and
exits. The exit codes are part of the command's interface and are listed in the README.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class BackportError(Exception):
    """A failure that a person can act on.

    ``message`` says what failed and in which file or package, ``hint`` what to do about it,
    ``command`` is the argv to replay and ``log`` the file that holds the whole story.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        command: tuple[str, ...] | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = command
        self.log = log


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
    """The repository could not be changed; what readers see is what they saw before."""

    exit_code = 8
    kind = "publish"


class HostError(BackportError):
    """The host lacks something that the command needs."""

    exit_code = 9
    kind = "host"


class Interrupted(BackportError):
    """The user or the system ended the run."""

    exit_code = 130
    kind = "interrupted"
