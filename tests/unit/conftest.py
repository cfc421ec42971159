"""Unit tests start no program, open no socket and need no root: a test that tries fails."""

from __future__ import annotations

import socket
import subprocess
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True)
def _closed_world(monkeypatch: pytest.MonkeyPatch) -> None:
    def barred(*_arguments: object, **_options: object) -> NoReturn:
        raise AssertionError("a unit test must start no program and open no connection")

    monkeypatch.setattr(subprocess.Popen, "__init__", barred)
    monkeypatch.setattr(socket.socket, "connect", barred)
