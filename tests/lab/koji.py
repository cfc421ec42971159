"""A stand-in for Koji on loopback: hub and file server, with faults to inject.

``python -m tests.lab.koji FOLDER --port N`` serves a folder in Koji's layout until it is ended.
"""

from __future__ import annotations

import argparse
import email.utils
import re
import socket
import threading
import time
import xmlrpc.client
import zlib
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from xml.parsers.expat import ExpatError

import koji
from koji import xmlrpcplus

from tests.lab.koji_database import Database
from tests.lab.koji_hub import VERSION, Hub, HubFault

CHUNK = 64 * 1024
MAX_REQUEST = 16 * 1024 * 1024


@dataclass(kw_only=True)
class HubTrouble:
    """What goes wrong with the hub; tests change it while the server runs."""

    unavailable: int = 0
    """How many of the next requests are answered with 503."""
    offline: int = 0
    """How many of the next requests are answered with fault 1014, as a hub without its database does."""
    delay: float = 0.0
    """Seconds before any answer."""
    body: bytes | None = None
    """What every request is answered with, as if it were an answer."""
    endless: bool = False
    """Whether the answer never ends."""
    answers: dict[str, Any] = field(default_factory=dict)
    """Results by method instead of the right ones."""


@dataclass(kw_only=True)
class FileTrouble:
    """What goes wrong with one request for a file."""

    status: int | None = None
    """Answered instead of the file."""
    cut: int | None = None
    """How many bytes of the body are sent before the connection is closed."""
    content: bytes | None = None
    """Served as the file."""
    endless: bool = False
    """Whether the body never ends, without a stated length."""
    delay: float = 0.0
    """Seconds between the pieces of the body."""
    no_ranges: bool = False
    """Whether a wish for a part is ignored."""


@dataclass(kw_only=True)
class FileRequest:
    """One request that the file server had."""

    method: str
    path: str
    range: str | None
    status: int = 0


class KojiServer:
    """Hub and file server over one folder, for as long as the context lasts."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.files = folder.resolve()
        self.calls: list[str] = []
        """The method of every HTTP request to the hub; ``multiCall`` for many calls in one."""
        self.requests: list[FileRequest] = []
        self.hub_trouble = HubTrouble()
        self.file_troubles: defaultdict[str, deque[FileTrouble]] = defaultdict(deque)
        """By file name, one for each of the next requests."""
        self.hub = Hub(Database(folder))
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.koji = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def hub_url(self) -> str:
        return f"{self.url}/kojihub"

    @property
    def files_url(self) -> str:
        return f"{self.url}/kojifiles"

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted."""
        self._server.serve_forever()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    koji: KojiServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "gunicorn", ""
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        """Tests look at ``calls`` and ``requests``."""

    def version_string(self) -> str:
        return self.server_version

    def do_GET(self) -> None:
        self._get(body=True)

    def do_HEAD(self) -> None:
        self._get(body=False)

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), MAX_REQUEST)
        request = self.rfile.read(length)
        trouble = self.server.koji.hub_trouble
        if not urlsplit(self.path).path.startswith("/kojihub"):
            self._answer_text(HTTPStatus.NOT_FOUND, b"Not Found\n")
            return
        time.sleep(trouble.delay)
        if trouble.unavailable:
            trouble.unavailable -= 1
            self.server.koji.calls.append("503")
            self._answer_text(HTTPStatus.SERVICE_UNAVAILABLE, b"Service Unavailable\n")
        elif trouble.endless:
            self._endless()
        else:
            self._call(request, trouble)

    def _call(self, request: bytes, trouble: HubTrouble) -> None:
        try:
            if not request:
                raise ValueError("Empty request")
            params, method = xmlrpcplus.loads(request)
        except (ValueError, ExpatError, xmlrpc.client.ResponseError) as wrong:
            self._answer_text(HTTPStatus.BAD_REQUEST, f"Invalid request: {wrong}\n".encode())
            return
        self.server.koji.calls.append(method)
        if trouble.offline:
            trouble.offline -= 1
            body = _encode(xmlrpcplus.Fault(koji.ServerOffline.faultCode, "database outage"))
        elif trouble.body is not None:
            body = trouble.body
        else:
            body = _response(self.server.koji.hub, method, params, trouble)
        self._start(
            HTTPStatus.OK,
            {"Koji-Version": VERSION, "Content-Length": str(len(body)), "Content-Type": "text/xml"},
        )
        self.wfile.write(body)

    def _get(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        if path.startswith("/kojihub"):
            text = b"Method Not Allowed\nThis is an XML-RPC server. Only POST requests are accepted.\n"
            self._answer_text(HTTPStatus.METHOD_NOT_ALLOWED, text, {"Allow": "POST"}, koji=True)
            return
        record = FileRequest(method=self.command, path=path, range=self.headers.get("Range"))
        self.server.koji.requests.append(record)
        troubles = self.server.koji.file_troubles[Path(path).name]
        trouble = troubles.popleft() if troubles else FileTrouble()
        file = self._file(path)
        if trouble.status or (file is None and trouble.content is None):
            record.status = trouble.status or HTTPStatus.NOT_FOUND
            self._answer_text(HTTPStatus(record.status), b"no such file\n")
        elif trouble.endless:
            record.status = HTTPStatus.OK
            self._endless()
        else:
            content = trouble.content if file is None or trouble.content is not None else file.read_bytes()
            assert content is not None
            self._send(content, _validators(file, content), record, trouble, body=body)

    def _file(self, path: str) -> Path | None:
        folder = self.server.koji.files
        file = (folder / path.removeprefix("/kojifiles/")).resolve()
        return (
            file
            if file.is_relative_to(folder) and file.is_file() and path.startswith("/kojifiles/")
            else None
        )

    def _send(self, content: bytes, headers: dict[str, str], record: FileRequest, trouble: FileTrouble, *,
              body: bool) -> None:  # fmt: skip
        start, end = 0, len(content)
        record.status = HTTPStatus.OK
        condition = self.headers.get("If-Range")
        if record.range and not trouble.no_ranges and (condition is None or condition in headers.values()):
            wish = re.fullmatch(r"bytes=(\d+)-(\d*)", record.range)
            start = int(wish[1]) if wish else 0
            if not wish or start >= len(content):
                record.status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                self._answer_text(
                    HTTPStatus(record.status), b"", {"Content-Range": f"bytes */{len(content)}"}
                )
                return
            end = min(int(wish[2]) + 1, end) if wish[2] else end
            record.status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        headers |= {
            "Content-Length": str(end - start),
            "Content-Type": "application/x-rpm",
            "Accept-Ranges": "bytes",
        }
        self._start(HTTPStatus(record.status), headers)
        if body:
            limit = end if trouble.cut is None else min(end, start + trouble.cut)
            self._write_slowly(content[start:limit], trouble.delay)
            if limit < end:
                self.connection.shutdown(socket.SHUT_RDWR)

    def _write_slowly(self, content: bytes, delay: float) -> None:
        for position in range(0, len(content), CHUNK):
            self.wfile.write(content[position : position + CHUNK])
            time.sleep(delay)

    def _endless(self) -> None:
        self._start(HTTPStatus.OK, {"Content-Type": "application/octet-stream"})
        while True:
            self.wfile.write(bytes(CHUNK))

    def _answer_text(self, status: HTTPStatus, text: bytes, headers: dict[str, str] | None = None, *,
                     koji: bool = False) -> None:  # fmt: skip
        version = {"Koji-Version": VERSION} if koji or self.command == "POST" else {}
        self._start(
            status,
            {**version, "Content-Length": str(len(text)), "Content-Type": "text/plain", **(headers or {})},
        )
        self.wfile.write(text)

    def _start(self, status: HTTPStatus, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _response(hub: Hub, method: str, params: tuple[Any, ...], trouble: HubTrouble) -> bytes:
    try:
        result = _troubled(hub, method, params, trouble)
        return _encode((result,))
    except HubFault as fault:
        return _encode(xmlrpcplus.Fault(fault.code, str(fault)))


def _troubled(hub: Hub, method: str, params: tuple[Any, ...], trouble: HubTrouble) -> Any:
    if method == "multiCall" and trouble.answers:
        return [
            [trouble.answers[call["methodName"]]]
            if call["methodName"] in trouble.answers
            else hub.multicall([call])[0]
            for call in params[0]
        ]
    return trouble.answers[method] if method in trouble.answers else hub.call(method, params)


def _encode(answer: Any) -> bytes:
    return bytes(xmlrpcplus.dumps(answer, methodresponse=True, allow_none=True).encode())


def _validators(file: Path | None, content: bytes) -> dict[str, str]:
    """ETag and time of last change; served content that is not the file's has an ETag of its own."""
    changed = file.stat().st_mtime if file else 0.0
    return {
        "ETag": f'"{zlib.crc32(content):x}-{len(content):x}"',
        "Last-Modified": email.utils.formatdate(changed, usegmt=True),
    }


def unused_url() -> str:
    """A URL on loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/kojihub"


def _arguments() -> Iterator[Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parsed = parser.parse_args()
    yield from (parsed.folder, parsed.port)


if __name__ == "__main__":
    where, at = _arguments()
    server = KojiServer(where, port=at)
    print(f"hub {server.hub_url}\nfiles {server.files_url}", flush=True)
    server.serve_forever()
