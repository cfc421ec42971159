"""A session with a Koji hub: many calls in one request, every answer bounded and checked.

What a hub says is not trusted: an answer has a bound in bytes and time, and is validated against the
form that it must have before anything is done with it.
"""

from __future__ import annotations

import io
import time
import xmlrpc.client
from collections.abc import Sequence
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

from pydantic import TypeAdapter, ValidationError

from backport.errors import FetchError
from backport.printable import printable
from backport.site import Koji
from backport.sources.net import network_reason, pieces

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes in one answer of a hub; all dependencies of the largest packages are a few million."""
RETRY_INTERVAL = 2.0
"""Seconds between two attempts of the same call."""
_NONSENSE = (
    ExpatError,
    xmlrpc.client.Error,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What the client library raises for an answer that is not XML-RPC."""

Answer = TypeVar("Answer")
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Method, positional and named arguments."""


class Fault(Exception):
    """The hub's refusal of one call."""


class Hub:
    """An anonymous session with a hub. Every method raises FetchError."""

    def __init__(self, settings: Koji) -> None:
        self.settings = settings
        self._session = _open_session(settings)

    def call_all(self, calls: Sequence[Call]) -> list[Any]:
        """The results of many calls made in one request; a refused call gives a `Fault` in its place."""
        import koji  # noqa: PLC0415  # takes a tenth of a second that most commands need not spend

        request = [
            {"methodName": name, "params": koji.encode_args(*positional, **named)}
            for name, positional, named in calls
        ]
        answers = self._request(request)
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise self.nonsense(f"{len(calls)} calls were not answered one by one")
        return [self._unwrap(answer) for answer in answers]

    def checked(self, form: type[Answer], answer: Any, what: str, *, hint: str | None = None) -> Answer:
        """The answer, if it has the form that it must have; ``hint`` is for a refused call."""
        if isinstance(answer, Fault):
            raise FetchError(f"{self.settings.hub}: refused to tell {what}: {answer}", hint=hint)
        try:
            return TypeAdapter(form).validate_python(answer)
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise self.nonsense(f"{what}: {printable(where)}: {first['msg']}") from None

    def _request(self, calls: list[dict[str, Any]]) -> Any:
        import koji  # noqa: PLC0415
        import requests  # noqa: PLC0415

        url, wait = self.settings.hub, self.settings.timeout
        try:
            return self._session.callMethod("multiCall", calls)
        except requests.Timeout:
            raise FetchError(
                f"{url}: no answer within {wait:g} s", hint="try again later, or raise `timeout` under [koji]"
            ) from None
        except requests.HTTPError as problem:
            status = problem.response.status_code
            hint = "try again later" if status >= 500 else "is `hub` under [koji] the URL of a Koji hub?"
            raise FetchError(f"{url}: HTTP status {status}", hint=hint) from None
        except requests.RequestException as problem:
            raise FetchError(
                f"{url}: cannot be reached: {network_reason(problem)}",
                hint="check `hub` under [koji] and the network",
            ) from None
        except (koji.GenericError, xmlrpc.client.Fault) as fault:
            raise FetchError(f"{url}: refused the call: {printable(str(fault))}") from None
        except _NONSENSE as problem:
            raise self.nonsense(f"{type(problem).__name__}: {problem}") from None

    def _unwrap(self, answer: Any) -> Any:
        if isinstance(answer, list) and len(answer) == 1:
            return answer[0]
        if isinstance(answer, dict) and "faultString" in answer:
            return Fault(printable(str(answer["faultString"])))
        raise self.nonsense("an answer is neither a result nor a fault")

    def nonsense(self, what: str) -> FetchError:
        """The error for an answer that cannot be right; ``what`` may hold the server's words."""
        return FetchError(
            f"{self.settings.hub}: the answer makes no sense: {printable(what)}",
            hint="is `hub` under [koji] the URL of a Koji hub, with no proxy's page in between?",
        )


def _open_session(settings: Koji) -> Any:
    """A client session that reads no configuration of the host and whose every answer is bounded."""
    import koji  # noqa: PLC0415
    import requests  # noqa: PLC0415

    def read_within_bounds(response: requests.Response, *_arguments: Any, **_options: Any) -> None:
        response.raw = io.BytesIO(_read_within_bounds(response, settings.timeout))

    class BoundedSession(koji.ClientSession):  # type: ignore[misc]  # koji carries no type information
        def new_session(self) -> None:
            super().new_session()
            self.rsession.hooks["response"].append(read_within_bounds)

    return BoundedSession(
        settings.hub,
        opts={
            "timeout": settings.timeout,
            "max_retries": settings.retries,
            "retry_interval": RETRY_INTERVAL,
            "anon_retry": True,
        },
    )


def _read_within_bounds(response: Any, seconds: float) -> bytes:
    import requests  # noqa: PLC0415

    deadline, body = time.monotonic() + seconds, bytearray()
    try:
        for piece in pieces(response, decode=True):
            body += piece
            if len(body) > MAX_ANSWER:
                raise ValueError(f"it is longer than {MAX_ANSWER} bytes")
            if time.monotonic() > deadline:
                raise requests.ReadTimeout(f"not at its end after {seconds:g} s")
    finally:
        response.raw.close()
    return bytes(body)
