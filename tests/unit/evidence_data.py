"""A small run as the stages leave it, with package files written byte by byte."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from backport.artifacts import (
    BuildOptions,
    BuiltRpms,
    Check,
    Nevra,
    PatchedSrpm,
    Rpm,
    SignedRpms,
    SourceRpm,
    TestedRpms,
    Verdict,
)
from backport.evidence.provenance import Origin, PublishedFile
from tests.unit.rpmfile import Package

STARTED = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
FINISHED = datetime(2026, 11, 24, 3, 20, tzinfo=UTC)
FINGERPRINT = "A" * 40
FEDORA_KEY = "F" * 40
DIFF = "--- a/tiny.spec\n+++ b/tiny.spec\n@@ -1 +1 @@\n-Release: 1\n+Release: 1.bp1\n"


@dataclass(frozen=True, kw_only=True)
class SmallRun:
    """What was tested, where it came from, and its files as a generation would name them."""

    tested: TestedRpms
    origin: Origin
    files: tuple[PublishedFile, ...]


def small_run(folder: Path, *, diff: str = DIFF, checks: tuple[Check, ...] | None = None) -> SmallRun:
    """One source package and one binary package, signed and tested."""
    srpm = _rpm(folder, "src", source=True)
    binary = _rpm(folder, "noarch", source=False)
    log = folder / "installed_pkgs.log"
    log.write_text("bash-5.2-1.fc28.x86_64 1 2 installed\nrpm-4.14-1.fc28.x86_64 1 2 installed\n")
    origins = folder / "buildroot.json"
    compiler = {
        "nevra": "gcc-8.0-1.fc28.x86_64",
        "url": "https://mirror.example.org/gcc.rpm",
        "sha256": "9" * 64,
    }
    origins.write_text(json.dumps([compiler, {"nevra": "bash-5.2-1.fc28.x86_64"}]))
    build_log = folder / "build.log"
    build_log.write_text("built\n")
    nevra = Nevra(name="tiny", version="1", release="1.fc29", arch="src")
    source = SourceRpm(
        rpm=Rpm(nevra=nevra, path=srpm.path, sha256="5" * 64), changelog_time=0,
        origin={"koji_build": 42},
        url="https://koji.example.org/tiny.src.rpm", signing_key=FEDORA_KEY, build_requires=(),
    )  # fmt: skip
    patched = PatchedSrpm(
        source=source, spec=log, sources=folder, sha256="6" * 64, diff=diff,
        options=BuildOptions(with_=("ssl",)),
    )  # fmt: skip
    built = BuiltRpms(
        patched=patched,
        srpm=srpm,
        rpms=(binary,),
        logs=(build_log, log, origins),
        builder="chroot (rpm 4.18.0)",
    )  # fmt: skip
    signed = SignedRpms(
        built=(built,), srpms=(srpm,), rpms=(binary,), fingerprint=FINGERPRINT, public_key=log
    )
    found = checks or (
        Check(id="starttls.after", title="TLS 1.3 is spoken", verdict=Verdict.PASS, found="TLSv1.3"),
    )
    origin = Origin(
        run="20261124T030000.000000Z-tiny-f28", recipe="tiny", target="f28", started=STARTED,
        finished=FINISHED, parameters={"summary": "Tiny", "self_test": {"commands": []}},
        inputs={"target": "7" * 64}, patches={"tiny": {"tiny/fix.patch": "8" * 64}},
        gates=(Check(id="gate.signed", title="All is signed", verdict=Verdict.WARN, advice="known"),),
        transcript="S: 220 ready\n",
    )  # fmt: skip
    files = (
        PublishedFile(path="source/tiny-1-1.src.rpm", nevra=str(srpm.nevra), sha256=srpm.sha256),
        PublishedFile(path="x86_64/tiny-1-1.noarch.rpm", nevra=str(binary.nevra), sha256=binary.sha256),
    )
    return SmallRun(tested=TestedRpms(signed=signed, checks=found), origin=origin, files=files)


def generation(folder: Path, run: SmallRun) -> dict[str, str]:
    """Put the run's packages where a generation has them; their digests by path."""
    packages = (*run.tested.signed.srpms, *run.tested.signed.rpms)
    for file, rpm in zip(run.files, packages, strict=True):
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.path).write_bytes(rpm.path.read_bytes())
    return {file.path: file.sha256 for file in run.files}


def _rpm(folder: Path, arch: str, *, source: bool) -> Rpm:
    nevra = Nevra(name="tiny", version="1", release="1", arch=arch)
    path = folder / nevra.filename
    path.write_bytes(Package(files=[], source=source).to_bytes())
    return Rpm(nevra=nevra, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
