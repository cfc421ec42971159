"""What was seen inside the root, judged: packages, the daemon's library, programs that ran there.

Everything here is pure, as in ``checks``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backport.artifacts import Finding, Nevra
from backport.probe.ledger import Ledger, tail
from backport.recipe import Handshake

_LIBRARY_VERSION = re.compile(
    r"^Library version: OpenSSL: Compile: (.+)\n\s+Runtime: (?:OpenSSL )?([^\s-]+)", re.MULTILINE
)
_BRIEF_PROTOCOL = re.compile(r"^Protocol version: (\S+)", re.MULTILINE)
_BRIEF_CIPHER = re.compile(r"^Ciphersuite: (\S+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class MappedFile:
    """A file that a process has mapped, and whether it has been removed or replaced since."""

    path: str
    deleted: bool


@dataclass(frozen=True, kw_only=True)
class ProgramResult:
    """What a program that ran inside the root left behind."""

    exit_code: int
    output: str


def mapped_files(maps: str, prefix: str) -> tuple[MappedFile, ...]:
    """The files whose names begin with ``prefix`` in a process's memory map (proc_pid_maps(5))."""
    paths = {fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6}
    return tuple(
        MappedFile(path=path.removesuffix(" (deleted)"), deleted=path.endswith(" (deleted)"))
        for path in sorted(paths)
        if path.rpartition("/")[2].startswith(prefix)
    )


def judge_maps(ledger: Ledger, files: Sequence[MappedFile]) -> None:
    """One libssl, and the one that is on disk."""
    found = ", ".join(file.path + (" (deleted)" if file.deleted else "") for file in files)
    ledger.record(
        "library.maps",
        Finding.judged(
            good=len(files) == 1 and not files[0].deleted,
            expected="one libssl, on disk",
            found=found or "no libssl",
            evidence=found,
            advice="Restart Exim after the update: a running daemon keeps the library it was started with.",
        ),
    )
    if not files:
        ledger.bar(("library.owner",), "library.maps: no libssl is mapped")


def judge_owner(ledger: Ledger, path: str, owner: Nevra | None, candidate: Nevra | None, name: str) -> None:
    """The package that owns the mapped library, against the candidate's."""
    ledger.record(
        "library.owner",
        Finding.judged(
            good=owner is not None and owner == candidate,
            expected=str(candidate or f"a {name} in the candidate repository"),
            found=str(owner or "no package"),
            evidence=path,
            advice=f"Find out with `dnf update {name}` why the candidate's package is not the one installed.",
        ),
    )


def judge_runtime_version(ledger: Ledger, result: ProgramResult, candidate: Nevra | None) -> None:
    """The library that Exim itself says it runs with."""
    match = _LIBRARY_VERSION.search(result.output)
    expected = candidate.version if candidate else "the candidate's version"
    ledger.record(
        "library.runtime-version",
        Finding.judged(
            good=match is not None and candidate is not None and match[2] == candidate.version,
            expected=expected,
            found=match[2] if match else "Exim names no OpenSSL",
            evidence=match[0] if match else tail(result.output),
            advice="Check with `ldd /usr/sbin/exim` which libssl Exim is linked to, if any.",
        ),
    )


def judge_s_client(ledger: Ledger, result: ProgramResult, expected: Handshake) -> None:
    """The second opinion: OpenSSL's own client, which exits with 0 only for a verified session."""
    found = " ".join(
        match[1] for match in (p.search(result.output) for p in (_BRIEF_PROTOCOL, _BRIEF_CIPHER)) if match
    )
    wanted = f"{expected.protocol} {expected.cipher or ''}".strip()
    ledger.record(
        "after.s-client",
        Finding.judged(
            good=result.exit_code == 0 and f"{found} ".startswith(f"{wanted} "),
            expected=f"exit code 0, {wanted}",
            found=f"exit code {result.exit_code}, {found or 'no session'}",
            evidence=tail(result.output),
            advice="Run `openssl s_client -starttls smtp` by hand in an updated system; read what it says.",
        ),
    )


def judge_update(
    ledger: Ledger, installed: Iterable[Nevra], candidates: Sequence[Nevra], required: Iterable[str]
) -> None:
    """The packages after the update: of the candidate's names only its versions, and the required ones."""
    by_name = {nevra.name: nevra for nevra in candidates}
    present = {nevra.name: nevra for nevra in installed if nevra.name in by_name}
    wrong = [str(nevra) for name, nevra in sorted(present.items()) if nevra != by_name[name]]
    missing = [f"no {name}" for name in sorted(set(required) - set(present))]
    fresh = [str(nevra) for name, nevra in sorted(present.items()) if nevra == by_name[name]]
    ledger.record(
        "update.installed",
        Finding.judged(
            good=bool(fresh) and not wrong and not missing,
            expected=", ".join(str(by_name[name]) for name in sorted(present))
            or "a package of the candidate's",
            found=", ".join([*wrong, *missing, *fresh]) or "none of the candidate's packages",
            advice="Compare the EVRs: the candidate's must be above what the target's repositories have.",
        ),
    )
