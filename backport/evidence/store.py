"""The evidence in a generation: what each package came from and what was tested, signed, kept with it.

::

    generations/<id>/
        provenance.json  test-results.json  sbom.cdx.json      the newest of each, under a constant name
        provenance/<time>-<content>.provenance.json            one set for each run whose packages are here
        provenance/<time>-<content>.tests.json
        provenance/<time>-<content>.cdx.json

Each has its detached signature beside it. A set stays with its packages from generation to generation,
as it was signed, and goes with the last of them.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from backport.artifacts import Check, Finding, TestedRpms
from backport.errors import PublishError, ToolError, as_kind
from backport.evidence.intoto import (
    MAX_BYTES,
    ProvenanceStatement,
    Resource,
    Subject,
    TestStatement,
    read_statement,
)
from backport.evidence.provenance import Origin, PublishedFile, provenance_statement, test_statement
from backport.files import digest_of, digests_of, read_regular, write_atomically
from backport.repodata import read_primary
from backport.settings import Key
from backport.signing.detached import verify_file
from backport.signing.key import Signer
from backport.trust import fingerprints_in

FOLDER = "provenance"
PROVENANCE = ".provenance.json"
TESTS = ".tests.json"
SBOM = ".cdx.json"
NEWEST: Mapping[str, str] = {
    "provenance.json": PROVENANCE,
    "test-results.json": TESTS,
    "sbom.cdx.json": SBOM,
}
"""The constant names of the newest files, and the ends of their own names."""
PUBLIC_KEY = "RPM-GPG-KEY-backport"
_STATEMENT_TYPE = "application/vnd.in-toto+json"
_ADVICE = "do not install from it; compare it with another copy, or publish again"

_S = TypeVar("_S", ProvenanceStatement, TestStatement)
Link = Callable[[Path, Path], None]
"""Puts a file, the first path, at the second path as well."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one run adds to a generation's evidence: the texts by the ends of their names."""

    name: str
    texts: Mapping[str, str]


def new_evidence(
    tested: TestedRpms,
    origin: Origin,
    *,
    added: Sequence[PublishedFile],
    others: Sequence[PublishedFile] = (),
) -> Evidence:
    """The evidence for the packages that a run adds; what was tested is told of the ``others``, too.

    ``others`` are packages of the run that are published already. Raises PublishError when a header
    cannot be read, OSError.
    """
    from backport.evidence.sbom import bill_of_materials  # noqa: PLC0415  # its library takes long to import

    tests = test_statement(tested, origin, [*added, *others]).to_json()
    texts = {TESTS: tests}
    if added:
        proof = Resource(
            name="test-results.json",
            digest={"sha256": hashlib.sha256(tests.encode()).hexdigest()},
            media_type=_STATEMENT_TYPE,
            annotations={"role": "tests"},
        )
        texts[PROVENANCE] = provenance_statement(tested, origin, added, evidence=proof).to_json()
        texts[SBOM] = bill_of_materials(tested, added, vendor=origin.vendor, time=origin.finished)
    content = hashlib.sha256("".join(texts[end] for end in sorted(texts)).encode()).hexdigest()
    return Evidence(name=f"{origin.finished.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-{content[:12]}", texts=texts)


def place_evidence(
    generation: Path,
    evidence: Evidence | None,
    *,
    earlier: Sequence[Path],
    present: Mapping[str, str] | None,
    signer: Signer,
    link: Link,
) -> None:
    """Put evidence into a new generation: the new one, signed, and of ``earlier`` ones what still counts.

    ``present`` are the generation's packages, their digests by path; None: it has all that those have.
    Raises SignError, PublishError, OSError.
    """
    folder = generation / FOLDER
    folder.mkdir(exist_ok=True)
    for one in earlier:
        _carry_on(one, generation, present, link)
    if evidence is not None:
        for end, text in evidence.texts.items():
            path = folder / f"{evidence.name}{end}"
            write_atomically(path, text)
            signer.sign_file(path)
    for constant, end in NEWEST.items():
        if found := sorted(folder.glob(f"*{end}")):
            link(found[-1], generation / constant)
            link(found[-1].with_name(f"{found[-1].name}.asc"), generation / f"{constant}.asc")


def _carry_on(before: Path, generation: Path, present: Mapping[str, str] | None, link: Link) -> None:
    for name in _sets(before):
        files = sorted((before / FOLDER).glob(f"{name}.*"))
        if present is None or any(present.get(one.name) == one.sha256 for one in _subjects_of(before, name)):
            for file in files:
                if not (generation / FOLDER / file.name).exists():
                    link(file, generation / FOLDER / file.name)


def files(generation: Path) -> tuple[str, ...]:
    """The files of a generation's evidence, without their signatures."""
    names = [
        path.relative_to(generation).as_posix()
        for path in (generation / FOLDER).glob("*.json")
        if path.name.endswith((PROVENANCE, TESTS, SBOM))
    ]
    return (*sorted(names), *(name for name in NEWEST if (generation / name).exists()))


def digest_over(generation: Path) -> str:
    """The digest over a generation's evidence, every file of it with its name. Raises OSError."""
    found = digests_of([generation / name for name in files(generation)])
    return digest_of_all({path.relative_to(generation).as_posix(): one for path, one in found.items()})


def digest_of_all(digests: Mapping[str, str]) -> str:
    """The same, over digests that are known already, by their files' paths in the generation."""
    return hashlib.sha256(
        "\n".join(f"{digests[name]} {name}" for name in sorted(digests)).encode()
    ).hexdigest()


def statements(generation: Path) -> Iterator[tuple[str, ProvenanceStatement]]:
    """The provenance statements of a generation, the newest first, each with its set's name.

    Raises PublishError when one is damaged.
    """
    return _read_all(ProvenanceStatement, generation, PROVENANCE)


def test_results(generation: Path) -> Iterator[tuple[str, TestStatement]]:
    """The statements about tests in a generation, the newest first. Raises PublishError."""
    return _read_all(TestStatement, generation, TESTS)


def _read_all(kind: type[_S], generation: Path, end: str) -> Iterator[tuple[str, _S]]:
    for name in reversed(_sets(generation)):
        path = generation / FOLDER / f"{name}{end}"
        if path.is_file():
            yield name, _read(kind, path)


def _read(kind: type[_S], path: Path) -> _S:
    try:
        text = read_regular(path, limit=MAX_BYTES).decode("utf-8", "replace")
    except OSError as problem:
        raise PublishError(
            f"{path}: cannot be read: {problem.strerror}", hint="restore it from a copy"
        ) from None
    return read_statement(kind, text, name=f"{FOLDER}/{path.name}")


@as_kind(PublishError)
def verify_provenance(folder: Path, public_keys: Sequence[Path]) -> tuple[Check, ...]:
    """Check the evidence of a generation without a network: every signature, statement and package.

    ``folder`` is a generation's, or a target's with its ``current``. Of ``public_keys`` one must have
    signed each file. Raises PublishError when there is nothing to check, or a key cannot be read.
    """
    generation = folder / "current" if (folder / "current").exists() else folder
    generation = generation.resolve()
    if not (generation / FOLDER).is_dir():
        raise PublishError(
            f"{folder}: holds no evidence: there is no {FOLDER} folder",
            hint="give the folder of a target or of one of its generations",
        )
    keys = [
        Key(fingerprint=fingerprint, file=file)
        for file in public_keys
        for fingerprint in fingerprints_in(file)
    ]
    return (_check_signatures(generation, keys), *_check_statements(generation))


def key_beside(folder: Path) -> Path:
    """The public key that is published with a folder's packages. Raises PublishError when there is none."""
    for place in (folder, *folder.resolve().parents[:2]):
        if (found := place / PUBLIC_KEY).is_file():
            return found
    raise PublishError(f"{folder}: no {PUBLIC_KEY} lies beside it", hint="name the key's file by --key")


def _check_signatures(generation: Path, keys: Sequence[Key]) -> Check:
    paths = [path for path in (generation / FOLDER).iterdir() if path.suffix != ".asc"]
    paths += [generation / name for name in NEWEST if (generation / name).exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        unsigned = [why for why in pool.map(lambda path: _not_signed(path, keys), sorted(paths)) if why]
    names = ", ".join(key.fingerprint for key in keys)
    return _check(
        "provenance.signatures", "Every file of the evidence is signed", unsigned,
        expected=f"by {names}", good=f"{len(paths)} files signed",
    )  # fmt: skip


def _not_signed(path: Path, keys: Sequence[Key]) -> str:
    problem = "no key to check it by"
    for key in keys:
        try:
            verify_file(path, public_key=key.file, fingerprint=key.fingerprint)
        except ToolError as failure:
            problem = failure.message
        else:
            return ""
    return problem


def _check_statements(generation: Path) -> Iterator[Check]:
    try:
        found = list(statements(generation))
        tests = dict(test_results(generation))
    except PublishError as problem:
        yield _check("provenance.form", "The statements are what they should be", [problem.message])
        return
    yield _check(
        "provenance.form", "The statements are what they should be", _misplaced(generation),
        expected="in-toto Statement v1 with SLSA provenance v1", good=f"{len(found)} statements",
    )  # fmt: skip
    subjects = [subject for _, statement in found for subject in statement.subject]
    yield _check_packages(generation, subjects)
    yield _check_tests(generation, found, tests)


def _misplaced(generation: Path) -> list[str]:
    """What lies under a constant name must be the newest of its kind."""
    wrong = []
    for constant, end in NEWEST.items():
        newest = sorted((generation / FOLDER).glob(f"*{end}"))
        path = generation / constant
        if newest and not (path.is_file() and path.read_bytes() == newest[-1].read_bytes()):
            wrong.append(f"{constant} is not {FOLDER}/{newest[-1].name}")
    return wrong


def _check_packages(generation: Path, subjects: Sequence[Subject]) -> Check:
    """Each package must be the subject of just one statement, by its name and its digest.

    What is here for clients of another generation alone is explained there.
    """
    paths = {path.relative_to(generation).as_posix(): path for path in sorted(generation.rglob("*.rpm"))}
    paths = {name: path for name, path in paths.items() if not _is_on_loan(generation, name)}
    named = Counter((subject.name, subject.sha256) for subject in subjects)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(zip(paths, pool.map(_digest_of_plain, paths.values()), strict=True))
    names = {subject.name for subject in subjects}
    wrong = []
    for name, digest in digests.items():
        count = named[name, digest]
        if count > 1:
            wrong.append(f"{name}: {count} statements say how it was made")
        elif not count and name in names:
            wrong.append(f"{name}: is not the file that the statement is about, {digest}")
        elif not count:
            wrong.append(f"{name}: no statement says where it comes from")
    return _check(
        "provenance.packages", "One statement explains each package", wrong,
        expected="the same digest in the statement and in the file", good=f"{len(paths)} packages explained",
    )  # fmt: skip


def _digest_of_plain(path: Path) -> str:
    return digest_of(path) if path.is_file() and not path.is_symlink() else "no plain file"


def _is_on_loan(generation: Path, name: str) -> bool:
    """Whether a package is another generation's, which has it, and no client is told of it here."""
    folder, _, location = name.rpartition("/")
    if not any(other != generation and (other / name).exists() for other in generation.parent.iterdir()):
        return False
    try:
        return location not in {one.location_href for one in read_primary(generation / folder)}
    except ToolError:
        return False


def _check_tests(
    generation: Path,
    found: Sequence[tuple[str, ProvenanceStatement]],
    tests: Mapping[str, TestStatement],
) -> Check:
    """Each set's provenance must name its own statement about tests, and no failed test."""
    wrong = []
    for name, statement in found:
        path = generation / FOLDER / f"{name}{TESTS}"
        byproducts = statement.predicate.run_details.byproducts
        wanted = next((one.sha256 for one in byproducts if one.annotations.get("role") == "tests"), "")
        if not path.is_file() or digest_of(path) != wanted:
            wrong.append(f"{path.name}: is not what {name}{PROVENANCE} names")
        elif tests[name].predicate.result == "FAILED":
            wrong.append(f"{path.name}: failed tests: {', '.join(tests[name].predicate.failed_tests)}")
    return _check(
        "provenance.tests", "What was tested is with it", wrong,
        expected="no failed test, and the digest that the provenance names", good=f"{len(tests)} statements",
    )  # fmt: skip


def _check(id_: str, title: str, wrong: Sequence[str], *, expected: str = "", good: str = "") -> Check:
    return Check.of(id_, title, Finding.unless(wrong, expected=expected, found=good, advice=_ADVICE))


def _sets(generation: Path) -> list[str]:
    """The names of the sets, the oldest first."""
    folder = generation / FOLDER
    if not folder.is_dir():
        return []
    return sorted({path.name.split(".", 1)[0] for path in folder.iterdir() if path.name.endswith(".json")})


def _subjects_of(generation: Path, name: str) -> tuple[Subject, ...]:
    path = generation / FOLDER / f"{name}{PROVENANCE}"
    if path.is_file():
        return _read(ProvenanceStatement, path).subject
    path = path.with_name(f"{name}{TESTS}")
    return _read(TestStatement, path).subject


def age_of(name: str) -> datetime:
    """When a set of evidence was made, from its name."""
    return datetime.strptime(name.split("-", 1)[0], "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC)
