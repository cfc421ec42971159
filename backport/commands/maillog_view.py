"""What `maillog` found, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import RenderableType

from backport.commands.terminal import rows_table
from backport.maillog.tally import Report, Tls, Usage

_FAILURES_SHOWN = 20


def arranged(report: Report, order: str) -> Report:
    """The report with its peers in order (tls, messages, last-seen or peer), failures by their number.

    Where it does not decide, the number of messages does.
    """
    peers = sorted(report.peers, key=lambda usage: (-usage.messages, usage.peer, usage.direction))
    if order == "tls":
        peers.sort(key=lambda usage: usage.tls.strength)
    elif order == "last-seen":
        peers.sort(key=lambda usage: usage.last_seen, reverse=True)
    elif order == "peer":
        peers.sort(key=lambda usage: (usage.peer, usage.direction, usage.tls.strength))
    failures = sorted(report.failures, key=lambda failed: (-failed.count, failed.peer, failed.direction))
    return replace(report, peers=peers, failures=failures)


def shown(report: Report, *, limit: int) -> Iterator[RenderableType]:
    """For people: the totals, the first ``limit`` peers, the worst failures and what else is to be known."""
    tables: dict[str, list[Sequence[str]]] = {
        "direction TLS peers messages": [
            (one.direction, one.tls, str(one.peers), str(one.messages)) for one in report.totals
        ],
        "direction TLS messages last_seen peer suites": [_usage_row(one) for one in report.peers[:limit]],
        "direction failed last_seen peer": [
            (one.direction, f"{one.count} times", one.last_seen, one.peer)
            for one in report.failures[:_FAILURES_SHOWN]
        ],
    }
    for header, rows in tables.items():
        if rows:
            yield rows_table([name.replace("_", " ") for name in header.split()], rows)
            yield ""
    yield from _notes(report, len(report.peers) - limit, len(report.failures) - _FAILURES_SHOWN)


def _usage_row(usage: Usage) -> Sequence[str]:
    return (
        usage.direction,
        usage.tls if usage.current else f"{usage.tls} (before)",
        str(usage.messages),
        usage.last_seen,
        usage.peer,
        ", ".join(usage.suites),
    )


def _notes(report: Report, more_peers: int, more_failures: int) -> Iterator[str]:
    if not report.totals:
        yield f"no such messages to or from other hosts in {report.lines} lines"
    if more_peers > 0:
        yield f"{more_peers} more rows; --limit shows more of them, --json all"
    if more_failures > 0:
        yield f"{more_failures} more peers with whom TLS failed; --json lists them all"
    if unlisted := sum(total.unlisted for total in report.totals):
        yield f"{unlisted} messages are of peers beyond the number that is kept apart; the totals have them"
    if report.unlisted_failures:
        yield f"{report.unlisted_failures} more failures are of peers beyond that number"
    if any(total.tls is Tls.UNKNOWN for total in report.totals):
        yield "the log does not tell every version; Exim needs log_selector = +tls_cipher"
    if place := report.unclear.first:
        yield (
            f"{report.unclear.lines} lines can be read in two ways and are not counted; "
            f"the first is line {place.line} of {place.file}"
        )
