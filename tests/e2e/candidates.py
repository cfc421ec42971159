"""Candidate repositories as a run makes them before its self-test: signed packages, signed metadata."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import BuiltRpms, Nevra, Rpm, SignedRpms
from backport.files import locked
from backport.progress import Silent
from backport.repodata import write_repodata
from backport.runs.job import Stage, load_job
from backport.runs.report import RunReport
from backport.signing import sign
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny
from tests.lab.build import cache_folder
from tests.lab.layout import Lab
from tests.lab.serve import served


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Signed packages and the repository that holds them."""

    signed: SignedRpms
    folder: Path


def make_candidate(
    built: Sequence[BuiltRpms], *, signing: Signing, target: Target, folder: Path
) -> Candidate:
    """Sign packages below ``folder`` and describe them as a repository with signed metadata."""
    if not signing.gnupghome.exists():
        sign.init_key(signing, "backport <backport@example.org>")
    signed = sign.sign(built, signing=signing, target=target, workspace=folder)
    repository = folder / "candidate"
    repository.mkdir()
    for rpm in signed.rpms:
        shutil.copy(rpm.path, repository)
    describe(repository, signing=signing)
    return Candidate(signed=signed, folder=repository)


def describe(repository: Path, *, signing: Signing) -> None:
    """Make a folder of packages a repository whose metadata is signed."""
    write_repodata(repository, compression="gz")
    sign.sign_file(repository / "repodata" / "repomd.xml", signing)


def build_openssl(lab: Lab, folder: Path) -> tuple[BuiltRpms, ...]:
    """What the recipe openssl comes to in the lab, built by the tool as far as the stage of that name.

    Results are kept beside the lab, so that OpenSSL is compiled once.
    """
    from backport import pipeline  # noqa: PLC0415  # needs the host's bindings, which a collection does not

    cache = cache_folder() / "results"
    paths = {"cache": str(cache), "repository": str(folder / "repository")}
    with served(lab, folder, paths=paths) as services:
        job = load_job("openssl", "f28", services.site)
        sign.init_key(job.site.signing, "backport <backport@example.org>")
        # Another run of the tests may be at it: a second build of the recipe would not wait.
        with locked(cache / ".openssl.lock", timeout=3600, what="OpenSSL is being compiled"):
            report = pipeline.build(job, pipeline.Options(until=Stage.BUILD), Silent())
    assert report.outcome == "stopped", report.failure
    return _kept_results(cache / "built", report)


def _kept_results(store: Path, report: RunReport) -> tuple[BuiltRpms, ...]:
    stage = next(stage for stage in report.stages if stage.name is Stage.BUILD)
    wanted = {rpm["sha256"] for rpms in stage.details.values() for rpm in rpms}
    found: dict[str, BuiltRpms] = {}
    for path in sorted(store.glob("*/result.json")):
        manifest = json.loads(path.read_text())
        if wanted.issuperset(rpm["sha256"] for rpm in manifest["rpms"]):
            rpms = tuple(_rpm(path.parent, rpm) for rpm in manifest["rpms"])
            srpm = _rpm(path.parent, manifest["srpm"])
            source = tiny.patched(srpm)
            found[srpm.nevra.name] = BuiltRpms(patched=source, srpm=srpm, rpms=rpms, logs=(), builder="lab")
    assert {rpm.sha256 for one in found.values() for rpm in one.rpms} == wanted
    return tuple(found.values())


def _rpm(folder: Path, described: dict[str, object]) -> Rpm:
    path = folder / str(described["file"])
    nevra = described["nevra"]
    assert isinstance(nevra, dict)
    return Rpm(nevra=Nevra(**nevra), path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
