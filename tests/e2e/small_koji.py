"""A Koji in small: a few source packages made in a moment, signed with keys made for it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import koji

from backport.settings import Key

SPEC = """\
Name: {name}
Epoch: {epoch}
Version: {version}
Release: {release}
Summary: A small package
License: MIT
Source0: payload
BuildRequires: zlib-devel >= 1, /usr/bin/cmp
%description
It holds {size} bytes.
%changelog
* Tue Nov 20 2018 A. Packager <packager@localhost> - {version}-{release}
- Make it
"""
CHANGELOG_TIME = 1542715200
"""Noon of the day in the changelog: how rpm reads a date."""
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def tool(*words: object, **environment: str) -> str:
    """Run a program of the host to its successful end and give what it printed."""
    completed = subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True, timeout=120,
        env={**ENVIRONMENT, **environment},
    )  # fmt: skip
    return completed.stdout


@dataclass(frozen=True, kw_only=True)
class Signer:
    """A GNUPGHOME with keys; every key's name is its address's local part."""

    home: Path
    keys: dict[str, Key] = field(default_factory=dict)

    def make(self, name: str, *options: str, usage: str = "sign", expires: str = "never") -> Key:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = f"{name} <{name}@localhost>"
        self._gpg(*options, "--passphrase", "", "--quick-generate-key", user, "rsa2048", usage, expires)
        return self.add(name)

    def add(self, name: str) -> Key:
        """Export the key as it now is."""
        listing = self._gpg("--with-colons", "--list-keys", f"{name}@localhost").splitlines()
        fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr"))
        file = self.home / f"{name}.asc"
        file.write_text(self._gpg("--armor", "--export", fingerprint))
        self.keys[name] = Key(fingerprint=fingerprint, file=file)
        return self.keys[name]

    def sign(self, rpm: Path, name: str) -> None:
        macros = {"_gpg_name": self.keys[name].fingerprint, "_gpg_path": self.home, "__gpg": "/usr/bin/gpg",
                  "_gpg_digest_algo": "sha256"}  # fmt: skip
        defines = [word for macro in macros.items() for word in ("--define", "{} {}".format(*macro))]
        tool("rpmsign", *defines, "--addsign", rpm, GNUPGHOME=str(self.home))

    def close(self) -> None:
        tool("gpgconf", "--kill", "all", GNUPGHOME=str(self.home))

    def _gpg(self, *words: str) -> str:
        return tool("gpg", "--homedir", self.home, "--batch", "--quiet", *words)


def source_rpm(folder: Path, nvr: str, *, epoch: int = 1, size: int = 400_000) -> Path:
    """An unsigned source package with a payload that does not compress."""
    name, version, release = nvr.rsplit("-", 2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "payload").write_bytes(os.urandom(size))
    spec = folder / f"{name}.spec"
    spec.write_text(SPEC.format(name=name, version=version, release=release, epoch=epoch, size=size))
    macros = {"_topdir": folder, "_sourcedir": folder, "_srcrpmdir": folder, "_source_payload": "w1.gzdio"}
    defines = [word for macro in macros.items() for word in ("--define", "{} {}".format(*macro))]
    tool("rpmbuild", "-bs", "--quiet", "--nodeps", *defines, spec)
    return folder / f"{nvr}.src.rpm"


@dataclass(frozen=True, kw_only=True)
class SmallKoji:
    """A folder in Koji's layout that packages are added to."""

    folder: Path
    signer: Signer

    def add(self, nvr: str, *, age: int = 0, key: str | None = "release", epoch: int = 1,
            binaries: list[dict[str, object]] | None = None) -> Path:  # fmt: skip
        """Add a build with its source package, unsigned and signed; ``age`` orders the builds."""
        build = (
            self.folder / "packages" / nvr.rsplit("-", 2)[0] / nvr.rsplit("-", 2)[1] / nvr.rsplit("-", 1)[1]
        )
        made = source_rpm(self.folder.parent / "work", nvr, epoch=epoch)
        unsigned = build / "src" / made.name
        unsigned.parent.mkdir(parents=True)
        made.replace(unsigned)
        os.utime(unsigned, (1_795_485_515.25 - age,) * 2)
        if key:
            self.add_signature(unsigned, key)
        (build / "binaries.json").write_text(json.dumps(binaries or []))
        return unsigned

    def add_signature(self, unsigned: Path, key: str) -> None:
        keyid = self.keyid(key)
        build = unsigned.parent.parent
        signed = build / "data" / "signed" / keyid / "src" / unsigned.name
        header = build / "data" / "sigcache" / keyid / "src" / f"{unsigned.name}.sig"
        for file in (signed, header):
            file.parent.mkdir(parents=True, exist_ok=True)
        signed.write_bytes(unsigned.read_bytes())
        self.signer.sign(signed, key)
        header.write_bytes(koji.rip_rpm_sighdr(str(signed)))

    def keyid(self, key: str) -> str:
        return self.signer.keys[key].fingerprint[-8:].lower()

    def write(self, name: str, content: object) -> None:
        (self.folder / name).write_text(json.dumps(content))
