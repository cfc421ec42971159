"""The kind ``commands``: the recipe's own programs, run in the updated root."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from backport.artifacts import Finding
from backport.probe.ledger import tail
from backport.recipe import Command
from backport.run import time_limit
from backport.selftest.examiner import BY_HAND, Examiner
from backport.selftest.inside import ProgramResult

MATCHING = 10.0
"""Seconds that a recipe's regular expression may take on what a program or a daemon says."""
_SIMPLER = "Give the recipe a regular expression without a repetition inside a repetition."


class CommandsKind:
    """Programs that must run after the update."""

    def __init__(self, examiner: Examiner, asked: Sequence[Command]) -> None:
        self.examiner, self.asked = examiner, asked

    @staticmethod
    def plan(asked: Sequence[Command]) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The checks, id to title: none before the update, and one of each command after it."""
        return {}, {command_id(command): " ".join(command.run) for command in asked}

    def before(self) -> None:
        """Nothing."""

    def after(self) -> None:
        """Each command, whatever became of the others."""
        ledger = self.examiner.ledger
        for command in self.asked:
            with ledger.step(command_id(command), expected="the program runs", advice=BY_HAND):
                result = self.examiner.run(command.run)
                ledger.record(command_id(command), judged(command, result))


def command_id(command: Command) -> str:
    """The id of a recipe's command."""
    return f"command.{command.id}"


def judged(command: Command, result: ProgramResult) -> Finding:
    """A command's exit code and what its output must contain.

    Raises ToolError where the search for that takes too long: then the output says nothing.
    """
    says = found_in(result.output, command.output, what=f"the output of {command_id(command)}")
    return Finding.judged(
        good=result.exit_code == command.exit and says,
        expected=f"exit code {command.exit}"
        + (f", output matching {command.output}" if command.output else ""),
        found=f"exit code {result.exit_code}" + ("" if says else ", output without a match"),
        evidence=tail(result.output),
        advice=f"Run `{' '.join(command.run)}` by hand in an updated system and read what it says.",
    )


def found_in(text: str, pattern: str, *, what: str) -> bool:
    """Whether a recipe's regular expression is found in foreign text. Raises ToolError past `MATCHING`."""
    with time_limit(MATCHING, what=f"the search in {what}", hint=_SIMPLER):
        return re.search(pattern, text) is not None
