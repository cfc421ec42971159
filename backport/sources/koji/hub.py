"""A session with a Koji hub: many calls in one request, every answer bounded and checked.

What a hub says is not trusted: an answer has a bound in bytes and time, and is validated against the
form that it must have before anything is done with it.
"""

from __future__ import annotations

import io
import time
import xmlrpc.client
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar
from xml.parsers.expat import ExpatError

from pydantic import TypeAdapter, ValidationError

from backport.errors import FetchError
from backport.printable import printable
from backport.site import Koji
from backport.web import (
    MAX_BACKOFF,
    Limits,
    WebError,
    body,
    repeated,
    require,
    status_in_words,
    translated,
    within,
)

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes in one answer of a hub; all dependencies of the largest packages are a few million."""
_OFFLINE_HINT = "wait until its maintenance or outage is over; `retries` under [koji] has it asked more often"
_AWAY_HINT = "try again later, or check `hub` and raise `timeout` under [koji]"
_ADDRESS_HINT = "is `hub` under [koji] the URL of a Koji hub, with no proxy's page in between?"
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

if TYPE_CHECKING:
    import requests

Answer = TypeVar("Answer")
Call = tuple[str, tuple[Any, ...], dict[str, Any]]
"""Method, positional and named arguments."""


class Fault(Exception):
    """The hub's refusal of one call; ``code`` is Koji's number for its kind (``koji.GenericError``'s)."""

    def __init__(self, text: str, *, code: object = None) -> None:
        super().__init__(text)
        self.code = code


class _Offline(WebError):
    """The hub says that it cannot work now: maintenance, or an outage of its database (fault 1014)."""

    def __init__(self, text: str) -> None:
        super().__init__(f"is offline, it says: {text}", passing=True)


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
        return self._request(request)

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

    def _request(self, calls: list[dict[str, Any]]) -> list[Any]:
        """The answers to the calls, asked for again within bounds where the failure may pass."""
        wait = self.settings.timeout
        limits = Limits(
            timeout=wait, retries=self.settings.retries, size=MAX_ANSWER,
            total_timeout=(wait + MAX_BACKOFF) * (self.settings.retries + 1),
        )  # fmt: skip
        try:
            return repeated(lambda: self._attempt(calls), limits)
        except _Offline as problem:
            raise FetchError(f"{self.settings.hub}: {problem}", hint=_OFFLINE_HINT) from None
        except WebError as problem:
            hint = _AWAY_HINT if problem.passing else _ADDRESS_HINT
            raise FetchError(f"{self.settings.hub}: {problem}", hint=hint) from None

    def _attempt(self, calls: list[dict[str, Any]]) -> list[Any]:
        import koji  # noqa: PLC0415

        try:
            with translated():
                answers = within(self.settings.timeout, lambda: self._session.callMethod("multiCall", calls))
        except koji.ServerOffline as fault:
            raise _Offline(str(fault)) from None
        except (koji.GenericError, xmlrpc.client.Fault) as fault:
            raise FetchError(f"{self.settings.hub}: refused the call: {printable(str(fault))}") from None
        except _NONSENSE as problem:
            raise self.nonsense(f"{type(problem).__name__}: {problem}") from None
        if not isinstance(answers, list) or len(answers) != len(calls):
            raise self.nonsense(f"{len(calls)} calls were not answered one by one")
        unwrapped = [self._unwrap(answer) for answer in answers]
        for answer in unwrapped:
            if isinstance(answer, Fault) and answer.code == koji.ServerOffline.faultCode:
                raise _Offline(str(answer))
        return unwrapped

    def _unwrap(self, answer: Any) -> Any:
        if isinstance(answer, list) and len(answer) == 1:
            return answer[0]
        if isinstance(answer, dict) and "faultString" in answer:
            return Fault(printable(str(answer["faultString"])), code=answer.get("faultCode"))
        raise self.nonsense("an answer is neither a result nor a fault")

    def nonsense(self, what: str) -> FetchError:
        """The error for an answer that cannot be right; ``what`` may hold the server's words."""
        return FetchError(
            f"{self.settings.hub}: the answer makes no sense: {printable(what)}",
            hint=_ADDRESS_HINT,
        )


def _open_session(settings: Koji) -> Any:
    """A client session that reads no configuration of the host and whose every answer is bounded.

    It repeats nothing: what may be asked again is decided here.
    """
    import koji  # noqa: PLC0415

    def read_within_bounds(response: requests.Response, *_arguments: Any, **_options: Any) -> None:
        response.raw = io.BytesIO(_answer_of(response, settings.timeout))

    class BoundedSession(koji.ClientSession):  # type: ignore[misc]  # koji carries no type information
        def new_session(self) -> None:
            super().new_session()
            self.rsession.headers["Accept-Encoding"] = "identity"
            self.rsession.hooks["response"].append(read_within_bounds)

    opts = {"timeout": settings.timeout, "max_retries": 0, "anon_retry": False, "offline_retry": False}
    return BoundedSession(settings.hub, opts=opts)


def _answer_of(response: requests.Response, seconds: float) -> bytes:
    """The body of the hub's answer. Raises WebError for any that cannot be one."""
    try:
        if target := response.headers.get("Location"):
            raise WebError(f"HTTP status {status_in_words(response.status_code)} leads to {target}")
        require(response, HTTPStatus.OK)
        if response.headers.pop("Content-Encoding", "identity") != "identity":
            raise WebError("its answer is compressed, though nobody asked for that")
        limits = Limits(timeout=seconds, retries=0, total_timeout=seconds, size=MAX_ANSWER)
        return b"".join(body(response, limits=limits, deadline=time.monotonic() + seconds))
    finally:
        response.raw.close()
