"""Programs shut off from the host by bubblewrap.

A sandbox has mount, pid, ipc, uts and cgroup namespaces of its own and, unless told otherwise, a
network with nothing but a loopback. It sees what is mounted into it, has the capabilities that are
named and can gain no other (bubblewrap sets ``no_new_privs``; no user namespace can be made). How many
processes, how much memory and how many open files it has is limited. Its environment is made from nothing.
Every mount lies in its own namespace, so that there is nothing to clean up on the host however it
ends; it ends with the thread that started it at the latest.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backport.errors import BackportError, HostError
from backport.roots.limits import NO_WISHES, Bounds, fenced
from backport.roots.seccomp import without_user_namespaces
from backport.run import Completed, describe_exit, run, running

_START_DEADLINE = 10.0
_END_DEADLINE = 10.0
_STATUS_LIMIT = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or folder of the host that a sandbox sees at the absolute path ``inside``."""

    host: Path
    inside: str
    writable: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The bind in bubblewrap's words."""
        return "--bind" if self.writable else "--ro-bind", str(self.host), self.inside


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A program that is running in a sandbox, as the host sees it."""

    pid: int
    """The program's process id on the host: ``/proc/PID/maps``, ``/proc/PID/ns/net``."""
    log: Path
    """What it prints."""
    process: subprocess.Popen[bytes] = field(repr=False)
    """The sandbox around it."""

    @property
    def exit_code(self) -> int | None:
        """The program's exit code, 128 and more for the signal that ended it; None while it runs."""
        return self.process.poll()


class _Deadline(BackportError):
    """The program ran past its deadline."""


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What the programs in it see and may do."""

    mounts: tuple[str, ...]
    """The file system in bubblewrap's words, in the order in which the mounts are made."""
    capabilities: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    """Where programs start."""
    network: bool = False
    """Whether the host's network is shared."""
    beside: Daemon | None = None
    """A running program whose network is joined."""
    limits: Bounds = NO_WISHES
    """How much of the host it may use."""

    def with_binds(self, binds: Sequence[Bind]) -> Sandbox:
        """The same sandbox that sees more of the host."""
        return replace(self, mounts=(*self.mounts, *(word for bind in binds for word in bind.words)))

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float,
        error: type[BackportError],
        timeout_error: type[BackportError] | None = None,
        accept: Collection[int] | None = (0,),
        stdin: bytes | None = None,
        log: Path | None = None,
        what: str | None = None,
        hint: str | None = None,
    ) -> Completed:
        """Run a program in the sandbox to its end, with the arguments of `backport.run.run`.

        No process of the sandbox is left when this returns or raises. An exit code above 128 is 128
        plus the signal that ended the program. Raises HostError when the sandbox cannot be made.
        """
        with _opened_status() as status, fenced(self.limits) as fence, _filter() as seccomp:
            try:
                completed = run(
                    [*fence.words, *self.command(argv, status=status.descriptor, seccomp=seccomp)],
                    timeout=timeout, error=error, timeout_error=_Deadline, accept=accept, stdin=stdin,
                    log=log, what=what or f"{Path(argv[0]).name} failed", hint=hint, env=self.environment,
                    pass_fds=(status.descriptor, seccomp),
                )  # fmt: skip
            except HostError:
                raise
            except _Deadline as problem:
                raise _restated(problem, timeout_error or error, argv) from None
            except BackportError as problem:
                if status.program_ran:
                    raise _restated(problem, error, argv) from None
                raise _no_sandbox(problem.message, log) from None
            finally:
                status.wait_until_gone()
            if completed.exit_code > 0 and not status.program_ran:
                raise _no_sandbox(describe_exit(completed.exit_code), log)
            reached = fence.reached() if completed.exit_code else ""
            return replace(completed, argv=tuple(str(word) for word in argv), reached=reached)

    @contextlib.contextmanager
    def start(self, argv: Sequence[str | Path], *, log: Path, error: type[BackportError]) -> Iterator[Daemon]:
        """A program that runs in the sandbox while the block lasts; it and all its children are ended
        when the block is left. Raises ``error`` when it ends at once, HostError without a sandbox."""
        with _opened_status() as status, fenced(self.limits) as fence, _filter() as seccomp:
            command = [*fence.words, *self.command(argv, status=status.descriptor, seccomp=seccomp)]
            passed = (status.descriptor, seccomp)
            try:
                with running(command, env=self.environment, log=log, pass_fds=passed) as process:
                    yield Daemon(pid=_program(process, status, argv, log, error), log=log, process=process)
            finally:
                status.wait_until_gone()

    def command(
        self, argv: Sequence[str | Path], *, status: int | None = None, seccomp: int | None = None
    ) -> list[str]:
        """What starts the program in the sandbox; its environment is that of bubblewrap, which tells the
        descriptor ``status`` what becomes of it, and reads a filter of system calls from ``seccomp``."""
        joined = ["nsenter", f"--net=/proc/{self.beside.pid}/ns/net", "--"] if self.beside else []
        shares_network = self.network or self.beside is not None
        return [
            *joined, "bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup-try", *([] if shares_network else ["--unshare-net"]), "--hostname", "localhost",
            *self.mounts, "--chdir", self.folder, "--cap-drop", "ALL",
            *(word for name in self.capabilities for word in ("--cap-add", f"CAP_{name}")),
            *([] if seccomp is None else ["--seccomp", str(seccomp)]),
            *([] if status is None else ["--json-status-fd", str(status)]),
            "--", *(str(word) for word in argv),
        ]  # fmt: skip


@dataclass(frozen=True)
class _Status:
    """What bubblewrap writes about a sandbox: lines of JSON (bwrap(1), ``--json-status-fd``)."""

    descriptor: int

    def get(self, key: str) -> int | None:
        text = os.pread(self.descriptor, _STATUS_LIMIT, 0).decode("utf-8", "replace")
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                document: Any = json.loads(line)
                if isinstance(document, dict) and isinstance(document.get(key), int):
                    return int(document[key])
        return None

    @property
    def program_ran(self) -> bool:
        """Whether the program itself, not only bubblewrap, has run and ended."""
        return self.get("exit-code") is not None

    def wait_until_gone(self) -> None:
        """Wait for the end of the namespace's first process: the kernel lets it end as the last."""
        if pid := self.get("child-pid"):
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    select.select([descriptor], [], [], _END_DEADLINE)
                finally:
                    os.close(descriptor)


@contextlib.contextmanager
def _opened_status() -> Iterator[_Status]:
    descriptor = os.memfd_create("sandbox-status", os.MFD_CLOEXEC)
    try:
        yield _Status(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _filter() -> Iterator[int]:
    """The descriptor from which bubblewrap reads the filter of system calls."""
    descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, without_user_namespaces(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _program(
    process: subprocess.Popen[bytes],
    status: _Status,
    argv: Sequence[str | Path],
    log: Path,
    error: type[BackportError],
) -> int:
    """The host's process id of the program: the child of the namespace's first process."""
    deadline = time.monotonic() + _START_DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        if first := status.get("child-pid"):
            with contextlib.suppress(OSError, IndexError):
                return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])
        time.sleep(0.01)
    if process.returncode is not None and not status.program_ran:
        raise _no_sandbox(describe_exit(process.returncode), log)
    raise error(
        f"{Path(argv[0]).name} did not start",
        command=tuple(str(word) for word in argv),
        sandboxed=True,
        log=log,
    )


def _restated(
    problem: BackportError, error: type[BackportError], argv: Sequence[str | Path]
) -> BackportError:
    """The problem as ``error``, its command the program's own, without the sandbox around it."""
    command = tuple(str(word) for word in argv)
    return error(
        problem.message, hint=problem.hint, command=command, sandboxed=True, log=problem.log,
        evidence=problem.evidence,
    )  # fmt: skip


def _no_sandbox(reason: str, log: Path | None) -> HostError:
    return HostError(
        f"bubblewrap cannot make a sandbox on this host: {reason}",
        hint="run as root, in a container only where it may make mount, pid and network namespaces",
        log=log,
    )
