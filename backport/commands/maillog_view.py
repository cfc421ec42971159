"""What `maillog` found, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from backport.commands.documents import MaillogDocument
from backport.commands.terminal import rows_table
from backport.maillog.tally import Direction, Failures, Tally, Tls, Usage

_FAILURES_SHOWN = 20


def sort_by(order: str, usages: list[Usage]) -> None:
    """Put usages in order (tls, messages, last-seen or peer); where it does not decide, by messages."""
    usages.sort(key=lambda usage: (-usage.messages, usage.peer, usage.direction))
    if order == "tls":
        usages.sort(key=lambda usage: usage.tls.strength)
    elif order == "last-seen":
        usages.sort(key=lambda usage: usage.last_seen, reverse=True)
    elif order == "peer":
        usages.sort(key=lambda usage: (usage.peer, usage.direction, usage.tls.strength))


def as_document(tally: Tally, directions: Sequence[Direction], usages: Sequence[Usage]) -> MaillogDocument:
    """The JSON document: totals of all, the peers asked for, and what could not be counted."""
    found = {
        "lines": tally.lines,
        "totals": [total for one in directions for total in tally.totals(one)],
        "peers": usages,
        "failures": _failures(tally, directions),
        "unlisted_failures": tally.unlisted_failures,
        "unclear": {"lines": tally.unclear, "first": tally.first_unclear},
    }
    return MaillogDocument.model_validate(found, from_attributes=True)


def shown(
    tally: Tally, directions: Sequence[Direction], usages: Sequence[Usage], *, limit: int
) -> Iterator[RenderableType]:
    """For people: the totals, the first ``limit`` peers, the worst failures and what else is to be known."""
    failures = _failures(tally, directions)
    totals = [total for one in directions for total in tally.totals(one)]
    tables: dict[str, list[Sequence[str]]] = {
        "direction TLS peers messages": [
            (one.direction, one.tls, str(one.peers), str(one.messages)) for one in totals
        ],
        "direction TLS messages last_seen peer suites": [_usage_row(usage) for usage in usages[:limit]],
        "direction failed last_seen peer": [
            (one.direction, f"{one.count} times", one.last_seen, one.peer)
            for one in failures[:_FAILURES_SHOWN]
        ],
    }
    for header, rows in tables.items():
        if rows:
            yield rows_table([name.replace("_", " ") for name in header.split()], rows)
            yield ""
    yield from _notes(tally, len(usages) - limit, len(failures) - _FAILURES_SHOWN)


def _usage_row(usage: Usage) -> Sequence[str]:
    return (
        usage.direction,
        usage.tls if usage.current else f"{usage.tls} (before)",
        str(usage.messages),
        usage.last_seen,
        usage.peer,
        ", ".join(usage.suites),
    )


def _failures(tally: Tally, directions: Sequence[Direction]) -> list[Failures]:
    failures = [failed for one in directions for failed in tally.failures(one)]
    return sorted(failures, key=lambda failed: (-failed.count, failed.peer, failed.direction))


def _notes(tally: Tally, more_peers: int, more_failures: int) -> Iterator[str]:
    totals = [total for one in Direction for total in tally.totals(one)]
    if not totals:
        yield f"no messages to or from other hosts in {tally.lines} lines"
    if more_peers > 0:
        yield f"{more_peers} more rows; --limit shows more of them, --json all"
    if more_failures > 0:
        yield f"{more_failures} more peers with whom TLS failed; --json lists them all"
    if unlisted := sum(total.unlisted for total in totals):
        yield f"{unlisted} messages are of peers beyond the number that is kept apart; the totals have them"
    if any(total.tls is Tls.UNKNOWN for total in totals):
        yield "the log does not tell every version; Exim needs log_selector = +tls_cipher"
    if tally.first_unclear:
        place = tally.first_unclear
        yield (
            f"{tally.unclear} lines can be read in two ways and are not counted; "
            f"the first is line {place.line} of {place.file}"
        )
