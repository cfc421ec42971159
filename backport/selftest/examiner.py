"""The examination of one clean root: what every kind of the self-test shares, and the update between."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from backport import run
from backport.artifacts import Nevra, Verdict, is_for_debugging
from backport.probe.ledger import Ledger
from backport.probe.transcript import Transcript
from backport.progress import Progress, Silent
from backport.roots.root import Bind, Daemon, ExtraRepository, Root
from backport.selftest import inside
from backport.selftest.authority import Authority
from backport.selftest.daemon import read_inside
from backport.selftest.inside import ProgramResult

COMMAND_TIMEOUT = 120.0
"""Deadline in seconds of each program that runs inside the root."""
BY_HAND = "Run it by hand in an updated system, and read what it says."


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The packages under test, and the repository that brings them."""

    packages: tuple[Nevra, ...]
    repository: ExtraRepository
    beside: tuple[ExtraRepository, ...] = ()
    """What servers that update have besides: what is published already."""


class Kind(Protocol):
    """One kind of the self-test, for what a recipe asks of it."""

    @staticmethod
    def plan(asked: Any) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The checks, id to title, before the update and after it."""

    def __init__(self, examiner: Examiner, asked: Any) -> None: ...

    def before(self) -> None:
        """Ask what is asked with the target's own packages."""

    def after(self) -> None:
        """Ask what is asked after the update."""


@dataclass
class Examiner:
    """A root under examination, and what came of it so far."""

    root: Root
    candidate: Candidate
    wanted: tuple[str, ...]
    """Packages that the update must bring in."""
    workspace: Path
    ledger: Ledger
    after: tuple[str, ...] = ()
    """The checks that take the update."""
    progress: Progress = field(default_factory=Silent)
    headline: dict[str, str] = field(default_factory=dict)
    """What each stage came to, in a few words for people."""
    transcripts: list[str] = field(default_factory=list)
    replaced: list[Nevra] = field(default_factory=list)
    """The target's own packages of which the candidate repository has newer ones."""

    @functools.cached_property
    def authority(self) -> Authority:
        """Who vouches for the certificates of this examination."""
        return Authority.create()

    def update(self) -> bool:
        """Update the whole root from the candidate repository, as a server would, both gpgchecks on.

        False where dnf failed: then the root is to be used no more.
        """
        extra = (*self.candidate.beside, self.candidate.repository)
        candidates = self.candidate.packages
        wanted = self.wanted
        names = {nevra.name for nevra in candidates}
        with self.ledger.step(
            "update.installed",
            expected="dnf updates from the candidate repository",
            bars=self.after,
            advice="Mend what dnf names: a server would fail in the same way.",
        ):
            self.replaced += [nevra for nevra in self.root.installed() if nevra.name in names]
            log = self.workspace / "update.log"
            self.root.update(extra=extra, log=log)
            if not wanted and names.isdisjoint(nevra.name for nevra in self.root.installed()):
                # The target never had any of them: they are not updated but installed.
                wanted = tuple(sorted(name for name in names if not is_for_debugging(name)))
            if wanted:
                self.root.install(wanted, extra=extra, log=log)
            inside.judge_update(self.ledger, self.root.installed(), candidates, wanted)
        return self.ledger.verdict("update.installed") is not Verdict.ERROR

    def run(
        self, argv: Sequence[str], *, beside: Daemon | None = None, binds: Sequence[Bind] = ()
    ) -> ProgramResult:
        """A program's exit code and all that it prints on both streams, in its own order."""
        words = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
        command = run.Command(words, timeout=COMMAND_TIMEOUT, what=f"{argv[0]} failed", accept=None)
        completed = self.root.run(command, user="root", beside=beside, binds=binds)
        return ProgramResult(exit_code=completed.exit_code, output=completed.text)

    def installed(self, name: str) -> Nevra | None:
        """The package of that name in the root."""
        return next((nevra for nevra in self.root.installed() if nevra.name == name), None)

    def candidate_of(self, name: str) -> Nevra | None:
        """The candidate's package of that name."""
        return next((nevra for nevra in self.candidate.packages if nevra.name == name), None)

    def read(self, path: str) -> str | None:
        """The end of a file in the root; None where there is none."""
        try:
            return read_inside(self.root, path).decode("utf-8", "replace")
        except OSError:
            return None

    def keep(self, heading: str, transcript: Transcript) -> None:
        """Keep what was said on a connection."""
        self.transcripts.append(f"{heading}\n{transcript.text()}")
