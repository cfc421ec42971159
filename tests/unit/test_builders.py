"""What both builders share: which one is taken, and what is accepted from a result folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.builders import BUILDERS, BuildRequest, choose_builder, common
from backport.builders.chroot import build_requires
from backport.errors import BuildError, BuildRootError, HostError
from backport.roots import scratch
from backport.site import Site
from backport.target import load_target
from backport.trust import read_header
from tests.unit.rpmfile import Package

TARGET = load_target(Path(__file__).parents[2] / "mock-configs", "f28")
_STRING, _STRINGS, _INT32 = 6, 8, 4
_RELEASE, _ARCH, _SOURCERPM = 1002, 1022, 1044
_REQUIREFLAGS, _REQUIRENAME, _REQUIREVERSION = 1048, 1049, 1050
_RPMLIB, _GREATER_OR_EQUAL = 1 << 24, 12


@dataclass
class Built(Package):
    """A package as a build leaves it, with a release of its own."""

    release: str = "1.fc28.bp1"
    arch: str = "noarch"
    srpm: str = "tiny-1-1.fc28.bp1.src.rpm"
    requires: tuple[tuple[str, int, str], ...] = ()

    def _tags(self) -> list[tuple[int, int, object]]:
        own: dict[int, tuple[int, object]] = {
            _RELEASE: (_STRING, self.release),
            _ARCH: (_STRING, self.arch),
        }
        if not self.source:
            own[_SOURCERPM] = (_STRING, self.srpm)
        if self.requires:
            names, flags, versions = (list(column) for column in zip(*self.requires, strict=True))
            own |= {
                _REQUIREFLAGS: (_INT32, flags),
                _REQUIRENAME: (_STRINGS, names),
                _REQUIREVERSION: (_STRINGS, versions),
            }
        kept = [tag for tag in super()._tags() if tag[0] not in own]
        return sorted([*kept, *((tag, kind, value) for tag, (kind, value) in own.items())])


SRPM = Built(files=())
BINARY = Built(files=(), source=False)


@pytest.fixture
def patched(tmp_path: Path) -> PatchedSrpm:
    nevra = Nevra(name="tiny", version="1", release="1.fc29", arch="src")
    source = SourceRpm(
        rpm=Rpm(nevra=nevra, path=tmp_path / "tiny.src.rpm", sha256="0" * 64), url="",
        signing_key="A" * 40, build_requires=(), changelog_time=0,
    )  # fmt: skip
    return PatchedSrpm(
        source=source, spec=tmp_path / "tiny.spec", sources=tmp_path, sha256="0" * 64, diff="",
        options=BuildOptions(),
    )  # fmt: skip


def collect(tmp_path: Path, patched: PatchedSrpm, *packages: Built, **named: Built) -> BuiltRpms:
    results = tmp_path / "results"
    results.mkdir()
    for package in packages:
        arch = "src" if package.source else package.arch
        (results / f"tiny-1-{package.release}.{arch}.rpm").write_bytes(package.to_bytes())
    for name, package in named.items():
        (results / f"{name}.rpm").write_bytes(package.to_bytes())
    (results / "build.log").write_text("whatever\n")
    log = tmp_path / "build.log"
    request = BuildRequest(patched=patched, workspace=tmp_path)
    return common.collect(results, request, target=TARGET, logs=[log], builder="b 1")


def test_packages_are_taken_over_with_their_digests(tmp_path: Path, patched: PatchedSrpm) -> None:
    built = collect(tmp_path, patched, SRPM, BINARY)
    assert str(built.srpm.nevra) == "tiny-1-1.fc28.bp1.src"
    assert [str(rpm.nevra) for rpm in built.rpms] == ["tiny-1-1.fc28.bp1.noarch"]
    for rpm in (built.srpm, *built.rpms):
        assert rpm.path.parent == tmp_path / "rpms"
        assert len(rpm.sha256) == 64
    assert built.builder == "b 1"


@pytest.mark.parametrize(
    ("packages", "reason"),
    [
        ([BINARY], "0 source packages"),
        ([SRPM], "no binary package"),
        ([SRPM, replace(SRPM, release="2.fc28.bp1"), BINARY], "2 source packages"),
        ([SRPM, replace(BINARY, srpm="tiny-1-1.fc28.src.rpm")], "built from tiny-1-1.fc28.src.rpm, not"),
        ([SRPM, replace(BINARY, arch="s390x")], "not for x86_64"),
        ([replace(SRPM, release="1"), replace(BINARY, release="1", srpm="tiny-1-1.src.rpm")], "%dist"),
    ],
)
def test_results_that_do_not_fit_together_are_refused(
    tmp_path: Path, patched: PatchedSrpm, packages: list[Built], reason: str
) -> None:
    with pytest.raises(BuildError, match=reason):
        collect(tmp_path, patched, *packages)


def test_another_package_than_the_patched_one_is_refused(tmp_path: Path, patched: PatchedSrpm) -> None:
    nevra = replace(patched.source.rpm.nevra, version="2")
    other = replace(patched, source=replace(patched.source, rpm=replace(patched.source.rpm, nevra=nevra)))
    with pytest.raises(BuildError, match="another package than tiny-2-1"):
        collect(tmp_path, other, SRPM, BINARY)


def test_a_file_must_be_named_by_its_nevra(tmp_path: Path, patched: PatchedSrpm) -> None:
    with pytest.raises(BuildError, match=r"other\.rpm: the build gave this name"):
        collect(tmp_path, patched, SRPM, other=BINARY)


def test_links_and_pipes_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    results = tmp_path / "results"
    results.mkdir()
    (results / "a.rpm").symlink_to(secret)
    with pytest.raises(BuildError, match=r"a\.rpm: the build left no plain file"):
        common.take_packages(results, tmp_path / "rpms")
    (results / "a.rpm").unlink()
    os.mkfifo(results / "b.rpm")
    with pytest.raises(BuildError, match=r"b\.rpm: the build left no plain file"):
        common.take_packages(results, tmp_path / "rpms")
    assert not (tmp_path / "rpms" / "a.rpm").exists()


def test_build_requires_are_read_without_rpms_own_features(tmp_path: Path) -> None:
    path = tmp_path / "tiny.src.rpm"
    requires = (
        ("/usr/bin/cmp", 0, ""),
        ("perl(Test::More)", 0, ""),
        ("rpmlib(CompressedFileNames)", _RPMLIB | 10, "3.0.4-1"),
        ("zlib-devel", _GREATER_OR_EQUAL, "1.2"),
    )
    path.write_bytes(Built(files=(), requires=requires).to_bytes())
    found = build_requires(read_header(path))
    assert found == ["/usr/bin/cmp", "perl(Test::More)", "zlib-devel >= 1.2"]


def programs(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: f"/usr/bin/{name}" if name in names else None)


def test_auto_takes_mock_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    programs(monkeypatch, "mock", "dnf", "bwrap")
    assert choose_builder(Site(), TARGET).name == "mock"
    assert [choose_builder(Site(builder=name), TARGET).name for name in BUILDERS] == list(BUILDERS)
    programs(monkeypatch, "dnf", "bwrap")
    assert choose_builder(Site(), TARGET).name == "chroot"


@pytest.mark.parametrize(
    ("wanted", "installed", "missing"),
    [
        ("mock", ("dnf", "bwrap"), "mock"),
        ("mock", ("mock", "bwrap"), "dnf"),
        ("auto", ("mock", "dnf"), "bwrap"),
        ("auto", ("dnf",), "bwrap"),
        ("chroot", ("mock", "bwrap"), "dnf"),
    ],
)
def test_a_builder_that_cannot_work_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, wanted: str, installed: tuple[str, ...], missing: str
) -> None:
    programs(monkeypatch, *installed)
    with pytest.raises(HostError, match=f"{missing} is not installed") as caught:
        choose_builder(Site(builder=wanted), TARGET)
    assert caught.value.hint


def test_a_full_disk_is_told_from_a_failed_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scratch.require_room("tiny", [tmp_path], log=tmp_path / "build.log")
    state = os.statvfs_result((4096, 4096, 1000, 10, 10, 100, 50, 50, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: state)
    with pytest.raises(BuildRootError, match="the disk is full") as caught:
        scratch.require_room("tiny", [tmp_path], log=tmp_path / "build.log")
    assert str(tmp_path) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("release", "above", "reason"),
    [
        ("1.bp1", None, "does not have the target's %dist"),
        ("2.fc28.bp1", None, r"is not below tiny-1-1\.fc29\.src"),
        ("1.fc29~.fc28", "0.fc28", None),
        ("1.fc28.bp1", "1.fc28.bp1", r"is not above the target's own tiny-1-1\.fc28\.bp1"),
        ("1.fc28~.fc28.bp1", "1.fc28", "is not above the target's own"),
        ("1.fc28.bp1", "1.fc28", None),
        ("1.fc28.bp1", None, None),
    ],
)
def test_what_the_packed_header_says_is_held_against_both_bounds(
    patched: PatchedSrpm, release: str, above: str | None, reason: str | None
) -> None:
    nevra = Nevra(name="tiny", version="1", release=release, arch="src")
    limited = replace(patched, above=replace(nevra, release=above) if above else None)
    if reason is None:
        common.check_packed(nevra, limited, TARGET)
        return
    with pytest.raises(BuildError, match=reason) as caught:
        common.check_packed(nevra, limited, TARGET)
    assert caught.value.hint
    if "dist" not in reason:
        common.check_packed(nevra, replace(limited, bounded=False), TARGET)
