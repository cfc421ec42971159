"""What travels through the pipeline: each stage takes the artifact before it and gives the next.

The types are the order: signing takes only what was built, the self-test only what was signed,
publishing only what was tested.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from backport.errors import BackportError
from backport.printable import harmless

_NVR = re.compile(r"(?P<name>[A-Za-z0-9._+-]+)-(?P<version>[A-Za-z0-9._+~^]+)-(?P<release>[A-Za-z0-9._+~^]+)")


@dataclass(frozen=True, kw_only=True, order=True)
class Nevra:
    """Name, epoch, version, release and architecture of one package (``src`` for an SRPM).

    The ordering is that of the fields as text; EVRs are compared with ``rpm.labelCompare``.
    """

    name: str
    epoch: int = 0
    version: str
    release: str
    arch: str

    @classmethod
    def from_nvr(cls, nvr: str, *, arch: str = "src", epoch: int = 0) -> Nevra:
        """The NEVRA for a name-version-release as Koji writes it. Raises ValueError.

        >>> Nevra.from_nvr("crypto-policies-20181026-1.fc29").version
        '20181026'
        """
        match = _NVR.fullmatch(nvr)
        if not match:
            raise ValueError(f"{nvr!r} is not a name-version-release")
        return cls(epoch=epoch, arch=arch, **match.groupdict())

    @classmethod
    def parse(cls, text: str) -> Nevra:
        """The NEVRA that ``str`` wrote. Raises ValueError.

        >>> Nevra.parse("openssl-libs-1:1.1.1w-1.fc28.x86_64").epoch
        1
        """
        nevr, _, arch = text.rpartition(".")
        match = re.fullmatch(r"(.+)-(?:(\d+):)?([^-:]+-[^-:]+)", nevr)
        if not match or not arch:
            raise ValueError(f"{text!r} is not a name-epoch:version-release.arch")
        return cls.from_nvr(f"{match[1]}-{match[3]}", arch=arch, epoch=int(match[2] or 0))

    @property
    def nvr(self) -> str:
        """``name-version-release``, Koji's name for a build."""
        return f"{self.name}-{self.version}-{self.release}"

    @property
    def evr(self) -> str:
        """``epoch:version-release``, the epoch only where there is one."""
        epoch = f"{self.epoch}:" if self.epoch else ""
        return f"{epoch}{self.version}-{self.release}"

    @property
    def filename(self) -> str:
        """The file name that rpm gives the package; it has no epoch."""
        return f"{self.nvr}.{self.arch}.rpm"

    def __str__(self) -> str:
        return f"{self.name}-{self.evr}.{self.arch}"


def is_for_debugging(name: str) -> bool:
    """Whether a package of this name holds debugging information or sources (rpm's own names)."""
    return name.endswith(("-debuginfo", "-debugsource"))


BUILD_ROOT = "buildroot.json"
"""The file beside a build's logs with where each package of its root came from."""
BY_HAND = "by-hand"
"""The folder beside a failed build's logs with what it takes to build it again by hand."""


@dataclass(frozen=True, kw_only=True)
class Rpm:
    """One package file, with the digest it had when it entered the pipeline."""

    nevra: Nevra
    path: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class SourceRpm:
    """A verified source package: what was asked for, intact, signed by a pinned key."""

    rpm: Rpm
    origin: Mapping[str, str | int] = field(default_factory=dict)
    """What its source alone knows it by, such as ``koji_build``."""
    url: str
    signing_key: str
    """Fingerprint (40 upper-case hex) of the pinned key whose signature verified."""
    build_requires: tuple[str, ...]
    """Names of the header's BuildRequires, without versions."""
    changelog_time: int
    """Time of the newest changelog entry, seconds since the epoch: SOURCE_DATE_EPOCH."""
    digest: str = "not stated"
    """By whom the file's SHA-256 was stated; where it was not, the signature alone vouches for it."""


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How rpmbuild is asked to build: bconds, macros, whether %check runs, the deadline in seconds; and its
    limits of processes, memory (in MiB) and open files, None: what the host gives."""

    with_: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    macros: Mapping[str, str] = field(default_factory=dict)
    check: bool = True
    timeout: int = 4 * 3600
    processes: int | None = None
    memory: int | None = None
    files: int | None = None

    def arguments(self) -> tuple[str, ...]:
        """The options as rpmbuild and mock both spell them (``--with``, ``--without``, ``--define``)."""
        return (
            *(word for name in self.with_ for word in ("--with", name)),
            *(word for name in self.without for word in ("--without", name)),
            *(word for macro in sorted(self.macros.items()) for word in ("--define", " ".join(macro))),
        )


@dataclass(frozen=True, kw_only=True)
class PatchedSrpm:
    """An unpacked source package after the recipe's edits.

    It stays a spec beside its sources until a builder packs it inside the build root: packing
    expands macros, and no foreign macro is expanded on the host.
    """

    source: SourceRpm
    spec: Path
    sources: Path
    """Folder with every file that the spec names, the added patches included."""
    sha256: str
    """Digest over the names and contents of the spec and all sources."""
    diff: str
    """The whole change to the spec as a unified diff, followed by the added patches' own text."""
    options: BuildOptions
    above: Nevra | None = None
    """The newest of the target's own packages of this source, which the result has to be above, if known."""
    bounded: bool = True
    """Whether the result has to be between that and the source's EVR: a recipe may make it a warning."""


@dataclass(frozen=True, kw_only=True)
class BuiltRpms:
    """One package's result: the packed SRPM, the binary RPMs, the logs, and what built it."""

    patched: PatchedSrpm
    srpm: Rpm
    rpms: tuple[Rpm, ...]
    logs: tuple[Path, ...]
    """build.log, root.log and installed_pkgs.log."""
    builder: str
    """The builder's name and version, such as ``mock 6.7`` or ``chroot (rpm 4.18.0)``."""


@dataclass(frozen=True, kw_only=True)
class SignedRpms:
    """All packages of a run, signed by one key and verified with a keyring that holds it alone."""

    built: tuple[BuiltRpms, ...]
    srpms: tuple[Rpm, ...]
    rpms: tuple[Rpm, ...]
    fingerprint: str
    public_key: Path


class Verdict(StrEnum):
    """The outcome of one check."""

    PASS = "pass"
    FAIL = "fail"
    WARN = "warn"
    SKIPPED = "skipped"
    ERROR = "error"


EVIDENCE_LIMIT = 20_000
"""Characters kept of a check's evidence."""
_EVIDENCE_LINES = 60
_LINE_LIMIT = 2000
_NAMED = 5
"""How many of several problems a short answer names."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an examination came to, whichever check it answers; see `Check` for the fields."""

    verdict: Verdict
    expected: str = ""
    found: str = ""
    evidence: str = ""
    advice: str = ""

    @classmethod
    def passed(cls, found: str, *, expected: str = "", evidence: str = "") -> Finding:
        """What was examined is as it should be."""
        return cls(verdict=Verdict.PASS, expected=expected, found=found, evidence=evidence)

    @classmethod
    def judged(cls, *, good: bool, expected: str, found: str, evidence: str = "", advice: str) -> Finding:
        """A pass or, where it is not ``good``, a fail with one sentence of advice."""
        verdict = Verdict.PASS if good else Verdict.FAIL
        return cls(verdict=verdict, expected=expected, found=found, evidence=evidence, advice=advice)

    @classmethod
    def skipped(cls, reason: str) -> Finding:
        """A check that does not apply, or could not be done because of something else."""
        return cls(verdict=Verdict.SKIPPED, advice=reason)

    @classmethod
    def of_problem(
        cls, problem: BackportError, *, expected: str = "", advice: str, verdict: Verdict = Verdict.FAIL
    ) -> Finding:
        """What failed, with its evidence; ``advice`` is for a problem that has no hint of its own."""
        log = [f"log: {problem.log}"] if problem.log else []
        return cls(
            verdict=verdict, expected=expected, found=problem.message,
            evidence="\n".join((*problem.evidence, *log)), advice=problem.hint or advice,
        )  # fmt: skip

    @classmethod
    def unless(
        cls,
        problems: Sequence[str],
        *,
        expected: str,
        found: str,
        evidence: Sequence[str] = (),
        advice: str,
        verdict: Verdict = Verdict.FAIL,
    ) -> Finding:
        """A pass that says what was ``found``, or a ``verdict`` that names the ``problems``."""
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        return cls(
            verdict=verdict if problems else Verdict.PASS,
            expected=expected,
            found="; ".join(problems[:_NAMED]) + more if problems else found,
            evidence="\n".join([*problems, *evidence][:_EVIDENCE_LINES]),
            advice=advice,
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was examined: what was expected, what was found, and the evidence for it."""

    id: str
    """Stable, parts in lower case between full stops: it also names the JUnit test case."""
    title: str
    verdict: Verdict
    expected: str = ""
    found: str = ""
    evidence: str = ""
    advice: str = ""
    """What to do about a `fail`, `error` or `warn`; for `skipped`, the reason."""

    @classmethod
    def of(cls, check_id: str, title: str, finding: Finding) -> Check:
        """The one way to make a check: what others wrote is bounded and made harmless for a terminal, and a
        pass has no advice."""
        return cls(
            id=check_id,
            title=title,
            verdict=finding.verdict,
            expected=_line(finding.expected),
            found=_line(finding.found),
            evidence=harmless(finding.evidence[:EVIDENCE_LIMIT]),
            advice="" if finding.verdict is Verdict.PASS else _line(finding.advice),
        )

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Check:
        """A check as a report or the evidence has it; a verdict that is not known is no pass."""
        texts = {one.name: str(data.get(one.name, "")) for one in fields(cls)}
        verdict = texts.pop("verdict")
        return cls(verdict=Verdict(verdict) if verdict in set(Verdict) else Verdict.ERROR, **texts)

    @property
    def stops(self) -> bool:
        """Whether this outcome forbids publishing."""
        return self.verdict in (Verdict.FAIL, Verdict.ERROR)


@dataclass(frozen=True, kw_only=True)
class TestedRpms:
    """Signed packages of which every check of the self-test passed."""

    __test__ = False

    signed: SignedRpms
    checks: tuple[Check, ...]
    headline: tuple[str, ...] = ()
    """The result in a few lines for people, such as the handshakes before and after."""
    replaced: tuple[Nevra, ...] = ()
    """The target's own packages that these replaced in the self-test's root."""

    def __post_init__(self) -> None:
        _require_passed(self.checks)


@dataclass(frozen=True, kw_only=True)
class GatedRpms:
    """Tested packages that no gate keeps from being published."""

    tested: TestedRpms
    checks: tuple[Check, ...]
    """What the gates found."""

    def __post_init__(self) -> None:
        _require_passed(self.checks)


@dataclass(frozen=True, kw_only=True)
class PublishedRepo:
    """A generation of a repository: one that clients see, or one that is proven before they do."""

    gated: GatedRpms
    folder: Path
    """The target's folder: ``current``, ``generations``, ``backport.repo`` and the public key."""
    generation: str
    content: Path
    """The generation's own folder; until it is proven it has not its own name."""
    repo_file: Path
    base_url: str
    checks: tuple[Check, ...]
    """The proof that a client installs from it."""


def _line(text: str) -> str:
    return harmless(text[:_LINE_LIMIT].replace("\n", " "))


def _require_passed(checks: tuple[Check, ...]) -> None:
    if not checks:
        raise ValueError("without a check nothing is proved")
    if failed := [check.id for check in checks if check.stops]:
        raise ValueError(f"checks failed: {', '.join(failed)}")
