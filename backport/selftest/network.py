"""Another process's network namespace, entered for as long as it takes to make a socket or start a
program there: the server under test may then have port 25 of a loopback of its own.

A namespace belongs to a thread (setns(2)), so every entry is made in a thread that ends with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from backport.errors import SelfTestError
from backport.probe.errors import Deadline, Unreachable

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

    def listens(self, port: int) -> bool:
        """Whether something listens on TCP ``port`` inside, seen without connecting to it."""
        with contextlib.suppress(OSError):
            rows = Path(f"/proc/{self._pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
            return any(
                fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
                for fields in map(str.split, rows)
            )
        return False


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise SelfTestError(
            f"the test's network namespace cannot be entered: {os.strerror(ctypes.get_errno())}",
            hint="the self-test needs root, with the capability CAP_SYS_ADMIN",
        )
