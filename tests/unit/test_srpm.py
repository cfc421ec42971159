"""Source packages: hostile ones refused before a byte is written, good ones edited reproducibly."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backport import srpm
from backport.artifacts import Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.errors import PatchError, UsageError
from backport.recipe import Package as RecipePackage
from backport.srpm import patch, unpack
from backport.target import Target, load_target
from tests.unit.rpmfile import GHOST, SPECFILE, File, Package

ROOT = Path(__file__).parents[2]
SPEC = b"""\
Name: tiny
Version: 1
Release: 1%{?dist}
Summary: Tiny \xe9
License: MIT
Source0: tiny-1.tar.gz

%description
It is tiny.

%prep
%autosetup -p1

%files

%changelog
* Fri Oct 26 2018 A <a@example.org> - 1-1
- first
"""
DIFF = b"""\
A change.

--- a/file
+++ b/file
@@ -1 +1 @@
-old
+new
"""
SPEC_FILE = File("tiny.spec", SPEC, flags=SPECFILE)
TARBALL = File("tiny-1.tar.gz", b"\x1f\x8b" + bytes(range(256)) * 10_000)
FILES = (SPEC_FILE, TARBALL, File("empty", b""))


def write(folder: Path, package: Package) -> Path:
    path = folder / "tiny-1-1.src.rpm"
    path.write_bytes(package.to_bytes())
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestUnpack:
    @pytest.mark.parametrize("compressor", ["gzip", "xz"])
    def test_gives_every_file_with_plain_modes(self, tmp_path: Path, compressor: str) -> None:
        odd = File("run-me", b"x", mode=stat.S_IFREG | stat.S_ISUID | 0o755)
        path = write(tmp_path, Package([*FILES, odd], compressor=compressor))
        spec = unpack(path, tmp_path / "new/out")
        assert spec == tmp_path / "new/out/tiny.spec"
        assert tree(spec.parent) == {file.name: file.content for file in (*FILES, odd)}
        assert {file.stat().st_mode for file in spec.parent.iterdir()} == {stat.S_IFREG | 0o644}

    @pytest.mark.parametrize(
        ("harmful", "message"),
        [
            (File("x", b"x", folder="../"), "unsafe file name '../x'"),
            (File("../x", b"x"), "unsafe file name '../x'"),
            (File("passwd", b"x", folder="/etc/"), "unsafe file name '/etc/passwd'"),
            (File("x", b"x", folder="sub/"), "unsafe file name 'sub/x'"),
            (File("..", b"x"), r"unsafe file name '\.\.'"),
            (File(".", b"x"), r"unsafe file name '\.'"),
            (File("", b"x"), "unsafe file name ''"),
            (File("a\nb", b"x"), r"unsafe file name 'a\\nb'"),
            (File("a\x1b[2Jb", b"x"), "unsafe file name"),
            (File("a\udcffb", b"x"), "unsafe file name"),
            (File("x", mode=stat.S_IFLNK | 0o777, linkto="/etc/passwd"), "x is a symbolic link"),
            (File("x", mode=stat.S_IFDIR | 0o755), "x is a folder"),
            (File("x", mode=stat.S_IFCHR | 0o666), "x is a character device"),
            (File("x", mode=stat.S_IFBLK | 0o666), "x is a block device"),
            (File("x", mode=stat.S_IFIFO | 0o666), "x is a named pipe"),
            (File("x", mode=stat.S_IFSOCK | 0o666), "x is a socket"),
            (File("empty", b"again"), "two files of the name empty"),
            (File("x", b"x", flags=GHOST), "x is named but not contained"),
            (File("x", inode=2), "is a hard link"),
            (File("x", b"right", archived=b"wrong"), "x is not the file that the header describes"),
            (File("x", b"right", archived=b"righ"), "x is not the file that the header describes"),
            (File("x", b"x", left_out=True), "its archive lacks x|Missing file"),
            (File("other.spec", b"x"), "more than one spec: other.spec, tiny.spec"),
            (File("other.spec", b"x", flags=SPECFILE), "more than one spec: other.spec, tiny.spec"),
            (File("other", b"x", flags=SPECFILE), "more than one spec: other, tiny.spec"),
        ],
    )
    def test_refuses_and_leaves_nothing(self, tmp_path: Path, harmful: File, message: str) -> None:
        path = write(tmp_path, Package([*FILES, harmful]))
        with pytest.raises(PatchError, match=message) as caught:
            unpack(path, tmp_path / "sub/out")
        assert str(path) in caught.value.message
        assert not (tmp_path / "sub/out").exists()
        assert {entry.name for entry in tmp_path.iterdir()} <= {path.name, "sub"}

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ([], "no spec among its 0 files"),
            ([TARBALL], "no spec among its 1 files"),
            ([replace(SPEC_FILE, flags=0), TARBALL], "tiny.spec is not marked as the spec"),
        ],
    )
    def test_refuses_a_package_without_a_spec(self, tmp_path: Path, files: list[File], message: str) -> None:
        with pytest.raises(PatchError, match=message):
            unpack(write(tmp_path, Package(files)), tmp_path / "out")

    @pytest.mark.parametrize("name", ["../evil", "/tmp/backport-evil", "evil"])
    def test_what_only_the_archive_names_is_never_written(self, tmp_path: Path, name: str) -> None:
        package = Package(FILES, more_archived=[File(name, b"x")])
        with pytest.raises(PatchError, match="cannot be unpacked"):
            unpack(write(tmp_path, package), tmp_path / "out/out")
        assert not list(tmp_path.rglob("*evil*"))

    def test_a_file_that_the_archive_holds_twice_is_refused(self, tmp_path: Path) -> None:
        package = Package(FILES, more_archived=[TARBALL])
        with pytest.raises(PatchError, match=r"tiny-1\.tar\.gz twice|cannot be unpacked"):
            unpack(write(tmp_path, package), tmp_path / "out")

    def test_a_folder_that_exists_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").touch()
        with pytest.raises(FileExistsError):
            unpack(write(tmp_path, Package(FILES)), tmp_path / "out")
        assert (tmp_path / "out/mine").exists()

    def test_a_binary_package_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(PatchError, match="a binary package"):
            unpack(write(tmp_path, Package(FILES, source=False)), tmp_path / "out")

    @pytest.mark.parametrize("cut", [0, 1, 95, 200, 600])
    def test_a_cut_header_is_refused(self, tmp_path: Path, cut: int) -> None:
        path = write(tmp_path, Package(FILES))
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(PatchError, match="not an RPM package"):
            unpack(path, tmp_path / "out")

    def test_a_header_with_one_changed_byte_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path, Package(FILES))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"A small package", b"A smell package", 1))
        with pytest.raises(PatchError, match="not an RPM package"):
            unpack(path, tmp_path / "out")

    @pytest.mark.parametrize("compressor", ["gzip", "xz"])
    def test_a_cut_archive_is_refused(self, tmp_path: Path, compressor: str) -> None:
        path = write(tmp_path, Package(FILES, compressor=compressor))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(PatchError):
            unpack(path, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_too_many_files_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(srpm, "MAX_FILES", 2)
        with pytest.raises(PatchError, match="3 files, more than the 2"):
            unpack(write(tmp_path, Package(FILES)), tmp_path / "out")

    def test_too_large_files_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(srpm, "MAX_BYTES", 1_000_000)
        with pytest.raises(PatchError, match="bytes unpacked, more than the 1000000"):
            unpack(write(tmp_path, Package(FILES)), tmp_path / "out")

    def test_a_file_longer_than_its_header_says_is_cut_off_and_refused(self, tmp_path: Path) -> None:
        bomb = File("bomb", b"x", archived=b"y" * 5_000_000)
        with pytest.raises(PatchError, match="bomb is not the file"):
            unpack(write(tmp_path, Package([SPEC_FILE, bomb])), tmp_path / "out")


@pytest.fixture
def target() -> Target:
    return load_target(ROOT / "mock-configs", "f28")


class Site:
    """A source package, a patches folder and a workspace."""

    def __init__(self, folder: Path, target: Target, package: Package | None = None) -> None:
        self.folder = folder
        self.target = target
        self.patches = folder / "patches"
        (self.patches / "tiny").mkdir(parents=True, exist_ok=True)
        (self.patches / "tiny/one.patch").write_bytes(DIFF)
        packed = package or Package(FILES)
        self.path = write(folder, packed)
        self.source = SourceRpm(
            rpm=Rpm(
                nevra=Nevra.from_nvr("tiny-1-1"),
                path=self.path,
                sha256=hashlib.sha256(self.path.read_bytes()).hexdigest(),
            ),
            url="http://files.example/tiny-1-1.src.rpm",
            signing_key="A" * 40,
            build_requires=(),
            changelog_time=packed.changelog_time,
        )

    def patch(self, workspace: str = "work", **recipe: object) -> PatchedSrpm:
        package = RecipePackage.model_validate({"nvr": "tiny-1-1", "patches": ["tiny/one.patch"], **recipe})
        return patch(
            self.source,
            package,
            target=self.target,
            patches=self.patches,
            packager="P <p@example.org>",
            workspace=self.folder / workspace,
        )


class TestPatch:
    def test_edits_the_spec_and_adds_the_patch(self, tmp_path: Path, target: Target) -> None:
        patched = Site(tmp_path, target).patch(build={"without": ["tests"]})
        assert tree(patched.sources) == {
            "tiny-1.tar.gz": TARBALL.content,
            "empty": b"",
            "one.patch": DIFF,
        }
        assert patched.spec == tmp_path / "work/tiny.spec"
        assert patched.options.without == ("tests",)
        lines = patched.spec.read_bytes().splitlines()
        assert b"Summary: Tiny \xe9" in lines
        assert b"Release: 1%{?dist}.bp1" in lines
        assert any(line.startswith(b"Patch") and line.endswith(b"one.patch") for line in lines)
        assert [line for line in SPEC.splitlines() if line not in lines] == [b"Release: 1%{?dist}"]

    def test_unsets_macros_in_the_spec(self, tmp_path: Path, target: Target) -> None:
        patched = Site(tmp_path, target).patch(build={"undefine": ["_one", "_two"]})
        assert patched.spec.read_bytes().startswith(b"%undefine _one\n%undefine _two\n")
        assert "+%undefine _one" in patched.diff

    def test_the_changelog_has_the_date_of_the_newest_entry(self, tmp_path: Path, target: Target) -> None:
        lines = Site(tmp_path, target).patch().spec.read_bytes().decode("latin-1").splitlines()
        start = lines.index("%changelog")
        assert lines[start + 1].startswith("* Fri Oct 26 2018 P <p@example.org>")
        assert lines[start + 2] == "- Rebuild for Fedora 28, with one.patch"
        assert lines[-2] == "* Fri Oct 26 2018 A <a@example.org> - 1-1"

    def test_the_recipes_own_changelog_is_used(self, tmp_path: Path, target: Target) -> None:
        text = Site(tmp_path, target).patch(changelog=["Because", "of this"]).spec.read_text("latin-1")
        assert "- Because\n- of this\n" in text

    def test_without_a_changelog_the_builds_own_time_dates_the_entry(
        self, tmp_path: Path, target: Target
    ) -> None:
        spec = SPEC[: SPEC.index(b"%changelog")]
        built = int(datetime(2019, 2, 3, 23, 59, tzinfo=UTC).timestamp())
        package = Package(
            [File("tiny.spec", spec, flags=SPECFILE), TARBALL], changelog_time=0, build_time=built
        )
        assert b"* Sun Feb 03 2019 P" in Site(tmp_path, target, package).patch().spec.read_bytes()

    def test_the_same_inputs_give_the_same_bytes(self, tmp_path: Path, target: Target) -> None:
        site = Site(tmp_path, target)
        one, two = site.patch("one"), site.patch("two")
        assert one.spec.read_bytes() == two.spec.read_bytes()
        assert (one.sha256, one.diff) == (two.sha256, two.diff)
        assert tree(one.sources) == tree(two.sources)

    def test_every_input_changes_the_digest(self, tmp_path: Path, target: Target) -> None:
        site = Site(tmp_path, target)
        digests = {
            site.patch("plain").sha256,
            site.patch("bump", bump=2).sha256,
            site.patch("none", patches=[]).sha256,
            site.patch("changelog", changelog=["x"]).sha256,
        }
        (site.patches / "tiny/one.patch").write_bytes(DIFF.replace(b"new", b"newer"))
        digests.add(site.patch("patch").sha256)
        assert len(digests) == 5

    def test_a_boundary_between_files_counts(self, tmp_path: Path, target: Target) -> None:
        digests = set()
        for number, (first, second) in enumerate([(b"ab", b"c"), (b"a", b"bc")]):
            folder = tmp_path / str(number)
            folder.mkdir()
            package = Package([SPEC_FILE, File("1", first), File("2", second)])
            digests.add(Site(folder, target, package).patch().sha256)
        assert len(digests) == 2

    def test_the_diff_can_be_shown(self, tmp_path: Path, target: Target) -> None:
        edits = [{"action": "replace", "anchor": "Summary: Tiny", "text": "Summary: Small"}]
        diff = Site(tmp_path, target).patch(edits=edits).diff
        assert diff.startswith("--- a/tiny.spec\n+++ b/tiny.spec\n@@ ")
        assert "\n-Summary: Tiny \\xe9\n" in diff
        assert "\n+Release: 1%{?dist}.bp1\n" in diff
        assert diff.endswith(f"\nAdded: tiny/one.patch\n{DIFF.decode()}")

    def test_a_patch_that_hides_a_source_is_refused(self, tmp_path: Path, target: Target) -> None:
        (tmp_path / "patches/tiny").mkdir(parents=True)
        (tmp_path / "patches/tiny/empty").write_bytes(DIFF)
        with pytest.raises(PatchError, match="tiny/empty: tiny-1-1 has another file"):
            Site(tmp_path, target).patch(patches=["tiny/empty"])

    def test_a_patch_that_is_there_already_unchanged_is_no_collision(
        self, tmp_path: Path, target: Target
    ) -> None:
        package = Package([*FILES, File("one.patch", DIFF)])
        patched = Site(tmp_path, target, package).patch()
        assert tree(patched.sources)["one.patch"] == DIFF

    def test_two_patches_of_one_name_are_refused(self, tmp_path: Path, target: Target) -> None:
        site = Site(tmp_path, target)
        (site.patches / "more").mkdir()
        (site.patches / "more/one.patch").write_bytes(DIFF + b"\n")
        with pytest.raises(PatchError, match=r"one\.patch"):
            site.patch(patches=["tiny/one.patch", "more/one.patch"])

    def test_a_missing_patch_is_a_mistake_in_the_recipe(self, tmp_path: Path, target: Target) -> None:
        with pytest.raises(UsageError, match=r"tiny/two\.patch: .*No such file") as caught:
            Site(tmp_path, target).patch(patches=["tiny/two.patch"])
        assert caught.value.exit_code == 2
        assert not (tmp_path / "work").exists()

    def test_a_patch_is_a_plain_file_below_the_patches_folder(self, tmp_path: Path, target: Target) -> None:
        site = Site(tmp_path, target)
        patch = site.patches / "tiny/one.patch"
        for make, reason in (
            (lambda: patch.symlink_to("/etc/passwd"), "leads out of the patches folder"),
            (lambda: patch.symlink_to("/dev/zero"), "leads out of the patches folder"),
            (lambda: patch.symlink_to("one.patch"), "leads out of|cannot be read"),
            (lambda: os.mkfifo(patch), "is no plain file"),
            (patch.mkdir, "Is a directory"),
        ):
            patch.unlink()
            make()  # type: ignore[no-untyped-call]
            with pytest.raises(UsageError, match=reason):
                site.patch()
            if patch.is_dir():
                patch.rmdir()
                patch.touch()
        patch.unlink()
        (site.patches / "real.patch").write_bytes(DIFF)
        patch.symlink_to("../real.patch")
        assert tree(site.patch().sources)["one.patch"] == DIFF

    @pytest.mark.parametrize("content", [b"", b"\n\n", b"not a patch\n", DIFF[:-5]])
    def test_what_is_no_patch_is_refused(self, tmp_path: Path, target: Target, content: bytes) -> None:
        site = Site(tmp_path, target)
        (site.patches / "tiny/one.patch").write_bytes(content)
        with pytest.raises(PatchError, match=r"one\.patch") as caught:
            site.patch()
        assert caught.value.exit_code == 4
        assert not (tmp_path / "work").exists()

    def test_an_anchor_that_does_not_match_stops(self, tmp_path: Path, target: Target) -> None:
        with pytest.raises(PatchError, match=r"tiny\.spec"):
            Site(tmp_path, target).patch(edits=[{"action": "delete", "anchor": "%check"}])

    def test_a_package_that_changed_since_it_was_verified_is_refused(
        self, tmp_path: Path, target: Target
    ) -> None:
        site = Site(tmp_path, target)
        site.path.write_bytes(site.path.read_bytes() + b"\0")
        with pytest.raises(PatchError, match="changed since it was verified"):
            site.patch()

    def test_a_huge_spec_is_refused(
        self, tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(srpm, "MAX_SPEC_BYTES", 100)
        with pytest.raises(PatchError, match=r"tiny\.spec is larger"):
            Site(tmp_path, target).patch()
