"""How published packages came to be, as in-toto statements: SLSA provenance, and what was tested.

A statement is about the packages that one run added to a generation. That of the provenance follows
"SLSA Provenance v1"; docs/provenance.md describes this build type's parameters. Nothing here reads more
than the run's own logs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backport import __version__
from backport.artifacts import BUILD_ROOT, BuiltRpms, Check, Nevra, TestedRpms, Verdict
from backport.evidence.intoto import (
    BuildDefinition,
    Builder,
    BuildMetadata,
    Provenance,
    ProvenanceStatement,
    Resource,
    RunDetails,
    Subject,
    TestResult,
    TestStatement,
)
from backport.files import digest_of
from backport.target import vendor_of

BUILD_TYPE = "pkg:generic/backport?build-type=rebuild-v1#docs/provenance.md"
"""A package URL with the place of the description in backport's own source."""
INLINE_LIMIT = 256 * 1024
"""Texts of up to so many bytes stand in the statement itself; of larger ones only the digest."""
RPM_MEDIA_TYPE = "application/x-rpm"
PACKAGE_LIST = "installed_pkgs.log"
LEVEL: Mapping[str, Any] = {
    "level": "SLSA_BUILD_LEVEL_1",
    "met": [
        "provenance exists for every package, is distributed with it, and names all parameters and sources",
        "provenance is signed by the key that signs the packages (a requirement of level 2)",
        "builds run unprivileged, without network, in a root made for them alone; the key is never in it",
    ],
    "not_met": [
        "hosted (level 2): backport runs on whatever machine its user chose",
        "unforgeable (level 3): whoever is root on that machine can use the key",
        "isolated (level 3): no platform separates one build from another, or from the machine's owner",
    ],
}
"""What SLSA's Build track asks for ("Requirements", Build levels), and what of it can be claimed."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run knows about its packages beyond the artifacts: what was asked, when, with which checks."""

    run: str
    recipe: str
    target: str
    vendor: str = "fedora"
    """The namespace of the target's package URLs; see `backport.target.Target.namespace`."""
    started: datetime
    finished: datetime
    parameters: Mapping[str, Any]
    """The recipe as it was in force, ready for JSON."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """The digests that decide the result, by name."""
    patches: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """For each source package its patch files' SHA-256 digests, by file."""
    gates: tuple[Check, ...] = ()
    """The checks before publishing."""
    transcript: str = ""
    """What the self-test's programs said to each other."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A package as it lies in a generation."""

    path: str
    """Relative to the generation's folder."""
    nevra: str
    sha256: str


def provenance_statement(
    tested: TestedRpms, origin: Origin, files: Sequence[PublishedFile], *, evidence: Resource
) -> ProvenanceStatement:
    """How ``files``, which are among the packages of ``tested``, were made.

    ``evidence`` stands for the statement about their tests. Raises OSError when a log cannot be read.
    """
    signed = tested.signed
    definition = BuildDefinition(
        build_type=BUILD_TYPE,
        external_parameters={
            "recipe": origin.recipe,
            "target": origin.target,
            "parameters": dict(origin.parameters),
        },
        internal_parameters={
            "builders": sorted({built.builder for built in signed.built}),
            "inputs": dict(origin.inputs),
            "options": {_name(built): list(built.patched.options.arguments()) for built in signed.built},
        },
        resolved_dependencies=tuple(
            resource for built in signed.built for resource in _dependencies(built, origin)
        ),
    )
    details = RunDetails(
        builder=Builder(
            id=f"openpgp4fpr:{signed.fingerprint}",
            version={
                "backport": __version__,
                "builder": "; ".join(sorted({b.builder for b in signed.built})),
            },
        ),
        metadata=BuildMetadata(
            invocation_id=origin.run,
            started_on=_timestamp(origin.started),
            finished_on=_timestamp(origin.finished),
        ),
        byproducts=(evidence, *(resource for built in signed.built for resource in _byproducts(built))),
    )
    return ProvenanceStatement(
        subject=tuple(_subjects(tested, files)),
        predicate=Provenance(build_definition=definition, run_details=details, slsa=_level(signed.built)),
    )


def test_statement(tested: TestedRpms, origin: Origin, files: Sequence[PublishedFile]) -> TestStatement:
    """What the self-test and the gates found in ``files``; a check that was skipped is in neither list."""
    checks = (*tested.checks, *origin.gates)
    by_verdict = {
        verdict: tuple(check.id for check in checks if check.verdict is verdict) for verdict in Verdict
    }
    failed = by_verdict[Verdict.FAIL] + by_verdict[Verdict.ERROR]
    result = "FAILED" if failed else "WARNED" if by_verdict[Verdict.WARN] else "PASSED"
    return TestStatement(
        subject=tuple(_subjects(tested, files)),
        predicate=TestResult(
            result=result,
            configuration=(
                Resource.of_text(
                    f"{origin.recipe}.self_test", repr(origin.parameters.get("self_test", {})),
                    media_type="text/plain", limit=INLINE_LIMIT,
                ),
            ),
            passed_tests=by_verdict[Verdict.PASS],
            warned_tests=by_verdict[Verdict.WARN],
            failed_tests=failed,
            checks=tuple(asdict(check) for check in checks),
            headline=tested.headline,
            transcript=_transcript(origin),
        ),
    )  # fmt: skip


def purl(nevra: Nevra, vendor: str) -> str:
    """The package URL of an RPM (purl specification, type ``rpm``) in its vendor's namespace.

    >>> purl(Nevra(name="openssl-libs", epoch=1, version="1.1.1a", release="1.fc29", arch="x86_64"), "fedora")
    'pkg:rpm/fedora/openssl-libs@1.1.1a-1.fc29?arch=x86_64&epoch=1'
    """
    epoch = f"&epoch={nevra.epoch}" if nevra.epoch else ""
    version = f"{nevra.version}-{nevra.release}".replace("+", "%2B").replace("^", "%5E")
    return f"pkg:rpm/{vendor}/{nevra.name.replace('+', '%2B')}@{version}?arch={nevra.arch}{epoch}"


def source_purl(nevra: Nevra) -> str:
    """The package URL of a package that a vendor's release brought: whose it is, is told by its release."""
    dist = re.search(r"\.(fc|el|amzn)[0-9]", nevra.release)
    return purl(nevra, vendor_of(dist[0]) if dist else "fedora")


def _level(built: Sequence[BuiltRpms]) -> dict[str, Any]:
    """What can be claimed of these builds: mock's simple isolation leaves a build the host's network."""
    if not any("isolation=simple" in one.builder for one in built):
        return dict(LEVEL)
    met = [line.replace(" without network,", "") for line in LEVEL["met"]]
    return {
        **LEVEL,
        "met": met,
        "not_met": ["builds had the host's network and processes", *LEVEL["not_met"]],
    }


def _name(built: BuiltRpms) -> str:
    return built.patched.source.rpm.nevra.name


def _dependencies(built: BuiltRpms, origin: Origin) -> Iterator[Resource]:
    source = built.patched.source
    yield Resource(
        name=source.rpm.nevra.filename,
        uri=source_purl(source.rpm.nevra),
        digest={"sha256": source.rpm.sha256},
        download_location=source.url,
        media_type=RPM_MEDIA_TYPE,
        annotations={
            "package": _name(built),
            "role": "source",
            **source.origin,
            "signed_by": source.signing_key,
        },
    )
    for file, digest in origin.patches.get(_name(built), {}).items():
        yield Resource(
            name=file, digest={"sha256": digest}, annotations={"package": _name(built), "role": "patch"}
        )
    yield from _build_root(built)


def _build_root(built: BuiltRpms) -> Iterator[Resource]:
    """The packages of the root that it was built in, with address and digest where they are known."""
    for log in built.logs:
        if log.name == BUILD_ROOT:
            for one in json.loads(log.read_text(encoding="utf-8")):
                nevra = Nevra.parse(one["nevra"])
                yield Resource(
                    name=nevra.filename,
                    uri=source_purl(nevra),
                    digest={"sha256": one["sha256"]} if "sha256" in one else {},
                    download_location=one.get("url"),
                    media_type=RPM_MEDIA_TYPE,
                    annotations={"package": _name(built), "role": "buildroot"},
                )


def _byproducts(built: BuiltRpms) -> Iterator[Resource]:
    name = _name(built)
    yield Resource.of_text(
        f"{name}.diff", built.patched.diff, media_type="text/x-diff", limit=INLINE_LIMIT,
        package=name, role="diff", patched_source=built.patched.sha256,
    )  # fmt: skip
    for log in built.logs:
        if log.name != BUILD_ROOT:
            yield _log(log, name)


def _log(path: Path, package: str) -> Resource:
    """A log's digest; the list of the buildroot's packages in whole."""
    if path.name == PACKAGE_LIST:
        text = path.read_text(encoding="utf-8", errors="replace")
        return Resource.of_text(
            f"{package}/{path.name}", text, media_type="text/plain", limit=INLINE_LIMIT,
            package=package, role="buildroot",
        )  # fmt: skip
    return Resource(
        name=f"{package}/{path.name}",
        digest={"sha256": digest_of(path)},
        media_type="text/plain",
        annotations={"package": package, "role": "log"},
    )


def _subjects(tested: TestedRpms, files: Sequence[PublishedFile]) -> Iterator[Subject]:
    """Each file with the source package that it was built from, and its digest before it was signed."""
    sources: dict[str, tuple[BuiltRpms, str]] = {}
    for built in tested.signed.built:
        for rpm in (built.srpm, *built.rpms):
            sources[str(rpm.nevra)] = (built, rpm.sha256)
    for file in sorted(files, key=lambda file: file.path):
        built, unsigned = sources[file.nevra]
        yield Subject(
            name=file.path,
            digest={"sha256": file.sha256},
            media_type=RPM_MEDIA_TYPE,
            annotations={
                "nevra": file.nevra,
                "package": _name(built),
                "source": built.srpm.nevra.filename,
                "signed_by": tested.signed.fingerprint,
                "sha256_unsigned": unsigned,
            },
        )


def _transcript(origin: Origin) -> Resource | None:
    if not origin.transcript:
        return None
    return Resource.of_text(
        "transcript.txt", origin.transcript, media_type="text/plain", limit=INLINE_LIMIT, role="transcript"
    )


def _timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, as SLSA's fields of type Timestamp want it."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
