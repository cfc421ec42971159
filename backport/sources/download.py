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

from backport.errors import FetchError
from backport.files import write_atomically
from backport.progress import Progress
from backport.web import Limits, WebError, body, opened, repeated, require

if TYPE_CHECKING:
    import requests

_HINT = "check `files` under [koji] and the network; the next run goes on where this one stopped"


class FileMissing(FetchError):
    """The server says that there is no such file."""


def download(url: str, target: Path, *, limits: Limits, progress: Progress, size: int | None = None) -> None:
    """Put the file at ``url`` whole at ``target``; what it holds is for the caller to verify.

    ``size`` in bytes is for the progress only. Attempts that fail by the network or by a status of
    the 5xx kind are repeated with growing pauses. Raises FileMissing, or FetchError: server not
    reachable, too slow, refusing, cutting the file short, or sending more than the limit.
    """
    part = _Part(path=target.with_name(f"{target.name}.part"), limits=limits)
    deadline = time.monotonic() + limits.total_timeout
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        repeated(lambda: _attempt(url, part, deadline=deadline, progress=progress, size=size), limits)
    except WebError as problem:
        raise (FileMissing if problem.missing else FetchError)(f"{url}: {problem}", hint=_HINT) from None
    part.path.replace(target)
    part.mark.unlink(missing_ok=True)


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
    try:
        with opened(url, limits=part.limits, deadline=deadline, headers=part.wish()) as response:
            if _is_whole(response, part):
                return
            _require_fitting(response, part)
            with part.open(response) as stream:
                there = stream.tell()
                name = url.rpartition("/")[2]
                for piece in body(response, limits=part.limits, deadline=deadline, there=there):
                    stream.write(piece)
                    progress.transfer(name, stream.tell(), size)
                progress.transfer(name, stream.tell(), stream.tell())
    except WebError as problem:
        if problem.spoils:
            part.restart()
        raise
    except OSError as problem:
        raise FetchError(f"{part.path}: cannot be written: {problem.strerror}") from None


def _is_whole(response: requests.Response, part: _Part) -> bool:
    """Whether nothing is missing from the half file: the wish to go on behind its end cannot be met."""
    past_end = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return past_end and response.headers.get("Content-Range") == f"bytes */{part.size}"


def _require_fitting(response: requests.Response, part: _Part) -> None:
    """Raise WebError unless the answer goes on where the half file ends, or brings the whole file."""
    status = response.status_code
    fits = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or (
        status == HTTPStatus.PARTIAL_CONTENT and not fits
    ):
        raise WebError("the half file did not fit and was discarded", passing=True, spoils=True)
    require(response, HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
