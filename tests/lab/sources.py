"""The newer release's builds, as its Koji keeps them: SRPMs, signatures, and what the hub knows."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from backport.run import Command, run
from tests.lab.keys import Keyring, signature_header
from tests.lab.layout import NEW_DIST, NEW_TAG
from tests.lab.rpms import PACKAGES, definitions

NEW_PACKAGES = ("crypto-policies", "hello", "libgreet", "openssl")
"""Source packages of the newer release, each a folder of that name with its spec."""
SOURCE_DATE = 1540000000
"""The time stamp of every file in a made tarball, so that the same lab has the same sources."""


def make_koji(
    folder: Path, scratch: Path, tarballs: Sequence[Path], keyring: Keyring, *, log: Path
) -> list[str]:
    """Fill Koji's folder with every build; return their NVRs."""
    nvrs = []
    for name in NEW_PACKAGES:
        srpm = make_srpm(name, PACKAGES / name, scratch / name, tarballs, dist=NEW_DIST, log=log)
        nvr = srpm.name.removesuffix(".src.rpm")
        build = folder.joinpath("packages", *nvr.rsplit("-", 2))
        _keep(srpm, build, keyring)
        (build / "binaries.json").write_text(json.dumps(_binaries(PACKAGES / name, log), indent=1))
        nvrs.append(nvr)
    (folder / "tags.json").write_text(json.dumps({NEW_TAG: nvrs}, indent=1))
    return nvrs


def make_srpm(
    name: str,
    package: Path,
    scratch: Path,
    tarballs: Sequence[Path],
    *,
    dist: str,
    log: Path,
    macros: dict[str, str] | None = None,
) -> Path:
    """The source package of a folder: its spec and patches, upstream's tarball or the folder packed."""
    sources = scratch / "SOURCES"
    sources.mkdir(parents=True)
    for path in package.iterdir():
        if path.is_dir():
            pack(path, sources / f"{path.name}.tar.gz")
        else:
            shutil.copy(path, sources)
    for tarball in tarballs:
        (sources / tarball.name).hardlink_to(tarball)
    defines = {
        "_topdir": str(scratch),
        "_sourcedir": str(sources),
        "_srcrpmdir": str(scratch),
        "dist": dist,
        "_buildhost": "localhost",
        "_source_payload": "w1.gzdio",
        "use_source_date_epoch_as_buildtime": "1",
        "source_date_epoch_from_changelog": "1",
        **(macros or {}),
    }
    run(
        Command(
            ["rpmbuild", "-bs", "--nodeps", *definitions(defines), sources / f"{name}.spec"],
            timeout=120,
            log=log,
            what=f"making the source package of {name}",
        )
    )
    return next(scratch.glob("*.src.rpm"))


def pack(folder: Path, tarball: Path) -> None:
    """The folder as a tar.gz whose bytes depend on its files alone."""
    with (
        gzip.GzipFile(tarball, "wb", mtime=SOURCE_DATE) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                member = tarfile.TarInfo(f"{folder.name}/{path.relative_to(folder)}")
                content = path.read_bytes()
                member.size, member.mtime = len(content), SOURCE_DATE
                archive.addfile(member, BytesIO(content))


def _keep(srpm: Path, build: Path, keyring: Keyring) -> None:
    """The unsigned copy, the signed one, and the signature header alone: koji's pathinfo."""
    key_id = keyring.fingerprints["fedora-29"][-8:].lower()
    unsigned = build / "src" / srpm.name
    signed = build / "data" / "signed" / key_id / "src" / srpm.name
    cached = build / "data" / "sigcache" / key_id / "src" / f"{srpm.name}.sig"
    for path in (unsigned, signed, cached):
        path.parent.mkdir(parents=True)
    shutil.copy(srpm, unsigned)
    shutil.copy(srpm, signed)
    keyring.sign("fedora-29", [signed])
    cached.write_bytes(signature_header(signed))


def _binaries(package: Path, log: Path) -> list[dict[str, object]]:
    """What the spec says of its binary packages: in place of the hub's records of the newer build."""
    spec = package / f"{package.name}.spec"
    options = definitions({"dist": NEW_DIST, "_sourcedir": str(package)})
    queryformat = (
        r"P\t%{NAME}\t%{ARCH}\n"
        r"[R\t%{REQUIRENAME}\t%{REQUIREFLAGS}\t%{REQUIREVERSION}\n]"
        r"[V\t%{PROVIDENAME}\t%{PROVIDEFLAGS}\t%{PROVIDEVERSION}\n]"
    )
    told = run(
        Command(
            ["rpmspec", "-q", *options, "--queryformat", queryformat, spec],
            timeout=60,
            what=f"reading {spec.name}",
        )
    ).text
    binaries: list[dict[str, object]] = []
    kinds: dict[str, list[list[object]]] = {}
    for line in told.splitlines():
        kind, *fields = line.split("\t")
        if kind == "P":
            kinds = {"R": [], "V": []}
            binaries.append(
                {"name": fields[0], "arch": fields[1], "requires": kinds["R"], "provides": kinds["V"]}
            )
        elif fields[0] != "(none)":
            kinds[kind].append([fields[0], int(fields[1]), fields[2]])
    return binaries
