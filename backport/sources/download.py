"""Files over HTTP: resumed by ranges, retried within bounds, never larger than announced.

A half file stays beside its target as ``.part``, with the server's mark of its version, so that a
later run goes on where this one stopped; a file that changed meanwhile is started anew.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import tenacity

from backport.errors import FetchError
from backport.files import write_atomically
from backport.progress import Progress
from backport.sources.net import network_reason, pieces

if TYPE_CHECKING:
    import requests

MAX_BACKOFF = 10.0
"""Longest pause in seconds between two attempts."""


class FileMissing(FetchError):
    """The server says that there is no such file."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one download may cost: seconds without a byte, repetitions, seconds in all, bytes."""

    timeout: float
    retries: int
    total_timeout: float
    size: int


def download(url: str, target: Path, *, limits: Limits, progress: Progress, size: int | None = None) -> None:
    """Put the file at ``url`` whole at ``target``; what it holds is for the caller to verify.

    ``size`` in bytes is for the progress only. Attempts that fail by the network or by a status of
    the 5xx kind are repeated with growing pauses. Raises FileMissing, or FetchError: server not
    reachable, too slow, refusing, cutting the file short, or sending more than the limit.
    """
    part = _Part(path=target.with_name(f"{target.name}.part"), limits=limits)
    deadline = time.monotonic() + limits.total_timeout
    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(limits.retries + 1)
        | tenacity.stop_after_delay(limits.total_timeout),
        wait=tenacity.wait_exponential(multiplier=0.5, max=min(MAX_BACKOFF, limits.total_timeout)),
        retry=tenacity.retry_if_exception_type(_Transient),
        reraise=True,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        attempts(_attempt, url, part, deadline=deadline, progress=progress, size=size)
    except _Transient as problem:
        tries = f"{limits.retries + 1} attempts" if limits.retries else "one attempt"
        raise FetchError(
            f"{url}: not fetched in {tries}: {problem}",
            hint="check `files` under [koji] and the network; the next run goes on where this one stopped",
        ) from None
    part.path.replace(target)
    part.mark.unlink(missing_ok=True)


class _Transient(Exception):
    """A failure by no fault of the request: it may succeed when repeated."""


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The half file, and beside it the ETag or date of the version that it is a part of."""

    path: Path
    limits: Limits

    @property
    def mark(self) -> Path:
        return self.path.with_name(f"{self.path.name}.version")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def wish(self) -> dict[str, str]:
        """Request headers for what is missing; without a mark the whole file is asked for."""
        if not (self.size and self.mark.is_file()):
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.mark.read_text(encoding="utf-8")}

    def restart(self) -> None:
        self.path.unlink(missing_ok=True)
        self.mark.unlink(missing_ok=True)

    def open(self, response: requests.Response) -> BinaryIO:
        """The half file, ready for the body: behind what is there, or anew."""
        if response.status_code == HTTPStatus.PARTIAL_CONTENT:
            return self.path.open("ab")
        self.restart()
        etag = response.headers.get("ETag", "")
        # Only a strong ETag vouches for every byte (RFC 9110, section 13.1.5).
        version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        if re.fullmatch(r"[\x20-\x7e]{1,200}", version):
            write_atomically(self.mark, version)
        return self.path.open("wb")


def _attempt(url: str, part: _Part, *, deadline: float, progress: Progress, size: int | None) -> None:
    import requests  # noqa: PLC0415  # most commands download nothing

    headers = {"Accept-Encoding": "identity", **part.wish()}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=part.limits.timeout) as response:
            if _is_whole(response, part):
                return
            if not _accepted(url, response, part):
                raise _Transient("the half file did not fit and was discarded")
            with part.open(response) as stream:
                for piece in pieces(response):
                    stream.write(piece)
                    _check_bounds(url, part, done=stream.tell(), deadline=deadline)
                    progress.transfer(url.rpartition("/")[2], stream.tell(), size)
    except (requests.ConnectionError, requests.Timeout) as problem:
        # A certificate that does not verify will not verify the next time either.
        fatal = isinstance(problem, requests.exceptions.SSLError)
        raise (_refused(url, problem) if fatal else _Transient(network_reason(problem))) from None
    except requests.RequestException as problem:
        raise _refused(url, problem) from None
    except OSError as problem:
        raise FetchError(f"{part.path}: cannot be written: {problem.strerror}") from None


def _refused(url: str, problem: Exception) -> FetchError:
    return FetchError(f"{url}: not fetched: {network_reason(problem)}", hint="check `files` under [koji]")


def _is_whole(response: requests.Response, part: _Part) -> bool:
    """Whether nothing is missing from the half file: the wish to go on behind its end cannot be met."""
    past_end = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return past_end and response.headers.get("Content-Range") == f"bytes */{part.size}"


def _accepted(url: str, response: requests.Response, part: _Part) -> bool:
    """Whether the answer goes on where the half file ends, or brings the whole file."""
    status = response.status_code
    if status == HTTPStatus.OK:
        return True
    if status == HTTPStatus.PARTIAL_CONTENT:
        fits = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
        if not fits:
            part.restart()
        return fits
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        part.restart()
        return False
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _Transient(f"HTTP status {status}")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise FileMissing(
            f"{url}: not on the server (HTTP status {status})", hint="check `files` under [koji]"
        )
    raise FetchError(f"{url}: refused with HTTP status {status}", hint="check `files` under [koji]")


def _check_bounds(url: str, part: _Part, *, done: int, deadline: float) -> None:
    if done > part.limits.size:
        part.restart()
        raise FetchError(
            f"{url}: more than the {part.limits.size} bytes that the hub leads to expect",
            hint="the file server serves another file, or none that ends; check `files` under [koji]",
        )
    if time.monotonic() > deadline:
        raise FetchError(
            f"{url}: not whole after {part.limits.total_timeout:g} s, its deadline",
            hint="the next run goes on where this one stopped; or raise `total_timeout` under [koji]",
        )
