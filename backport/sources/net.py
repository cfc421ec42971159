"""What every HTTP client in here needs: bodies read as they arrive, and servers' words made printable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backport.printable import printable

if TYPE_CHECKING:
    import requests

CHUNK = 256 * 1024


def pieces(response: requests.Response, *, decode: bool = False) -> Iterator[bytes]:
    """The body of a streamed answer as it arrives, so that a trickle cannot hide from a deadline.

    ``decode`` undoes the transfer's compression. Raises requests.RequestException.
    """
    import requests  # noqa: PLC0415  # importing it costs more than most commands take
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        while piece := response.raw.read1(CHUNK, decode_content=decode):
            yield piece
    except HTTPError as problem:
        raise requests.ConnectionError(problem) from problem


def network_reason(problem: BaseException) -> str:
    """The reason at the bottom of a chain of wrapped network errors, in its own words."""
    while (deeper := problem.__cause__ or problem.__context__) is not None:
        problem = deeper
    return printable(str(getattr(problem, "strerror", None) or problem))
