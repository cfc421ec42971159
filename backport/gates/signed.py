"""Gate ``signed``: every package is signed, and the folder and its metadata hold the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from backport.artifacts import Check, Finding, Rpm
from backport.errors import SignError, ToolError
from backport.files import digest_of
from backport.gates.subject import Subject
from backport.repodata import FOLDER, REPOMD, check_repodata
from backport.roots.root import clean_root
from backport.signing.sign import verify_file, verify_in_root
from backport.trust import nevra_of, read_header


def examine_signatures(subject: Subject) -> Iterator[Check]:
    """The gate's one check."""
    rpms = [_read(path) for path in sorted(subject.candidate.rglob("*.rpm"))]
    problems = [
        *(str(discrepancy) for discrepancy in check_repodata(subject.candidate)),
        *_metadata_signature(subject),
        *_foreign(subject, rpms),
        *_signatures(subject, [one for one in rpms if one.sha256 not in subject.accepted]),
    ]
    finding = Finding.unless(
        problems,
        expected=f"signed by {subject.signed.fingerprint}, accepted by the rpmkeys of {subject.target.name}",
        found=f"{len(rpms)} packages are, and {REPOMD}",
        evidence=[f"{one.sha256}  {one.nevra}" for one in rpms],
        advice="find out how that got into the candidate repository, then build again with --force",
    )
    yield Check.of(
        "gate.signed", "All packages and the metadata are signed, and they name each other", finding
    )


def _read(path: Path) -> Rpm:
    return Rpm(nevra=nevra_of(read_header(path)), path=path, sha256=digest_of(path))


def _metadata_signature(subject: Subject) -> Iterator[str]:
    signed = subject.signed
    repomd = subject.candidate / FOLDER / REPOMD
    try:
        verify_file(repomd, public_key=signed.public_key, fingerprint=signed.fingerprint)
    except ToolError as problem:
        yield problem.message


def _foreign(subject: Subject, rpms: Sequence[Rpm]) -> Iterator[str]:
    of_the_run = {one.sha256 for one in subject.signed.rpms}
    there = {one.sha256 for one in rpms}
    yield from (f"{one.nevra}: is no package of this run" for one in rpms if one.sha256 not in of_the_run)
    yield from (f"{one.nevra}: is missing" for one in subject.signed.rpms if one.sha256 not in there)


def _signatures(subject: Subject, rpms: Sequence[Rpm]) -> Iterator[str]:
    """What the target's own rpmkeys says of packages that it has not been asked about yet."""
    if not rpms:
        return
    workspace = subject.workspace / "signatures"
    with clean_root(subject.target, cache=subject.cache, workspace=workspace) as root:
        for one in rpms:
            try:
                verify_in_root(root, [one], subject.signed.public_key)
            except SignError as problem:
                yield problem.message
