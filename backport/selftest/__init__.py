"""The self-test: a clean root of the target, its own daemons, the update, and what they answer after it.

Results are data. What can go wrong in the root is a check that failed; only a host that lacks
something raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Check, Finding, Nevra, SignedRpms, TestedRpms
from backport.errors import SelfTestError
from backport.probe.ledger import Ledger
from backport.progress import Progress
from backport.recipe import SelfTest
from backport.roots.root import Aftermath, ExtraRepository, clean_root
from backport.selftest.commands import CommandsKind
from backport.selftest.examiner import Candidate, Examiner, Kind
from backport.selftest.service import ServiceKind
from backport.selftest.starttls import StarttlsKind
from backport.settings import Key
from backport.target import Target

KINDS: dict[str, type[Kind]] = {
    "starttls": StarttlsKind,
    "service": ServiceKind,
    "commands": CommandsKind,
}
"""By the name that each has in a recipe's self-test (`backport.recipe.SelfTest`)."""

_INSTALLED = "installed"
_CANDIDATE = "backport-candidate"

__all__ = ["Candidate", "Examination", "candidate_of", "examine", "examine_candidate", "passed"]


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What a self-test came to."""

    checks: tuple[Check, ...]
    """Every planned check, also those that were skipped, with the reason."""
    headline: tuple[str, ...]
    """The result in a few lines for people: the handshakes before and after."""
    transcript: str
    """What was said on every connection, with times."""
    replaced: tuple[Nevra, ...] = ()
    """The target's own packages that the update replaced."""


def examine(
    signed: SignedRpms,
    self_test: SelfTest,
    target: Target,
    *,
    candidate: Path,
    beside: tuple[ExtraRepository, ...] = (),
    cache: Path,
    workspace: Path,
    progress: Progress,
    on_failure: Aftermath | None = None,
) -> Examination:
    """Examine the candidate repository of ``signed`` in a clean root of the target.

    ``candidate`` is the folder of the repository, its packages and metadata signed; ``beside`` is what
    servers have besides when they update. See `examine_candidate` for the rest.
    """
    return examine_candidate(
        candidate_of(signed, candidate, beside),
        self_test,
        target,
        cache=cache,
        workspace=workspace,
        progress=progress,
        on_failure=on_failure,
    )


def candidate_of(signed: SignedRpms, folder: Path, beside: tuple[ExtraRepository, ...] = ()) -> Candidate:
    """What a run is about to publish: its signed packages in the repository ``folder``."""
    key = Key(fingerprint=signed.fingerprint, file=signed.public_key)
    return Candidate(
        packages=tuple(rpm.nevra for rpm in signed.rpms),
        beside=beside,
        repository=ExtraRepository.of_folder(_CANDIDATE, folder, keys=(key,), repo_gpgcheck=True),
    )


def examine_candidate(
    candidate: Candidate,
    self_test: SelfTest,
    target: Target,
    *,
    cache: Path,
    workspace: Path,
    progress: Progress,
    on_failure: Aftermath | None = None,
) -> Examination:
    """Examine any repository in a clean root of the target, as a server meets it: by an update.

    ``cache`` keeps roots and downloads, ``workspace`` gets the logs; ``on_failure`` gets the root where a
    check stops. Raises HostError where this host cannot make or enter a root; everything else is in the
    checks.
    """
    kinds = [(KINDS[name], asked) for name, asked in self_test.asked().items()]
    ledger, after = Ledger(plan(self_test)), [one for kind, asked in kinds for one in kind.plan(asked)[1]]
    examiner: Examiner | None = None
    progress.note(f"installing {', '.join(self_test.install) or 'a clean root'}")
    with (
        ledger.step(
            "root.installed",
            expected=_INSTALLED,
            bars=("",),
            advice="Check the target's repositories, and the packages that the recipe's self-test installs.",
        ),
        clean_root(
            target, packages=self_test.install, cache=cache, workspace=workspace, on_failure=on_failure
        ) as root,
    ):
        ledger.record("root.installed", Finding.passed(expected=_INSTALLED, found=_INSTALLED))
        examiner = Examiner(
            root=root, candidate=candidate, wanted=self_test.update, workspace=workspace, ledger=ledger,
            after=tuple(after), progress=progress,
        )  # fmt: skip
        _examine(examiner, [kind(examiner, asked) for kind, asked in kinds])
        if on_failure and any(check.stops for check in ledger.checks()):
            on_failure(root)
    headline = examiner.headline if examiner else {}
    return Examination(
        checks=ledger.checks(),
        headline=tuple(f"{stage}: {result}" for stage, result in headline.items()),
        transcript="\n".join(examiner.transcripts if examiner else ()),
        replaced=tuple(examiner.replaced if examiner else ()),
    )


def plan(self_test: SelfTest) -> dict[str, str]:
    """Every check that the recipe asks for, id to title, in the order in which they are done."""
    plans = [KINDS[name].plan(asked) for name, asked in self_test.asked().items()]
    planned = {"root.installed": "the target's own packages install in a clean root"}
    for before, _ in plans:
        planned |= before
    planned["update.installed"] = "the update from the candidate repository installs its packages"
    for _, after in plans:
        planned |= after
    return planned


def passed(signed: SignedRpms, examination: Examination) -> TestedRpms:
    """The tested packages, for publishing. Raises SelfTestError that names the checks that failed."""
    failed = [check for check in examination.checks if check.stops]
    if failed:
        first = failed[0]
        raise SelfTestError(
            f"self-test failed: {', '.join(check.id for check in failed)}: {first.title}: "
            f"expected {first.expected}, found {first.found}",
            hint=first.advice,
            evidence=first.evidence.splitlines(),
        )
    return TestedRpms(
        signed=signed, checks=examination.checks, headline=examination.headline, replaced=examination.replaced
    )


def _examine(examiner: Examiner, kinds: Sequence[Kind]) -> None:
    for kind in kinds:
        kind.before()
    examiner.progress.note("updating from the candidate repository")
    if examiner.update():
        for kind in kinds:
            kind.after()
