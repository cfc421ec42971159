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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backport.causes import causes_of
from backport.errors import DeadlineError, HostError, ToolError
from backport.roots.limits import NO_WISHES, Bounds, Fence, fenced
from backport.roots.seccomp import without_user_namespaces
from backport.run import Command, Completed, describe_exit, run, running

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


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """What the programs in it see and may do."""

    mounts: tuple[str, ...]
    """The file system in bubblewrap's words, in the order in which the mounts are made."""
    capabilities: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    """What every program's environment has besides `backport.run.BASE_ENVIRONMENT`."""
    network: bool = False
    """Whether the host's network is shared."""
    beside: Daemon | None = None
    """A running program whose network is joined."""
    limits: Bounds = NO_WISHES
    """How much of the host it may use."""

    def with_binds(self, binds: Sequence[Bind]) -> Sandbox:
        """The same sandbox that sees more of the host."""
        return replace(self, mounts=(*self.mounts, *(word for bind in binds for word in bind.words)))

    def run(self, command: Command) -> Completed:
        """Run a program in the sandbox to its end.

        No process of the sandbox is left when this returns or raises. An exit code above 128 is 128
        plus the signal that ended the program. Raises as `backport.run.run` does, and HostError when the
        sandbox cannot be made.
        """
        with _opened_status() as status, fenced(self.limits) as fence, _filter() as seccomp:
            try:
                completed = run(self._around(command, fence, status, seccomp))
            except ToolError as problem:
                if not (status.program_ran or isinstance(problem, DeadlineError)):
                    raise _no_sandbox(problem.message, command.log) from None
                problem.command, problem.sandboxed = command.words, True
                raise
            finally:
                status.wait_until_gone()
            if completed.exit_code > 0 and not status.program_ran:
                raise _no_sandbox(describe_exit(completed.exit_code), command.log)
            reached = fence.reached() if completed.exit_code else ""
            return replace(completed, argv=command.words, reached=reached)

    @contextlib.contextmanager
    def start(self, command: Command) -> Iterator[Daemon]:
        """A program that runs in the sandbox while the block lasts; it and all its children are ended
        when the block is left. It must have a log.

        Raises ToolError when it ends at once or does not start in time, HostError without a sandbox.
        """
        with _opened_status() as status, fenced(self.limits) as fence, _filter() as seccomp:
            assert command.log is not None  # noqa: S101  # as the docstring says
            try:
                with running(self._around(command, fence, status, seccomp)) as process:
                    yield Daemon(pid=_program(process, status, command), log=command.log, process=process)
            finally:
                status.wait_until_gone()

    def _around(self, command: Command, fence: Fence, status: _Status, seccomp: int) -> Command:
        """What runs the command in the sandbox."""
        inside = self.command(
            command.argv, folder=command.cwd or "/", status=status.descriptor, seccomp=seccomp
        )
        return replace(
            command, argv=(*fence.words, *inside), what=command.purpose, cwd=None,
            env={**self.environment, **command.env}, pass_fds=(status.descriptor, seccomp),
        )  # fmt: skip

    def command(
        self,
        argv: Sequence[str | Path],
        *,
        folder: Path | str = "/",
        status: int | None = None,
        seccomp: int | None = None,
    ) -> list[str]:
        """What starts the program in the sandbox; its environment is that of bubblewrap, which tells the
        descriptor ``status`` what becomes of it, and reads a filter of system calls from ``seccomp``."""
        joined = ["nsenter", f"--net=/proc/{self.beside.pid}/ns/net", "--"] if self.beside else []
        shares_network = self.network or self.beside is not None
        return [
            *joined, "bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
            "--unshare-cgroup-try", *([] if shares_network else ["--unshare-net"]), "--hostname", "localhost",
            *self.mounts, "--chdir", str(folder), "--cap-drop", "ALL",
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


def _program(process: subprocess.Popen[bytes], status: _Status, command: Command) -> int:
    """The host's process id of the program: the child of the namespace's first process."""
    deadline = time.monotonic() + command.timeout
    while process.poll() is None and time.monotonic() < deadline:
        if first := status.get("child-pid"):
            with contextlib.suppress(OSError, IndexError):
                return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])
        time.sleep(0.01)
    if process.returncode is not None and not status.program_ran:
        raise _no_sandbox(describe_exit(process.returncode), command.log)
    said = causes_of(command.log)
    raise ToolError(
        f"{Path(command.argv[0]).name} did not start" + (f": {said.summary}" if said.summary else ""),
        command=command.words, sandboxed=True, log=command.log, evidence=said.evidence,
    )  # fmt: skip


def _no_sandbox(reason: str, log: Path | None) -> HostError:
    return HostError(
        f"bubblewrap cannot make a sandbox on this host: {reason}",
        hint="run as root, in a container only where it may make mount, pid and network namespaces",
        log=log,
    )
