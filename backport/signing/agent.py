"""gpg's agent of a GNUPGHOME, shared by all who use it at the same time, and ended by the last of them.

An agent that was there before, perhaps with a passphrase preset, is left alone. Who uses it holds a shared
lock (flock(2)), which the kernel frees when its holder dies; an agent that was started here is known by its
process id, and ended by whoever finds that nobody else holds the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Iterator
from pathlib import Path

from backport.errors import SignError, as_kind
from backport.files import opened_regular
from backport.run import Command, Completed, run

LOCK = ".backport-agent"
"""In the GNUPGHOME: what users of the agent lock, with the process id of an agent that was started here."""
_TIMEOUT = 60.0
_END_DEADLINE = 5.0


@contextlib.contextmanager
def shared_agent(home: Path) -> Iterator[None]:
    """Gpg's agent of ``home`` for the block, started where there is none. Raises SignError."""
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(opened_regular(home / LOCK, os.O_RDWR | os.O_CREAT))
        except OSError as problem:
            raise SignError(
                f"{home / LOCK}: {problem.strerror}", hint="gpg has to be able to write to its GNUPGHOME"
            ) from None
        fcntl.flock(lock, fcntl.LOCK_SH)
        if _pid_of_agent(home, start=False) is None:
            _begin(home, lock.fileno())
        try:
            yield
        finally:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _end(home, lock.fileno())


def end_unused_agent(home: Path) -> bool:
    """End an agent that an earlier process started and left, unless it is in use; whether there was one."""
    if not (home / LOCK).is_file():
        return False
    with opened_regular(home / LOCK, os.O_RDWR) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return _end(home, lock.fileno())


def _begin(home: Path, lock: int) -> None:
    """Start the agent and note whose it is; of several who do so at once gpg lets one succeed."""
    pid = _pid_of_agent(home, start=True)
    if pid is None:
        raise SignError(f"gpg's agent cannot be started in {home}", hint="is gpg-agent installed?")
    text = f"{pid}\n".encode()
    os.pwrite(lock, text, 0)
    os.ftruncate(lock, len(text))


def _end(home: Path, lock: int) -> bool:
    """End the agent if it is the one that was started here, and wait until it is gone."""
    noted = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
    pid = _pid_of_agent(home, start=False)
    os.ftruncate(lock, 0)
    if pid is None or str(pid) != noted:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        _run(home, "gpgconf", "--kill", "all")
        select.select([descriptor], [], [], _END_DEADLINE)
    finally:
        os.close(descriptor)
    return True


def _pid_of_agent(home: Path, *, start: bool) -> int | None:
    """The process id of the agent that answers, as gpg's protocol gives it (Assuan: ``D`` and data)."""
    options = () if start else ("--no-autostart",)
    asked = _run(home, "gpg-connect-agent", *options, "GETINFO pid", "/bye")
    for line in asked.text.splitlines():
        match line.split():
            case ["D", pid] if pid.isdecimal():
                return int(pid)
    return None


@as_kind(SignError)
def _run(home: Path, *argv: str) -> Completed:
    return run(Command(argv, timeout=_TIMEOUT, env={"GNUPGHOME": str(home)}, accept=None))
