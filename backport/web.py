"""Whatever is fetched by HTTP: every answer has a bound in bytes and in time, its redirections too.

A server is not trusted. What it sends is read as it arrives, never decompressed, and no longer than until the
deadline of the whole transfer; a redirection leads to http and https alone, and its body is not read. What is
no file, but a proxy's or a login page, is told as such.
"""

from __future__ import annotations

import contextlib
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from backport.errors import ToolError
from backport.printable import printable

if TYPE_CHECKING:
    import requests

CHUNK = 256 * 1024
REDIRECTS = 5
MAX_BACKOFF = 10.0
"""Longest pause in seconds between two attempts."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses of a server that may answer the same request later (RFC 9110, section 15; RFC 6585)."""
_MISSING = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
_LEADING = {301, 302, 303, 307, 308}
_PAGE = re.compile(rb"<(!doctype\s+html|html)[\s>]", re.IGNORECASE)
_PAGE_HEAD = 1024
_IDENTITY = {"", "identity"}

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one transfer may cost: seconds without a byte, repetitions, seconds in all, bytes."""

    timeout: float
    retries: int
    total_timeout: float
    size: int


class WebError(Exception):
    """Nothing usable came back: ``missing`` where the server has no such file, ``passing`` where the same
    request may succeed later, ``spoils`` where what came so far is of no use for that."""

    def __init__(
        self, reason: str, *, passing: bool = False, missing: bool = False, spoils: bool = False
    ) -> None:
        super().__init__(printable(reason))
        self.passing = passing
        self.missing = missing
        self.spoils = spoils


def get(url: str, *, limits: Limits, hint: str, environment: bool = True) -> bytes:
    """A small file as a whole; its content is for the caller to verify.

    ``environment`` says whether proxies and certificates of the caller's environment are used. Raises
    ToolError: no such file, a server that cannot be reached, refuses, stalls or sends more than it may.
    """
    deadline = time.monotonic() + limits.total_timeout

    def attempt() -> bytes:
        with opened(url, limits=limits, deadline=deadline, environment=environment) as response:
            require(response, HTTPStatus.OK)
            if response.headers.get("Content-Encoding", "") not in _IDENTITY:
                raise WebError("it came compressed, though nobody asked for that")
            return b"".join(body(response, limits=limits, deadline=deadline))

    try:
        return repeated(attempt, limits)
    except WebError as problem:
        raise ToolError(f"{url}: {problem}", hint=hint) from None


def repeated(attempt: Callable[[], T], limits: Limits) -> T:
    """What an attempt gives, repeated with growing pauses while its failure may pass. Raises WebError."""
    import tenacity  # noqa: PLC0415  # what only examines has no need of it

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(limits.retries + 1)
        | tenacity.stop_after_delay(limits.total_timeout),
        wait=tenacity.wait_exponential(multiplier=0.5, max=min(MAX_BACKOFF, limits.total_timeout)),
        retry=tenacity.retry_if_exception(lambda problem: isinstance(problem, WebError) and problem.passing),
        reraise=True,
    )
    try:
        return attempts(attempt)
    except WebError as problem:
        if not problem.passing:
            raise
        made = attempts.statistics.get("attempt_number", 1)
        tries = f"{made} attempts" if made > 1 else "one attempt"
        problem.args = (f"not fetched in {tries}: {problem}",)
        raise


@contextlib.contextmanager
def opened(
    url: str,
    *,
    limits: Limits,
    deadline: float,
    headers: dict[str, str] | None = None,
    environment: bool = True,
) -> Iterator[requests.Response]:
    """The answer to a GET, behind at most `REDIRECTS` redirections, its body not read yet.

    ``deadline`` is on the monotonic clock. Raises WebError, also for what goes wrong inside the block.
    """
    import requests  # noqa: PLC0415  # importing it costs more than most commands take

    asked = {"Accept-Encoding": "identity", **(headers or {})}
    with requests.Session() as session, translated():
        session.trust_env = environment
        for _ in range(REDIRECTS + 1):
            _check_address(url)
            left = min(limits.timeout, deadline - time.monotonic())
            response = within(left, lambda: _ask(session, url, asked, limits.timeout))  # noqa: B023
            target = response.headers.get("Location")
            if response.status_code not in _LEADING or not target:
                break
            response.close()
            url = _joined(url, target)
        else:
            raise WebError(f"more than {REDIRECTS} redirections")
        with response:
            yield response


def body(response: requests.Response, *, limits: Limits, deadline: float, there: int = 0) -> Iterator[bytes]:
    """The body as it arrives, ``there`` bytes of the file being here already.

    Raises WebError for more bytes than may come, told or sent, for a page in the place of a file, and past
    the deadline.
    """
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and len(announced) < 20 and there + int(announced) > limits.size:
        raise WebError(f"{announced} bytes, more than the {limits.size} bytes that it may have")
    done = there
    head = b""
    for piece in pieces(response):
        if done < there + _PAGE_HEAD and not there:
            head += piece[:_PAGE_HEAD]
            if is_page(head):
                raise WebError(
                    "an HTML page came instead: is there a proxy's or a login page in between?", spoils=True
                )
        done += len(piece)
        if done > limits.size:
            raise WebError(f"more than {limits.size} bytes, which is more than it may have", spoils=True)
        yield piece
        if time.monotonic() > deadline:
            raise WebError(f"not whole after {limits.total_timeout:g} s, its deadline")


def pieces(response: requests.Response) -> Iterator[bytes]:
    """The body of a streamed answer as it arrives, so that a trickle cannot hide from a deadline.

    A compressed one stays so. Raises requests.RequestException.
    """
    import requests  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        while piece := response.raw.read1(CHUNK, decode_content=False):
            yield piece
    except HTTPError as problem:
        raise requests.ConnectionError(problem) from problem


def require(response: requests.Response, *statuses: int) -> None:
    """Raise WebError unless the answer has one of the statuses, with the status by number and name."""
    status = response.status_code
    if status in statuses:
        return
    named = status_in_words(status)
    if status in _MISSING:
        raise WebError(f"not on the server: HTTP status {named}", missing=True)
    if status in _PASSING:
        raise WebError(f"HTTP status {named}", passing=True)
    raise WebError(f"refused with HTTP status {named}")


def status_in_words(status: int) -> str:
    """An HTTP status with its name.

    >>> status_in_words(404), status_in_words(599)
    ('404 (Not Found)', '599 (Unknown)')
    """
    known = status in HTTPStatus.__members__.values()
    return f"{status} ({HTTPStatus(status).phrase if known else 'Unknown'})"


def is_page(content: bytes) -> bool:
    """Whether what should be a file or an answer begins as an HTML page does."""
    return _PAGE.search(content[:_PAGE_HEAD]) is not None


def within(seconds: float, ask: Callable[[], T]) -> T:
    """What ``ask`` gives, if it does so in time. Raises WebError, and whatever ``ask`` raises.

    A socket's timeout begins again with every byte: a head that trickles would be waited for without end.
    """
    answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def answer() -> None:
        try:
            answers.put((ask(), None))
        except BaseException as problem:  # noqa: BLE001  # it is raised again where the answer is waited for
            answers.put((None, problem))

    threading.Thread(target=answer, daemon=True).start()
    try:
        found, problem = answers.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise WebError(f"no answer within {max(seconds, 0):.2g} s", passing=True) from None
    if problem is not None:
        raise problem
    return found  # type: ignore[return-value]  # there is no problem, so there is an answer


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """What the client library raises in the block, as WebError."""
    import requests  # noqa: PLC0415

    try:
        yield
    except requests.Timeout as problem:
        raise WebError(f"no answer: {network_reason(problem)}", passing=True) from None
    except requests.ConnectionError as problem:
        # A certificate that does not verify will not verify the next time either.
        passing = not isinstance(problem, requests.exceptions.SSLError)
        raise WebError(f"the connection failed: {network_reason(problem)}", passing=passing) from None
    except requests.RequestException as problem:
        raise WebError(f"cannot be fetched: {network_reason(problem)}") from None


def network_reason(problem: BaseException) -> str:
    """The reason at the bottom of a chain of wrapped network errors, in its own words."""
    while (deeper := problem.__cause__ or problem.__context__) is not None:
        problem = deeper
    return printable(str(getattr(problem, "strerror", None) or problem))


def _ask(session: Any, url: str, headers: dict[str, str], timeout: float) -> requests.Response:
    """The answer to one request. The session itself would read a redirection's body, however long it is."""
    import requests  # noqa: PLC0415

    request = session.prepare_request(requests.Request("GET", url, headers=headers))
    settings = session.merge_environment_settings(
        request.url, proxies={}, stream=True, verify=None, cert=None
    )
    response: requests.Response = session.get_adapter(request.url).send(request, timeout=timeout, **settings)
    return response


def _joined(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError:
        raise WebError(f"no usable address: {target}") from None


def _check_address(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise WebError(f"no usable address: {url}") from None
    if parts.scheme not in ("http", "https"):
        raise WebError(f"it leads to {parts.scheme}:, which is neither http nor https")
    if not usable:
        raise WebError(f"no usable address: {url}")
