"""What the stand-in Koji knows: builds, RPMs and tags, scanned from files in Koji's layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import koji
import rpm

from backport.trust import nevra_of, read_header

Row = dict[str, Any]
CHECKSUMS = ("md5", "sha1", "sha256")
DEPENDENCIES = {"REQUIRE": 0, "PROVIDE": 1, "OBSOLETE": 2, "CONFLICT": 3, "SUGGEST": 5, "RECOMMEND": 8}
"""Koji's numbers for the kinds of dependencies."""


@dataclass(kw_only=True)
class Build:
    """One build, as the database holds it."""

    id: int
    package_id: int
    name: str
    version: str
    release: str
    epoch: int | None
    state: int
    finished: float
    volume: str = "DEFAULT"
    rpms: list[Row] = field(default_factory=list)
    srpm: Path | None = None
    binaries: list[Row] = field(default_factory=list)

    @property
    def nvr(self) -> str:
        return f"{self.name}-{self.version}-{self.release}"

    @property
    def draft(self) -> bool:
        return ",draft_" in self.release

    @property
    def source(self) -> str | None:
        """What a build was asked for; a package that was imported has none."""
        return None if self.srpm else f"{self.nvr}.src.rpm"

    @property
    def extra(self) -> Row | None:
        return {"source": {"original_url": self.source}} if self.source else None


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One copy of a package: the digests of the file, and that of its signature header."""

    digests: Mapping[str, str]
    sighash: str

    @classmethod
    def of(cls, content: bytes) -> Copy:
        digests = {kind: hashlib.new(kind, content, usedforsecurity=False).hexdigest() for kind in CHECKSUMS}
        header = hashlib.md5(signature_header_of(content), usedforsecurity=False)
        return cls(digests=digests, sighash=header.hexdigest())


class Database:
    """Everything that the folder's files say, read once; builds are numbered from the oldest file on.

    ``tags.json`` maps tags to NVRs in the order of tagging, ``inheritance.json`` (optional) tags to
    their parents, ``states.json`` (optional) NVRs to build states, of builds without files too;
    ``volumes.json`` (optional) NVRs to the volume that their files lie on, below ``vol/NAME``. A build
    whose NVR ends in ``,draft_N`` is a draft.
    """

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "packages"
        self.tags: Mapping[str, list[str]] = _json(folder / "tags.json", {})
        self.inheritance: Mapping[str, list[str]] = _json(folder / "inheritance.json", {})
        self.volumes: Mapping[str, str] = _json(folder / "volumes.json", {})
        states: Mapping[str, int] = _json(folder / "states.json", {})
        packages = (self.packages, *(folder / "vol" / name / "packages" for name in self.volumes.values()))
        found = sorted(
            {path for place in packages for path in place.glob("*/*/*/src/*.src.rpm")},
            key=lambda path: (path.stat().st_mtime, path),
        )
        srpms = {path.name.removesuffix(".src.rpm"): path for path in found}
        nvrs = [*srpms, *(nvr for nvr in states if nvr not in srpms)]
        self.names = list(dict.fromkeys(nvr.rsplit("-", 2)[0] for nvr in nvrs))
        self.builds: list[Build] = []
        self.rpms: dict[int, tuple[Build, Row]] = {}
        self._copies: dict[int, dict[str, Copy]] = {}
        for number, nvr in enumerate(nvrs, start=1):
            self._add(number, nvr, srpms.get(nvr), states.get(nvr, koji.BUILD_STATES["COMPLETE"]))

    def copies(self, rpm_id: int) -> dict[str, Copy]:
        """What the hub notes of an SRPM's signed and unsigned copies, by key id; read once."""
        if rpm_id not in self._copies:
            contents = self._contents(*self.rpms[rpm_id])
            self._copies[rpm_id] = {key: Copy.of(content) for key, content in contents}
        return self._copies[rpm_id]

    def _contents(self, build: Build, row: Row) -> Iterator[tuple[str, bytes]]:
        """The copies themselves, made from the signature header where that alone is kept."""
        if build.srpm is None or row["arch"] != "src":
            return
        folder, name = build.srpm.parent.parent, build.srpm.name
        yield "", build.srpm.read_bytes()
        for header in sorted(folder.glob(f"data/sigcache/*/src/{name}.sig")):
            key = header.parent.parent.name
            signed = folder / "data" / "signed" / key / "src" / name
            if signed.is_file():
                yield key, signed.read_bytes()
            else:
                with koji.spliced_sig_reader(str(build.srpm), header.read_bytes()) as stream:
                    yield key, stream.read()

    def _add(self, number: int, nvr: str, srpm: Path | None, state: int) -> None:
        name, version, release = nvr.rsplit("-", 2)
        header = read_header(srpm) if srpm else None
        build = Build(
            id=number,
            package_id=self.names.index(name) + 1,
            name=name,
            version=version,
            release=release,
            epoch=header[rpm.RPMTAG_EPOCH] if header else None,
            state=state,
            finished=srpm.stat().st_mtime if srpm else 0.0,
            srpm=srpm,
            volume=self.volumes.get(nvr, "DEFAULT"),
        )
        self.builds.append(build)
        if srpm and header:
            payload_hash = bytes(header[rpm.RPMTAG_SIGMD5]).hex()
            self._add_rpm(build, nevra_of(header).name, "src", payload_hash, srpm.stat().st_size)
            build.binaries = _json(srpm.parent.parent / "binaries.json", [])
            for binary in build.binaries:
                text = json.dumps(binary, sort_keys=True).encode()
                digest = hashlib.md5(text, usedforsecurity=False).hexdigest()
                self._add_rpm(build, binary["name"], binary["arch"], digest, len(text))

    def _add_rpm(self, build: Build, name: str, arch: str, payload_hash: str, size: int) -> None:
        row: Row = {
            "arch": arch,
            "build_id": build.id,
            "buildroot_id": None,
            "buildtime": int(build.finished),
            "draft": build.draft,
            "epoch": build.epoch,
            "external_repo_id": 0,
            "external_repo_name": "INTERNAL",
            "extra": None,
            "id": len(self.rpms) + 1,
            "metadata_only": False,
            "name": name,
            "nvr": f"{name}-{build.version}-{build.release}",
            "payloadhash": payload_hash,
            "release": build.release,
            "size": size,
            "version": build.version,
        }
        build.rpms.append(row)
        self.rpms[len(self.rpms) + 1] = build, row


def build_row(build: Build) -> Row:
    finished = text_time(build.finished) if build.state != koji.BUILD_STATES["BUILDING"] else None
    return {
        "build_id": build.id,
        "cg_id": None,
        "completion_time": finished,
        "creation_event_id": build.id,
        "creation_time": text_time(build.finished),
        "draft": build.draft,
        "epoch": build.epoch,
        "extra": build.extra,
        "name": build.name,
        "nvr": build.nvr,
        "owner_id": 1,
        "owner_name": "kojiadmin",
        "package_id": build.package_id,
        "package_name": build.name,
        "promoter_id": None,
        "promoter_name": None,
        "promotion_time": None,
        "release": build.release,
        "source": build.source,
        "start_time": text_time(build.finished),
        "state": build.state,
        "task_id": None,
        "version": build.version,
        "volume_id": 0 if build.volume == "DEFAULT" else 1,
        "volume_name": build.volume,
    }


def timestamps(build: Build) -> Row:
    finished = build.finished if build.state != koji.BUILD_STATES["BUILDING"] else None
    return {
        "completion_ts": finished,
        "creation_ts": build.finished,
        "promotion_ts": None,
        "start_ts": build.finished,
    }


def text_time(seconds: float) -> str:
    """A time as PostgreSQL's driver writes it: no T, and no fraction where there is none."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ")


def dependencies_of(build: Build, row: Row) -> list[Row]:
    rows = []
    if row["arch"] == "src" and build.srpm:
        header = read_header(build.srpm)
        for kind, number in DEPENDENCIES.items():
            names, versions, flags = (
                header[getattr(rpm, f"RPMTAG_{kind}{part}")] for part in ("NAME", "VERSION", "FLAGS")
            )
            rows += [(*found, number) for found in zip(names, versions, flags, strict=True)]
    for binary in build.binaries:
        if (binary["name"], binary["arch"]) == (row["name"], row["arch"]):
            for kind, number in (("requires", 0), ("provides", 1)):
                rows += [(name, version, flags, number) for name, flags, version in binary[kind]]
    return [
        {"name": name, "version": version, "flags": flags, "type": number}
        for name, version, flags, number in rows
    ]


def signature_header_of(package: bytes) -> bytes:
    """The signature header behind the lead of 96 bytes, with its padding (rpm's format description)."""
    entries, size = (int.from_bytes(package[at : at + 4], "big") for at in (104, 108))
    length = 16 + 16 * entries + size
    return package[96 : 96 + length + (-length) % 8]


def _json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.is_file() else default
