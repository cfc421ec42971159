"""A real Exim in a clean root: its files, and the daemon while it runs on a loopback of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backport.dnf import render
from backport.errors import SelfTestError
from backport.files import write_atomically
from backport.root import Bind, Daemon, Root
from backport.run import describe_exit
from backport.selftest.authority import Authority
from backport.selftest.network import NetworkNamespace
from backport.selftest.trouble import Deadline

HOST = "mail.selftest.example"
"""The server's name; ``example`` is reserved for such use (RFC 2606)."""
ADDRESS = "127.0.0.1"
PORT = 25
PROGRAM = "/usr/sbin/exim"
CONFIGURATION = "/etc/exim/exim.conf"
SPOOL = "/var/spool/exim-selftest"

START_TIMEOUT = 20.0
"""Seconds until Exim must listen; it usually takes a fiftieth of one."""

_FILES = "/etc/exim-selftest"
_LOGS = ("paniclog", "mainlog")
_LOG_LIMIT = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class ServerFiles:
    """Exim's configuration, certificate and key in a folder of the host, bound into the root."""

    folder: Path

    @classmethod
    def write(
        cls, folder: Path, *, authority: Authority, contents: Mapping[str, bytes] | None = None
    ) -> ServerFiles:
        """Files of a server that is right in every respect, save where ``contents`` has another one.

        Their names are ``exim.conf``, ``chain.pem``, ``key.pem`` and, for clients, ``root.pem``.
        """
        leaf = authority.issue([HOST])
        configuration = render(
            "exim.conf.j2",
            purpose="for a self-test",
            host=HOST,
            address=ADDRESS,
            port=PORT,
            spool=SPOOL,
            certificate=f"{_FILES}/chain.pem",
            private_key=f"{_FILES}/key.pem",
            ocsp_answer=None,
        )
        files = {
            "exim.conf": configuration.encode(),
            "chain.pem": authority.chain(leaf),
            "key.pem": leaf.key_pem,
            "root.pem": authority.root.pem,
            **(contents or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        for name, content in files.items():
            # Exim reads the key as its own user; it vouches for nothing outside this test.
            write_atomically(folder / name, content, mode=0o644)
        return cls(folder=folder)

    @property
    def trust(self) -> Path:
        """The root certificate that clients trust, on the host."""
        return self.folder / "root.pem"

    @property
    def trust_inside(self) -> str:
        """The same, inside the root."""
        return f"{_FILES}/root.pem"

    @property
    def binds(self) -> tuple[Bind, ...]:
        """What programs in the root must see."""
        return (
            Bind(host=self.folder, inside=_FILES),
            Bind(host=self.folder / "exim.conf", inside=CONFIGURATION),
        )


@dataclass(frozen=True, kw_only=True)
class Exim:
    """A daemon that listens."""

    daemon: Daemon
    network: NetworkNamespace

    def dial(self, deadline: Deadline) -> socket.socket:
        """A connection to its SMTP port. Raises Unreachable or NoAnswer."""
        return self.network.connect((ADDRESS, PORT), deadline)

    def maps(self) -> str:
        """The files that the daemon has mapped (proc_pid_maps(5)). Raises SelfTestError."""
        try:
            return Path(f"/proc/{self.daemon.pid}/maps").read_text(encoding="utf-8", errors="replace")
        except OSError as problem:
            raise SelfTestError(f"the daemon's memory map cannot be read: {problem.strerror}") from None


@contextlib.contextmanager
def running_exim(root: Root, files: ServerFiles, *, log: Path) -> Iterator[Exim]:
    """A fresh daemon that listens while the block lasts; ``log`` gets what it prints.

    Raises SelfTestError when it does not start; then ``log`` also holds Exim's own logs.
    """
    command = [PROGRAM, "-C", CONFIGURATION, "-bdf"]
    with (
        root.start(command, log=log, error=SelfTestError, user="root", binds=files.binds) as daemon,
        NetworkNamespace(daemon.pid) as network,
    ):
        _wait_until_listening(root, daemon, network)
        yield Exim(daemon=daemon, network=network)


def _wait_until_listening(root: Root, daemon: Daemon, network: NetworkNamespace) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not network.listens(PORT):
        if daemon.exit_code is not None:
            raise _not_started(root, daemon, f"Exim did not start: {describe_exit(daemon.exit_code)}")
        if time.monotonic() > deadline:
            raise _not_started(root, daemon, f"Exim does not listen after {START_TIMEOUT:.0f} s")
        time.sleep(0.005)


def _not_started(root: Root, daemon: Daemon, message: str) -> SelfTestError:
    with daemon.log.open("ab") as stream:
        for name in _LOGS:
            with contextlib.suppress(OSError):
                stream.write(_end_of(root.locate(f"{SPOOL}/log/{name}")))
    return SelfTestError(message, hint="Read what Exim itself says.", log=daemon.log)


def _end_of(path: Path) -> bytes:
    """The end of a plain file that programs in the root may have put anything in the place of."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return b""
        stream.seek(max(0, status.st_size - _LOG_LIMIT))
        return stream.read(_LOG_LIMIT)
