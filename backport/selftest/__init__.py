"""The self-test: a clean root of the target, its own mail server, the update, the handshake after it.

Results are data. What can go wrong in the root is a check that failed; only a host that lacks
something raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Check, Finding, Nevra, SignedRpms, TestedRpms
from backport.errors import SelfTestError
from backport.probe.ledger import Ledger
from backport.progress import Progress
from backport.recipe import SelfTest
from backport.roots.root import Aftermath, ExtraRepository, clean_root
from backport.selftest import checks
from backport.selftest.authority import Authority
from backport.selftest.examiner import Candidate, Examiner
from backport.selftest.exim import ServerFiles
from backport.settings import Key
from backport.target import Target

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
    ledger = Ledger(checks.plan(self_test))
    headline: dict[str, str] = {}
    transcripts: list[str] = []
    replaced: list[Nevra] = []
    progress.note(f"installing {', '.join(self_test.install) or 'a clean root'}")
    with (
        ledger.step(
            "root.installed",
            expected=_INSTALLED,
            bars=("",),
            advice="Check the target's repositories, and the packages that the recipe's self-test installs.",
        ),
        clean_root(
            target,
            packages=self_test.install,
            cache=cache,
            workspace=workspace,
            on_failure=on_failure,
        ) as root,
    ):
        ledger.record("root.installed", Finding.passed(expected=_INSTALLED, found=_INSTALLED))
        files = ServerFiles.write(workspace / "exim", authority=Authority.create())
        examiner = Examiner(
            root=root,
            candidate=candidate,
            self_test=self_test,
            files=files,
            workspace=workspace,
            ledger=ledger,
            headline=headline,
            transcripts=transcripts,
            replaced=replaced,
        )
        _examine(examiner, progress)
        if on_failure and any(check.stops for check in ledger.checks()):
            on_failure(root)
    return Examination(
        checks=ledger.checks(),
        headline=tuple(f"{stage}: {result}" for stage, result in headline.items()),
        transcript="\n".join(transcripts),
        replaced=tuple(replaced),
    )


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


def _examine(examiner: Examiner, progress: Progress) -> None:
    tls = examiner.self_test.starttls
    if tls:
        progress.note("STARTTLS with the target's own packages")
        examiner.before(tls)
    progress.note("updating from the candidate repository")
    if not examiner.update():
        return
    if tls:
        progress.note("STARTTLS after the update")
        examiner.after(tls)
    examiner.commands()
