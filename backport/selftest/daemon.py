"""A daemon of the target while it runs in a root: its loopback, the files that it has mapped and written.

Its network namespace is entered for as long as it takes to make a socket there, so that it may have any
port. A namespace belongs to a thread (setns(2)): every entry is made in a thread that ends with it. Files
inside a root are read by the host, and programs in the root may have put anything in their place.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from backport.errors import SelfTestError
from backport.printable import printable
from backport.probe.errors import Deadline, Unreachable
from backport.roots.root import Bind, Daemon, Root
from backport.run import Command, describe_exit

ADDRESS = "127.0.0.1"
START_TIMEOUT = 20.0
"""Seconds until a daemon must listen; it usually takes a fiftieth of one."""
LIMIT = 256 * 1024
"""Bytes read of one file: its end."""
_SAID = 20
"""How many lines of what a daemon said are evidence."""

_CLONE_NEWNET = 0x40000000
_LISTENING = "0A"
"""The state of a listening socket in /proc/net/tcp (proc_pid_net(5))."""

Result = TypeVar("Result")


class NetworkNamespace:
    """The network namespace of process ``pid``; stays usable until ``close``."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise SelfTestError(f"process {pid} has no network namespace: {problem.strerror}") from None

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *_exception: object) -> None:
        os.close(self._descriptor)

    def inside(self, action: Callable[[], Result]) -> Result:
        """The result of ``action``, called in the namespace. Raises what it raises, or SelfTestError."""
        results: list[Result] = []
        problems: list[BaseException] = []

        def enter_and_act() -> None:
            try:
                _enter(self._descriptor)
                results.append(action())
            except BaseException as problem:  # noqa: BLE001 - handed on to the caller's thread
                problems.append(problem)

        thread = threading.Thread(target=enter_and_act)
        thread.start()
        thread.join()
        if problems:
            raise problems[0]
        return results[0]

    def connect(self, address: tuple[str, int], deadline: Deadline) -> socket.socket:
        """A TCP connection to ``address`` inside. Raises Unreachable or NoAnswer."""
        connection = self.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        try:
            connection.settimeout(deadline.remaining())
            connection.connect(address)
        except OSError as problem:
            connection.close()
            raise Unreachable(f"cannot connect to {address[0]}:{address[1]}: {problem}") from None
        except BaseException:
            connection.close()
            raise
        return connection

    def ports(self) -> frozenset[int]:
        """The TCP ports that something listens on inside, seen without connecting to any."""
        ports: set[int] = set()
        for name in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                rows = Path(f"/proc/{self._pid}/net/{name}").read_text(encoding="ascii").splitlines()[1:]
                fields = [row.split() for row in rows]
                ports |= {int(one[1].rpartition(":")[2], 16) for one in fields if one[3] == _LISTENING}
        return frozenset(ports)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A daemon that runs in a root, on a loopback of its own."""

    root: Root
    daemon: Daemon
    network: NetworkNamespace
    port: int

    def dial(self, deadline: Deadline) -> socket.socket:
        """A connection to its port. Raises Unreachable or NoAnswer."""
        return self.network.connect((ADDRESS, self.port), deadline)

    def maps(self) -> str:
        """The files that the daemon has mapped (proc_pid_maps(5)), by their names inside its root.

        Raises SelfTestError.
        """
        process = Path(f"/proc/{self.daemon.pid}")
        try:
            text = (process / "maps").read_text(encoding="utf-8", errors="replace")
        except OSError as problem:
            raise SelfTestError(f"the daemon's memory map cannot be read: {problem.strerror}") from None
        return "\n".join(_seen_inside(process / "root", line) for line in text.splitlines())

    def wait_until_listening(self, name: str, *, logs: Sequence[str] = ()) -> None:
        """Until the daemon, called ``name``, listens on its port.

        Raises SelfTestError where it ends before, or does not listen in `START_TIMEOUT` seconds; then its
        log also holds the ends of its own ``logs`` inside the root.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while self.port not in (ports := self.network.ports()):
            if self.daemon.exit_code is not None:
                raise self._not_started(f"{name} did not start: {describe_exit(self.daemon.exit_code)}", logs)
            if time.monotonic() > deadline:
                others = f", but on {', '.join(map(str, sorted(ports)))}" if ports else ""
                problem = f"{name} does not listen on port {self.port} after {START_TIMEOUT:.0f} s{others}"
                raise self._not_started(problem, logs)
            time.sleep(0.005)

    def _not_started(self, message: str, logs: Sequence[str]) -> SelfTestError:
        with self.daemon.log.open("ab") as stream:
            for path in logs:
                with contextlib.suppress(OSError):
                    stream.write(read_inside(self.root, path))
        said = self.daemon.log.read_text("utf-8", "replace").splitlines()
        evidence = [words for line in said if not line.startswith("$ ") and (words := printable(line))]
        last = f": {evidence[-1]}" if evidence else ""
        hint = "mend what the daemon itself says"
        return SelfTestError(f"{message}{last}", hint=hint, log=self.daemon.log, evidence=evidence[-_SAID:])


@contextlib.contextmanager
def started(
    root: Root, command: Command, *, binds: Sequence[Bind], beside: Daemon | None = None
) -> Iterator[tuple[Daemon, NetworkNamespace]]:
    """A daemon that runs while the block lasts, with a loopback of its own or that of another (``beside``).

    Whatever it has started ends with it. Raises ToolError when it ends at once.
    """
    with root.start(command, beside=beside, binds=binds) as daemon, NetworkNamespace(daemon.pid) as network:
        yield daemon, network


def read_inside(root: Root, path: str, *, limit: int = LIMIT) -> bytes:
    """The end of the plain file that is ``path`` inside the root; nothing of any other kind of file.

    Raises OSError where there is none.
    """
    place = root.locate(path)
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        stream.seek(max(0, status.st_size - limit))
        return stream.read(limit)


def _seen_inside(root: Path, line: str) -> str:
    """A line of a memory map with the file's name as the process itself sees it.

    Where backport runs in a chroot of its own, the kernel puts that chroot's path before the name. The
    inode tells which end of the name is the file's name inside.
    """
    fields = line.split(maxsplit=5)
    if len(fields) < 6 or not fields[5].startswith("/"):
        return line
    parts = Path(fields[5]).parts[1:]
    for start in range(len(parts)):
        inside = Path(*parts[start:])
        with contextlib.suppress(OSError):
            if (root / inside).stat().st_ino == int(fields[4]):
                return " ".join((*fields[:5], f"/{inside}"))
    return line


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise SelfTestError(
            f"the test's network namespace cannot be entered: {os.strerror(ctypes.get_errno())}",
            hint="the self-test needs root, with the capability CAP_SYS_ADMIN",
        )
