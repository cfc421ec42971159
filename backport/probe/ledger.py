"""The checks of one examination: planned beforehand, so that none is lost whatever goes wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from backport.artifacts import Check, Verdict
from backport.errors import BackportError, HostError
from backport.probe.transcript import printable

EVIDENCE_LIMIT = 4000
"""Characters kept of what a program said."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check came to; see `backport.artifacts.Check` for the fields."""

    verdict: Verdict
    expected: str
    found: str
    evidence: str = ""
    advice: str = ""

    @classmethod
    def skipped(cls, reason: str) -> Finding:
        """A check that does not apply, or could not be done because of something else."""
        return cls(verdict=Verdict.SKIPPED, expected="", found="", advice=reason)


class Ledger:
    """What every planned check came to, in the order of the plan.

    ``plan`` maps each check's id to its title. A check that nothing was recorded for is skipped where
    an obstacle is known, with that as the reason, and an error where none is.
    """

    def __init__(self, plan: Mapping[str, str]) -> None:
        self._plan = dict(plan)
        self._checks: dict[str, Check] = {}
        self._obstacles: list[tuple[tuple[str, ...], str]] = []

    def compare(
        self, check_id: str, *, good: bool, expected: str, found: str, evidence: str = "", advice: str
    ) -> None:
        """Record a pass or, where it is not ``good``, a fail with one sentence of advice."""
        self._record(
            check_id,
            Verdict.PASS if good else Verdict.FAIL,
            expected=expected,
            found=found,
            evidence=evidence,
            advice="" if good else advice,
        )

    def error(self, check_id: str, *, expected: str, found: str, evidence: str = "", advice: str) -> None:
        """Record that a check could not be done: it says nothing about what it examines."""
        self._record(
            check_id, Verdict.ERROR, expected=expected, found=found, evidence=evidence, advice=advice
        )

    def record(self, check_id: str, finding: Finding) -> None:
        """Record what a check came to, harmless for a terminal; a pass needs no advice."""
        self._record(
            check_id,
            finding.verdict,
            expected=printable(finding.expected),
            found=printable(finding.found),
            evidence=printable(finding.evidence, EVIDENCE_LIMIT),
            advice="" if finding.verdict is Verdict.PASS else printable(finding.advice),
        )

    def adopt(self, check: Check) -> None:
        """Take over what another examination came to, as it is."""
        self._checks[check.id] = replace(check, title=self._plan[check.id])

    def bar(self, prefixes: tuple[str, ...], reason: str) -> None:
        """From now on, checks whose ids begin with one of ``prefixes`` cannot be done, and why."""
        self._obstacles.append((prefixes, reason))

    def skip(self, check_id: str, reason: str) -> None:
        """Record that a check does not apply."""
        self._record(check_id, Verdict.SKIPPED, expected="", found="", evidence="", advice=reason)

    @contextlib.contextmanager
    def step(
        self, check_id: str, *, expected: str, bars: tuple[str, ...] = (), advice: str
    ) -> Iterator[None]:
        """Do something that only a failure records: an error of ``check_id``, which ``bars`` others.

        Raises HostError, since a host that lacks something is not what is examined.
        """
        try:
            yield
        except HostError:
            raise
        except BackportError as problem:
            self.error(
                check_id,
                expected=expected,
                found=problem.message,
                evidence="\n".join(problem.evidence) or _end_of(problem.log),
                advice=problem.hint or advice,
            )
            self.bar(bars, f"{check_id}: {problem.message}")

    def plans(self, check_id: str) -> bool:
        """Whether the check belongs to this examination."""
        return check_id in self._plan

    def has(self, check_id: str) -> bool:
        """Whether the check has come to something."""
        return check_id in self._checks

    def verdict(self, check_id: str) -> Verdict | None:
        """What the check has come to so far."""
        check = self._checks.get(check_id)
        return check.verdict if check else None

    def has_error(self, check_id: str) -> bool:
        """Whether the check could not be done."""
        check = self._checks.get(check_id)
        return check is not None and check.verdict is Verdict.ERROR

    def checks(self) -> tuple[Check, ...]:
        """Every planned check, in order."""
        for check_id in self._plan:
            if check_id not in self._checks:
                self._give_up(check_id)
        return tuple(self._checks[check_id] for check_id in self._plan)

    def _give_up(self, check_id: str) -> None:
        for prefixes, reason in self._obstacles:
            if check_id.startswith(prefixes):
                return self.skip(check_id, reason)
        return self.error(
            check_id, expected="an outcome", found="the check was not done", advice="run the self-test again"
        )

    def _record(
        self, check_id: str, verdict: Verdict, *, expected: str, found: str, evidence: str, advice: str
    ) -> None:
        self._checks[check_id] = Check(
            id=check_id,
            title=self._plan[check_id],
            verdict=verdict,
            expected=expected,
            found=found,
            evidence=evidence,
            advice=advice,
        )


def tail(text: str) -> str:
    """The end of what a program said, harmless for a terminal."""
    return "\n".join(printable(line) for line in text[-EVIDENCE_LIMIT:].splitlines())


def _end_of(log: Path | None) -> str:
    with contextlib.suppress(OSError):
        return tail(log.read_text(encoding="utf-8", errors="replace")) if log else ""
    return ""
