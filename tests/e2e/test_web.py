"""Every getter of files over HTTP, against servers that lie, stall, flood and lead astray."""

from __future__ import annotations

import gzip
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backport.errors import FetchError, ToolError
from backport.progress import Silent
from backport.roots.root import _repomd_digest
from backport.site import Koji
from backport.sources.download import download
from backport.sources.koji.hub import Hub
from backport.web import Limits, get

Send = Callable[[bytes], object]
Answer = Callable[[str, Send], object]
PATIENCE = 5.0


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every request as told, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            path = self.rfile.readline().split()[1].decode()
            while self.rfile.readline().strip():
                pass
            asked.append(path)
            try:
                answer(path, self.connection.sendall)
            except OSError:
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()


def whole(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode() + body


def say(body: bytes, status: str = "200 OK", *headers: str) -> Answer:
    return lambda _path, send: send(whole(body, status, *headers))


def flood(_path: str, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<?xml")
    for _ in range(400):
        send(bytes(1024 * 1024))


def trickle_head(_path: str, send: Send) -> None:
    for number in range(600):
        send(b"HTTP/1.1 200 OK\r\n" if number == 0 else f"X-{number}: y\r\n".encode())
        time.sleep(0.05)


def trickle_body(_path: str, send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(600):
        send(b"x")
        time.sleep(0.05)


def take(url: str, *, size: int = 1024 * 1024, timeout: float = 1.0, retries: int = 0) -> bytes:
    limits = Limits(timeout=timeout, retries=retries, total_timeout=1.0, size=size)
    return get(url, limits=limits, hint="check the mirror")


def test_what_is_there_is_got() -> None:
    with serving(say(b"content")) as (url, asked):
        assert take(f"{url}/x") == b"content"
    assert asked == ["/x"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (flood, "more than 1048576 bytes"),
        (lambda _path, send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"), "99999999 bytes"),
        (trickle_head, "no answer within 1 s|not whole after 1 s"),
        (trickle_body, "not whole after 1 s"),
        (lambda _path, send: send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), "the connection"),
        (lambda _path, send: send(b"\x00\xff" * 1000), "connection failed"),
        (lambda _path, send: None, "connection failed"),
        (say(b"no", "404 Not Found"), r"not on the server: HTTP status 404 \(Not Found\)"),
        (say(b"no", "403 Forbidden"), r"refused with HTTP status 403 \(Forbidden\)"),
        (say(b"no", "599 \x1b[31mred"), "HTTP status 599"),
        (say(b"<!DOCTYPE html><title>Log in</title>"), "an HTML page"),
        (say(b"<?xml version='1.0'?>\n<html xmlns='x'>"), "an HTML page"),
        (say(gzip.compress(bytes(10**7)), "200 OK", "Content-Encoding: gzip"), "compressed"),
        (say(b"", "302 Found", "Location: /again"), "more than 5 redirections"),
        (say(b"", "302 Found"), "HTTP status 302"),
        (say(b"", "302 Found", "Location: file:///etc/shadow"), "which is neither http nor https"),
        (say(b"", "302 Found", "Location: ftp://127.0.0.1/x"), "which is neither http nor https"),
        (say(b"", "302 Found", "Location: http://[::1"), "no usable address"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_right_is_refused_in_time(answer: Answer, reason: str) -> None:
    started = time.monotonic()
    with serving(answer) as (url, _asked), pytest.raises(ToolError, match=reason) as refused:
        take(f"{url}/x")
    assert time.monotonic() - started < PATIENCE
    assert refused.value.message.isprintable()
    assert refused.value.hint


def test_the_body_of_a_redirection_is_not_read() -> None:
    def lead(path: str, send: Send) -> None:
        if path == "/there":
            send(whole(b"content"))
            return
        send(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n")
        for _ in range(100):
            send(bytes(1024))
            time.sleep(0.05)

    with serving(lead) as (url, asked):
        assert take(f"{url}/x") == b"content"
    assert asked == ["/x", "/there"]


@pytest.mark.parametrize(
    ("status", "requests"), [("503 Busy", 3), ("429 Slow", 3), ("404 No", 1), ("501 No", 1)]
)
def test_only_what_may_pass_is_asked_again(status: str, requests: int) -> None:
    limits = Limits(timeout=5, retries=2, total_timeout=60, size=100)
    with serving(say(b"", status)) as (url, asked), pytest.raises(ToolError):
        get(url, limits=limits, hint="wait")
    assert len(asked) == requests


def test_metadata_of_a_remote_repository_has_a_cap() -> None:
    with serving(flood) as (url, asked), pytest.raises(ToolError, match="more than") as refused:
        _repomd_digest(url)
    assert asked == ["/repodata/repomd.xml"]
    assert "repomd.xml" in refused.value.message


def hub_of(url: str, **settings: float) -> Koji:
    return Koji.model_validate({"hub": url, "timeout": 2.0, "retries": 2, **settings})


@pytest.mark.parametrize(
    ("answer", "reason", "requests"),
    [
        (say(b"no", "404 Not Found"), r"HTTP status 404 \(Not Found\)", 1),
        (say(b"<html>Log in</html>"), "an HTML page", 1),
        (say(b"<html>Log in</html>", "403 Forbidden"), r"HTTP status 403 \(Forbidden\)", 1),
        (say(b"", "301 Moved", "Location: https://hub.example/x"), "leads to https://hub.example/x", 1),
        (say(gzip.compress(bytes(3 * 10**8)), "200 OK", "Content-Encoding: gzip"), "compressed", 1),
        (say(b"no", "502 Bad Gateway"), r"HTTP status 502 \(Bad Gateway\)", 3),
        (trickle_head, "no answer within 2 s", 3),
    ],
    ids=str,
)  # fmt: skip
def test_a_hub_is_asked_again_only_where_that_may_help(answer: Answer, reason: str, requests: int) -> None:
    with serving(answer) as (url, asked), pytest.raises(FetchError, match=reason) as refused:
        Hub(hub_of(url)).call_all([("getBuild", ("a-1-1",), {})])
    assert len(asked) == requests
    assert refused.value.hint


def test_a_page_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    limits = Limits(timeout=5, retries=2, total_timeout=60, size=10**6)
    with (
        serving(say(b"<html>Log in</html>")) as (url, asked),
        pytest.raises(FetchError, match="an HTML page"),
    ):
        download(f"{url}/x.src.rpm", tmp_path / "x.src.rpm", limits=limits, progress=Silent())
    assert len(asked) == 1
    assert not list(tmp_path.iterdir())
