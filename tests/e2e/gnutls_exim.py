"""Debian's GnuTLS Exim on a loopback port, in any state that its configuration can bring it into."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backport.probe.addresses import Place
from backport.roots.sandbox import Bind, Sandbox
from backport.run import Command
from tests.lab.gnutls_exim import UID

HOST = "mail.selftest.example"
MODERN = "NORMAL:-VERS-TLS1.0:-VERS-TLS1.1"
"""GnuTLS's default without the versions that RFC 8996 forbids."""

_CAPABILITIES = ("SETUID", "SETGID", "CHOWN", "DAC_OVERRIDE", "FOWNER", "NET_BIND_SERVICE")
FILES = "/etc/exim4/test"
"""Where a server sees its files."""
_SPOOL = "/var/spool/exim4"
_DEFAULTS: Mapping[str, str] = {
    "primary_hostname": HOST,
    "local_interfaces": "<; 127.0.0.1",
    "spool_directory": _SPOOL,
    "log_file_path": f"{_SPOOL}/%slog",
    "pid_file_path": f"{_SPOOL}/exim.pid",
    "host_lookup": "",
    "rfc1413_hosts": "",
    "keep_environment": "",
    "tls_advertise_hosts": "*",
    "tls_certificate": f"{FILES}/chain.pem",
    "tls_privatekey": f"{FILES}/key.pem",
    "tls_require_ciphers": MODERN,
    # Exim counts a connection until its daemon has taken notice of the process's end.
    "smtp_accept_max": "0",
    "acl_smtp_connect": "accept",
    "acl_smtp_rcpt": "deny",
}


@dataclass(frozen=True, kw_only=True)
class State:
    """What a server is given: its files, and options beside those of a correct server."""

    chain: bytes
    key: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    acls: str = ""


@contextlib.contextmanager
def running(tree: Path, folder: Path, state: State, *, direct_tls: bool = False) -> Iterator[Place]:
    """Run it while the block lasts; gives the way to connect."""
    place = Place("127.0.0.1", _free_port())
    files = {"chain.pem": state.chain, "key.pem": state.key, **state.files}
    ports = {
        "daemon_smtp_ports": str(place.port),
        **({"tls_on_connect_ports": str(place.port)} if direct_tls else {}),
    }
    files["exim.conf"] = _configuration({**_DEFAULTS, **ports, **state.options}, state.acls).encode()
    spool, given = folder / "spool", folder / "files"
    for made in (spool, given):
        made.mkdir(parents=True)
    os.chown(spool, UID, UID)
    for name, content in files.items():
        (given / name).write_bytes(content)
    sandbox = Sandbox(
        mounts=(
            "--ro-bind", str(tree), "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
            "--tmpfs", "/etc/exim4", "--tmpfs", "/var/spool",
        ),
        capabilities=_CAPABILITIES,
        network=True,
    ).with_binds(
        (Bind(host=given, inside=FILES), Bind(host=spool, inside=_SPOOL, writable=True))
    )  # fmt: skip
    command = ["/usr/sbin/exim4", "-C", f"{FILES}/exim.conf", "-bdf"]
    log = folder / "exim.log"
    with sandbox.start(Command(command, log=log, timeout=10)) as daemon:
        deadline = time.monotonic() + 20
        while not _listens(place.port):
            assert daemon.exit_code is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        yield place


def _configuration(options: Mapping[str, str], acls: str) -> str:
    return "\n".join([*(f"{name} = {value}" for name, value in options.items()), "begin acl", acls, ""])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _listens(port: int) -> bool:
    """Whether something listens on the port, seen without connecting to it."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port for row in rows)
