"""Advisories: what ``updateinfo.xml`` says of an update, so that dnf can list it and take it by its kind.

Written and read by createrepo_c's bindings. CVE ids are those of the changelog entries that the target's
own package does not have yet.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import rpm as rpm_bindings

from backport.artifacts import Nevra, Rpm, TestedRpms
from backport.errors import PublishError, as_kind
from backport.files import scratch_folder, write_atomically
from backport.printable import xml_text
from backport.recipe import Advisory as Wishes
from backport.repodata import FOLDER, REPOMD, Compression, bindings, compression_of, nevra_of
from backport.trust import read_header

KIND = "updateinfo"
"""The type by which ``repomd.xml`` names the file."""
Kind = Literal["security", "bugfix", "enhancement"]

_CVE = re.compile(r"\bCVE-\d{4}-\d{4,19}\b", re.ASCII | re.IGNORECASE)
_EVR = re.compile(r"(?:(?P<epoch>\d+):)?(?P<version>[^\s:-]+)(?:-(?P<release>[^\s:-]+))?$")
_DIST = re.compile(r"\.(?:fc|el)\d[^-]*$")
"""The part of a release that changelog entries leave out."""
_WITHDRAWN = "BACKPORT-WITHDRAWN-"
_CVE_URL = "https://www.cve.org/CVERecord?id="


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Where to read more: a CVE record, a bug, or any page."""

    kind: Literal["cve", "bugzilla", "other"]
    id: str
    url: str


@dataclass(frozen=True, kw_only=True)
class AdvisoryPackage:
    """A package that an advisory brings."""

    nevra: Nevra
    filename: str
    sha256: str
    source: str
    """The file name of its source package."""


@dataclass(frozen=True, kw_only=True)
class Advisory:
    """One update as clients see it: why it is there, how urgent it is, and which packages make it up."""

    id: str
    kind: Kind
    severity: str
    title: str
    description: str
    issued: datetime
    publisher: str
    references: tuple[Reference, ...]
    packages: tuple[AdvisoryPackage, ...]

    @property
    def is_withdrawal(self) -> bool:
        """Whether it tells that its packages were taken back."""
        return self.id.startswith(_WITHDRAWN)

    @property
    def cves(self) -> tuple[str, ...]:
        """The ids of the CVEs that the update settles, in order."""
        return tuple(reference.id for reference in self.references if reference.kind == "cve")


@as_kind(PublishError)
def make_advisory(
    wishes: Wishes,
    rpms: Sequence[Rpm],
    *,
    summary: str,
    stock: Mapping[str, str],
    issued: datetime,
    publisher: str,
) -> Advisory:
    """The advisory for the packages that a run publishes.

    ``summary`` stands for a title where the recipe has none, ``stock`` gives the EVR of the target's own
    package by name. Without a wish the update is of kind ``security`` when a CVE is settled, else an
    enhancement. Raises PublishError when a header cannot be read.
    """
    headers = [(rpm, read_header(rpm.path)) for rpm in rpms]
    binaries = [(rpm, header) for rpm, header in headers if not header.isSource()]
    cves = sorted(
        {cve for rpm, header in binaries for cve in fixed_cves(header, stock.get(rpm.nevra.name))},
        key=_cve_order,
    )
    references = [Reference(kind="cve", id=cve, url=f"{_CVE_URL}{cve}") for cve in cves]
    references += [_reference(url) for url in wishes.references]
    identity = "\n".join(sorted(str(rpm.nevra) for rpm, _ in binaries))
    lines = [wishes.description, *(f"Settles {cve}." for cve in cves if cve not in wishes.description)]
    return Advisory(
        id=f"BACKPORT-{issued:%Y}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}",
        kind=wishes.type or ("security" if cves else "enhancement"),
        severity=wishes.severity or "None",
        title=wishes.title or summary,
        description="\n".join(filter(None, lines)) or summary,
        issued=issued,
        publisher=publisher,
        references=tuple(references),
        packages=tuple(
            AdvisoryPackage(
                nevra=rpm.nevra, filename=rpm.nevra.filename, sha256=rpm.sha256,
                source=_text(header[rpm_bindings.RPMTAG_SOURCERPM]),
            )
            for rpm, header in sorted(binaries, key=lambda item: item[0].nevra)
        ),
    )  # fmt: skip


def withdrawal(
    packages: Sequence[AdvisoryPackage],
    *,
    name: str,
    advice: str,
    reason: str,
    issued: datetime,
    publisher: str,
) -> Advisory:
    """What is told of packages that were taken back: hosts that have them are to do as ``advice`` says."""
    names = "\n".join(sorted(str(one.nevra) for one in packages))
    identity = hashlib.sha256(names.encode()).hexdigest()
    evr = packages[0].nevra.evr if packages else ""
    return Advisory(
        id=f"{_WITHDRAWN}{issued:%Y}-{identity[:8]}",
        kind="bugfix",
        severity="Important",
        title=f"Withdrawn: {name} {evr}".strip(),
        description="\n".join(filter(None, [reason, f"Hosts that have it: {advice}"])),
        issued=issued,
        publisher=publisher,
        references=(),
        packages=tuple(sorted(packages, key=lambda one: one.nevra)),
    )


def stock_evrs(tested: TestedRpms) -> dict[str, str]:
    """The EVR of the target's own package by name, for the packages of a run.

    Packages of one source package share their changelog: where one of them was not on the target, the
    stock EVR of another tells the same.
    """
    known = {nevra.name: nevra.evr for nevra in tested.replaced}
    found: dict[str, str] = {}
    for built in tested.signed.built:
        names = [rpm.nevra.name for rpm in built.rpms]
        any_of_it = next((known[name] for name in sorted(names) if name in known), None)
        found |= {name: evr for name in names if (evr := known.get(name, any_of_it))}
    return found


def fixed_cves(header: Any, stock: str | None) -> set[str]:
    """The CVE ids of a package's changelog entries that are newer than the EVR ``stock``.

    Without a stock package there is none that had been open on the target, so nothing counts.
    """
    if stock is None:
        return set()
    titles = [_text(title) for title in header[rpm_bindings.RPMTAG_CHANGELOGNAME]]
    texts = [_text(text) for text in header[rpm_bindings.RPMTAG_CHANGELOGTEXT]]
    return {
        found.upper()
        for text in new_entries(list(zip(titles, texts, strict=True)), stock)
        for found in _CVE.findall(text)
    }


def new_entries(changelog: Sequence[tuple[str, str]], stock: str) -> Iterator[str]:
    """The texts of the entries, the newest first, down to the first that ``stock`` has, too.

    Each entry is its title, which ends in an EVR by Fedora's custom ("Changelogs", Packaging Guidelines),
    and its text. An entry whose title names no EVR belongs to the one above it.
    """
    for title, text in changelog:
        words = title.split()
        if words and (match := _EVR.match(words[-1])) and words[-1][0].isdigit():
            evr = match["epoch"], match["version"], match["release"]
            if _compare(evr, stock) <= 0:
                return
        yield text


def add_updateinfo(folder: Path, advisories: Sequence[Advisory], *, compression: Compression) -> None:
    """Let the metadata of the repository ``folder`` name its advisories, the newest first.

    ``repomd.xml`` is replaced; it must be signed afterwards. Without advisories nothing is done. Raises
    PublishError when the metadata cannot be written.
    """
    if not advisories:
        return
    createrepo_c = bindings()
    target = folder / FOLDER
    repomd = createrepo_c.Repomd(str(target / REPOMD))
    form, suffix = compression_of(compression)
    with scratch_folder(folder, f".{FOLDER}.") as scratch:
        plain = scratch / f"{KIND}.xml"
        plain.write_text(to_xml(advisories), encoding="utf-8")
        try:
            createrepo_c.compress_file(str(plain), f"{plain}{suffix}", form)
            record = createrepo_c.RepomdRecord(KIND, f"{plain}{suffix}")
            record.fill(createrepo_c.SHA256)
            record.rename_file()
        except createrepo_c.CreaterepoCError as problem:
            raise PublishError(f"{target}: {KIND}.xml{suffix} cannot be written: {problem}") from None
        for file in scratch.glob(f"*{suffix}"):
            file.replace(target / file.name)
    repomd.set_record(record)
    (target / f"{REPOMD}.asc").unlink(missing_ok=True)
    write_atomically(target / REPOMD, repomd.xml_dump())


def read_advisories(folder: Path) -> tuple[Advisory, ...]:
    """The advisories that the repository ``folder`` has. Raises PublishError when they are damaged."""
    createrepo_c = bindings()
    try:
        for record in createrepo_c.Repomd(str(folder / FOLDER / REPOMD)).records:
            if record.type == KIND:
                updates = createrepo_c.UpdateInfo(str(folder / record.location_href)).updates
                return tuple(_from_record(update) for update in updates)
    except (createrepo_c.CreaterepoCError, OSError) as problem:
        raise PublishError(f"{folder / FOLDER}: the advisories cannot be read: {problem}") from None
    return ()


def still_here(advisories: Iterable[Advisory], is_here: Callable[[str], bool]) -> tuple[Advisory, ...]:
    """The advisories of which a package is here, as ``is_here`` says by its file name, and the withdrawals of
    which none is; the newest first.

    Of two with the same id the later word counts, with the day on which it was first issued.
    """
    by_id: dict[str, Advisory] = {}
    for one in advisories:
        if any(is_here(package.filename) for package in one.packages) != one.is_withdrawal:
            issued = min(one.issued, by_id[one.id].issued) if one.id in by_id else one.issued
            by_id[one.id] = replace(one, issued=issued)
    return tuple(sorted(by_id.values(), key=lambda one: (one.issued, one.id), reverse=True))


def to_xml(advisories: Iterable[Advisory]) -> str:
    """The text of ``updateinfo.xml``."""
    updates = bindings().UpdateInfo()
    for advisory in advisories:
        updates.append(_to_record(advisory))
    text: str = updates.xml_dump()
    return text


def _to_record(advisory: Advisory) -> Any:
    createrepo_c = bindings()
    record = createrepo_c.UpdateRecord()
    record.fromstr = xml_text(advisory.publisher)
    record.status = "final"
    record.type = advisory.kind
    record.version = "1"
    record.id = advisory.id
    record.title = xml_text(advisory.title)
    record.severity = advisory.severity
    record.summary = xml_text(advisory.title)
    record.description = xml_text(advisory.description)
    # The bindings write a time as it is given: naive, meant as UTC.
    record.issued_date = record.updated_date = advisory.issued.astimezone(UTC).replace(
        tzinfo=None, microsecond=0
    )
    for each in advisory.references:
        reference = createrepo_c.UpdateReference()
        reference.href, reference.id = xml_text(each.url), xml_text(each.id)
        reference.type, reference.title = each.kind, xml_text(each.id)
        record.append_reference(reference)
    collection = createrepo_c.UpdateCollection()
    collection.shortname, collection.name = "backport", "Backports"
    for package in advisory.packages:
        collection.append(_to_package(package))
    record.append_collection(collection)
    return record


def _to_package(package: AdvisoryPackage) -> Any:
    createrepo_c = bindings()
    entry = createrepo_c.UpdateCollectionPackage()
    nevra = package.nevra
    entry.name, entry.version, entry.release = nevra.name, nevra.version, nevra.release
    entry.epoch, entry.arch = str(nevra.epoch), nevra.arch
    entry.src, entry.filename = package.source, package.filename
    entry.sum, entry.sum_type = package.sha256, createrepo_c.SHA256
    return entry


def _from_record(record: Any) -> Advisory:
    packages = [package for collection in record.collections for package in collection.packages]
    return Advisory(
        id=record.id or "",
        kind=record.type if record.type in {"security", "bugfix"} else "enhancement",
        severity=record.severity or "None",
        title=record.title or "",
        description=record.description or "",
        issued=record.issued_date.replace(tzinfo=UTC),
        publisher=record.fromstr or "",
        references=tuple(
            Reference(
                kind=each.type if each.type in {"cve", "bugzilla"} else "other",
                id=each.id or "",
                url=each.href or "",
            )
            for each in record.references
        ),
        packages=tuple(
            AdvisoryPackage(
                nevra=nevra_of(package), filename=package.filename, sha256=package.sum or "",
                source=package.src or "",
            )
            for package in packages
        ),
    )  # fmt: skip


def _reference(url: str) -> Reference:
    if bug := re.search(r"bugzilla\.[^/]+/(?:show_bug\.cgi\?id=)?(\d+)$", url):
        return Reference(kind="bugzilla", id=bug[1], url=url)
    if cve := _CVE.search(url):
        return Reference(kind="cve", id=cve[0].upper(), url=url)
    return Reference(kind="other", id=url, url=url)


def _compare(evr: tuple[str | None, str, str | None], stock: str) -> int:
    """As rpm compares; an entry without an epoch or a release is compared without it."""
    match = re.fullmatch(r"(?:(\d+):)?([^:-]+)-([^:-]+)", stock)
    if not match:
        raise PublishError(f"{stock!r} is not an epoch:version-release")
    epoch, version, release = evr
    ours = (epoch or match[1] or "0", version, _DIST.sub("", release or match[3]))
    return int(rpm_bindings.labelCompare(ours, (match[1] or "0", match[2], _DIST.sub("", match[3]))))


def _cve_order(cve: str) -> tuple[int, int]:
    _, year, number = cve.split("-")
    return int(year), int(number)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
