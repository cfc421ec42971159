"""Where a build root's packages came from; what is not sure is not told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backport.builders import buildroot
from backport.builders.buildroot import note_origins
from backport.files import digest_of
from backport.roots.dnf import ExtraRepository
from backport.target import load_target

TARGET = load_target(Path(__file__).parents[2] / "mock-configs", "f28")


class Checksum:
    """A checksum as libsolv has it."""

    def __init__(self, value: str, kind: str) -> None:
        self.value, self.kind = value, kind

    def typestr(self) -> str:
        return self.kind

    def hex(self) -> str:
        return self.value


class Package:
    """A package as libsolv has it."""

    def __init__(self, name: str, built: int, digest: str, kind: str = "sha256") -> None:
        self.name, self.evr, self.arch = name, "1-1.fc28", "x86_64"
        self.built, self.checksum = built, Checksum(digest, kind)

    def lookup_checksum(self, _key: object) -> Checksum:
        return self.checksum

    def lookup_num(self, _key: object) -> int:
        return self.built

    def lookup_location(self) -> list[object]:
        return [f"Packages/{self.name}.rpm", 0]


def noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], *packages: Package, **words: Any
) -> dict[str, dict[str, str]]:
    def of_file(_solv: object, name: str, file: Path) -> list[Package]:
        return list(packages) if name == TARGET.repositories[0].id and file.parent == folder else []

    monkeypatch.setattr(buildroot, "_packages", of_file)
    installed = folder / "installed_pkgs.log"
    installed.write_text("".join(f"{line}\n" for line in lines))
    file = note_origins(installed, words.pop("target", TARGET), metadata=folder, **{"extra": (), **words})
    return {one["nevra"]: one for one in json.loads(file.read_text())}


def test_address_and_digest_are_those_of_the_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["gcc-1-1.fc28.x86_64 5 10 installed"] * 2
    own = TARGET.repositories[0].model_copy(update={"baseurl": "https://me:secret@mirror.example/f28/"})
    target = TARGET.model_copy(update={"repositories": (own, *TARGET.repositories[1:])})
    found = noted(tmp_path, monkeypatch, lines, Package("gcc", 5, "a" * 64), target=target)
    url = "https://mirror.example/f28/Packages/gcc.rpm"
    assert found == {"gcc-1-1.fc28.x86_64": {"nevra": "gcc-1-1.fc28.x86_64", "url": url, "sha256": "a" * 64}}


def test_what_is_not_sure_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{name}-1-1.fc28.x86_64 5 10 installed" for name in ("other", "twice", "weak", "rebuilt")]
    found = noted(
        tmp_path, monkeypatch, [*lines, "nonsense", "x y z"],
        Package("twice", 5, "a" * 64), Package("twice", 5, "b" * 64), Package("weak", 5, "c" * 32, "md5"),
        Package("rebuilt", 6, "d" * 64),
    )  # fmt: skip
    assert len(found) == len(lines)
    assert {tuple(one) for one in found.values()} == {("nevra",)}


def test_what_the_run_has_built_is_digested_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = tmp_path / "candidates"
    candidates.mkdir()
    (candidates / "new-1-1.fc28.x86_64.rpm").write_bytes(b"new")
    extra = [ExtraRepository.of_folder("candidates", candidates)]
    lines = ["new-1-1.fc28.x86_64 5 10 installed"]
    found = noted(tmp_path, monkeypatch, lines, Package("new", 5, "a" * 64), extra=extra)
    sha256 = digest_of(candidates / "new-1-1.fc28.x86_64.rpm")
    assert found["new-1-1.fc28.x86_64"] == {"nevra": "new-1-1.fc28.x86_64", "sha256": sha256}
