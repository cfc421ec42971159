"""The checks of one examination: planned beforehand, so that none is lost whatever goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from backport.artifacts import Check, Finding, Verdict
from backport.errors import BackportError, HostError
from backport.probe.transcript import printable

_SAID_LIMIT = 4000
"""Characters kept of what a program said."""


class Ledger:
    """What every planned check came to, in the order of the plan.

    ``plan`` maps each check's id to its title. A check that nothing was recorded for is skipped where
    an obstacle is known, with that as the reason, and an error where none is.
    """

    def __init__(self, plan: Mapping[str, str]) -> None:
        self._plan = dict(plan)
        self._checks: dict[str, Check] = {}
        self._obstacles: list[tuple[tuple[str, ...], str]] = []

    def record(self, check_id: str, finding: Finding) -> None:
        """Record what a check came to."""
        self._checks[check_id] = Check.of(check_id, self._plan[check_id], finding)

    def adopt(self, check: Check) -> None:
        """Take over what another examination came to, as it is."""
        self._checks[check.id] = check

    def bar(self, prefixes: tuple[str, ...], reason: str) -> None:
        """From now on, checks whose ids begin with one of ``prefixes`` cannot be done, and why."""
        self._obstacles.append((prefixes, reason))

    @contextlib.contextmanager
    def step(
        self,
        check_id: str,
        *,
        expected: str,
        bars: tuple[str, ...] = (),
        advice: str,
        verdict: Verdict = Verdict.ERROR,
    ) -> Iterator[None]:
        """Do something that only a failure records: a ``verdict`` of ``check_id``, which ``bars`` others.

        Raises HostError, since a host that lacks something is not what is examined.
        """
        try:
            yield
        except HostError:
            raise
        except BackportError as problem:
            finding = Finding.of_problem(problem, expected=expected, advice=advice, verdict=verdict)
            said = "\n".join(problem.evidence) or _end_of(problem.log)
            self.record(check_id, replace(finding, evidence=said))
            self.bar(bars, f"{check_id}: {problem.message}")

    def has(self, check_id: str) -> bool:
        """Whether the check has come to something."""
        return check_id in self._checks

    def verdict(self, check_id: str) -> Verdict | None:
        """What the check has come to so far."""
        check = self._checks.get(check_id)
        return check.verdict if check else None

    def checks(self) -> tuple[Check, ...]:
        """Every planned check, in order."""
        for check_id in self._plan:
            if check_id not in self._checks:
                self._give_up(check_id)
        return tuple(self._checks[check_id] for check_id in self._plan)

    def _give_up(self, check_id: str) -> None:
        for prefixes, reason in self._obstacles:
            if check_id.startswith(prefixes):
                return self.record(check_id, Finding.skipped(reason))
        return self.record(
            check_id,
            Finding(
                verdict=Verdict.ERROR, expected="an outcome", found="the check was not done",
                advice="run the self-test again",
            ),
        )  # fmt: skip


def tail(text: str) -> str:
    """The end of what a program said, harmless for a terminal."""
    return "\n".join(printable(line) for line in text[-_SAID_LIMIT:].splitlines())


def _end_of(log: Path | None) -> str:
    with contextlib.suppress(OSError):
        return tail(log.read_text(encoding="utf-8", errors="replace")) if log else ""
    return ""
