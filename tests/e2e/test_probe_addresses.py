"""Ways to a server that has several addresses."""

from __future__ import annotations

import socket
import time

import pytest

from backport.probe import addresses
from backport.probe.addresses import Place
from backport.probe.errors import Deadline, NoAddress, NoAnswer, Unreachable

Found = list[tuple[int, int, int, str, tuple[str, int]]]


def found(*where: str) -> Found:
    families = (socket.AF_INET6 if ":" in address else socket.AF_INET for address in where)
    return [(family, 0, 0, "", (address, 0)) for family, address in zip(families, where, strict=True)]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *where: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found(*where))


@pytest.fixture
def port() -> object:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_dead_address_hides_no_working_one(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """The first one swallows what is sent to it: its listener's queue is full."""
    with socket.socket(socket.AF_INET6) as dead:
        dead.bind(("::1", port))  # bound, and never listens: refused at once
        resolve_to(monkeypatch, "::1", "127.0.0.1")
        place = Place("mail.example.org", port)
        place(Deadline(5)).close()
    assert place.address == "127.0.0.1"


def test_a_silent_address_costs_a_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    begin = addresses._begin

    def silent(family: int, address: str, at: int) -> socket.socket:
        return (
            socket.create_server(("127.0.0.1", 0)) if address == "2001:db8::1" else begin(family, address, at)
        )

    monkeypatch.setattr(addresses, "_begin", silent)
    resolve_to(monkeypatch, "2001:db8::1", "127.0.0.1")
    place, started = Place("mail.example.org", port), time.monotonic()
    place(Deadline(10)).close()
    assert place.address == "127.0.0.1"
    assert 0.2 < time.monotonic() - started < 2


def test_addresses_of_both_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2")
    told = [place.address for place in Place("mail.example.org", 25).each()]
    assert told == ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"]


def test_what_ends_every_attempt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        resolve_to(monkeypatch, "127.0.0.1")
        with pytest.raises(Unreachable, match="Connection refused"):
            Place("mail.example.org", taken.getsockname()[1])(Deadline(5))
    monkeypatch.setattr(addresses, "_begin", lambda *_: socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(NoAnswer, match=r"127\.0\.0\.1:25 does not answer within 0\.1 s"):
        Place("mail.example.org", 25)(Deadline(0.1))


def test_a_resolver_that_does_not_answer_is_no_server_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Found:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(NoAddress, match="Temporary failure"):
        Place("mail.example.org", 25)(Deadline(5))
