"""Entering the network namespace of a program in a sandbox."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backport.errors import SelfTestError
from backport.probe.errors import Deadline, Unreachable
from backport.roots.sandbox import Daemon, Sandbox
from backport.run import Command
from backport.selftest.daemon import NetworkNamespace

PORT = 25
SERVER = f"""
import socket
listener = socket.create_server(("127.0.0.1", {PORT}))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"220 inside\\r\\n")
    connection.close()
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    sandbox = Sandbox(
        mounts=("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"), capabilities=("NET_BIND_SERVICE",)
    )
    python = os.path.realpath(sys.executable)
    with sandbox.start(Command([python, "-I", "-c", SERVER], log=tmp_path / "log", timeout=10)) as running:
        yield running


def wait_for(network: NetworkNamespace) -> None:
    deadline = time.monotonic() + 20
    while PORT not in network.ports():
        assert time.monotonic() < deadline, "the server did not come up"
        time.sleep(0.01)


def test_a_privileged_port_inside_is_reached_without_leaving_home(daemon: Daemon) -> None:
    home = Path("/proc/thread-self/ns/net").readlink()
    with NetworkNamespace(daemon.pid) as network:
        wait_for(network)
        with network.connect(("127.0.0.1", PORT), Deadline(10)) as connection:
            assert connection.recv(100) == b"220 inside\r\n"
        assert network.inside(lambda: Path("/proc/thread-self/ns/net").readlink()) != home
        assert network.inside(lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]
    assert Path("/proc/thread-self/ns/net").readlink() == home


def test_a_port_where_nobody_listens_is_unreachable(daemon: Daemon) -> None:
    with NetworkNamespace(daemon.pid) as network:
        wait_for(network)
        assert 26 not in network.ports()
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1:26"):
            network.connect(("127.0.0.1", 26), Deadline(10))


def test_what_goes_wrong_inside_is_raised_outside(daemon: Daemon) -> None:
    with NetworkNamespace(daemon.pid) as network, pytest.raises(ZeroDivisionError):
        network.inside(lambda: 1 // 0)


def test_a_process_that_is_gone_has_no_namespace() -> None:
    with pytest.raises(SelfTestError, match="no network namespace"):
        NetworkNamespace(2**22 + 1)
