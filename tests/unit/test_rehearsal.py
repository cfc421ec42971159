"""Which patches %prep applies, as far as that is plain; and what is not plain is not guessed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from backport import rehearsal
from backport.rehearsal import Unknown, _archive, _steps, _take_out, _touched
from backport.spec.lines import parse

SPEC = """\
Name: x
Patch0: a.patch
Patch7: b.patch
%description
%prep
{prep}
%build
"""


def steps(prep: str, *, spec: str = SPEC) -> list[tuple[str, int]]:
    return [(one.file, one.level) for one in _steps(parse("x.spec", spec.replace("{prep}", prep)))]


@pytest.mark.parametrize(
    ("prep", "found"),
    [
        ("%autosetup -p1", [("a.patch", 1), ("b.patch", 1)]),
        ("%autosetup -n %{name}-1 -p0", [("a.patch", 0), ("b.patch", 0)]),
        ("%setup -q\n%patch7 -p1\n%patch0 -p2", [("b.patch", 1), ("a.patch", 2)]),
        ("# first\n%setup -q\n\n%patch -P 0 -p1 -b .orig", [("a.patch", 1)]),
        ("%{setup -q}\n%{autopatch -p1}", [("a.patch", 1), ("b.patch", 1)]),
        ("%setup -q", []),
    ],
)
def test_plain_steps_are_read(prep: str, found: list[tuple[str, int]]) -> None:
    assert steps(prep) == found


@pytest.mark.parametrize(
    "prep",
    [
        "%autosetup -p1\nsed -i s/a/b/ x.c",
        "%autosetup -p1 -n x-1/src",
        "%setup -q -c\n%patch0 -p1",
        "%setup -q -a 1\n%patch0 -p1",
        "%autosetup -S git -p1",
        "%autosetup -N\n%patch0 -p1",
        "%if 1\n%patch0 -p1\n%endif",
        "%setup -q\n%patch0",
        "%setup -q\n%patch3 -p1",
        "%setup -q\n%autopatch -p1 -m 5",
        "%setup -q\n%{?with_x:%patch0 -p1}",
        "%setup -q\ncp a b; %patch0 -p1",
    ],
)
def test_what_is_not_plain_is_unknown(prep: str) -> None:
    with pytest.raises(Unknown):
        steps(prep)


@pytest.mark.parametrize("tag", ["Patch1: %{name}.patch", "%if 1\nPatch1: c.patch\n%endif", "%patchlist\nx"])
def test_patches_that_only_macros_know_are_unknown(tag: str) -> None:
    with pytest.raises(Unknown):
        steps("%autosetup -p1", spec=SPEC.replace("Patch7: b.patch", tag))


@pytest.mark.parametrize(
    ("name", "path"),
    [(b"a/src/x.c", "src/x.c"), (b"x-1/src/x.c\t2018-01-01", "src/x.c"), (b"/dev/null", None)],
)
def test_the_paths_of_a_patch_are_below_the_tree(name: bytes, path: str | None) -> None:
    assert _touched(b"--- " + name + b"\n@@ -1 +1 @@\n", 1) == ({path} if path else set())


@pytest.mark.parametrize("name", [b"a/../../etc/shadow", b"x.c", b"/"])
def test_a_path_out_of_the_tree_is_unknown(name: bytes) -> None:
    with pytest.raises(Unknown):
        _touched(b"+++ " + name + b"\n", 1)


def pack(folder: Path, name: str, **files: bytes | None) -> Path:
    """An archive of files by path, with a link in the place of None."""
    with tarfile.open(folder / name, "w:gz") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"x-1/{path.replace('__', '/')}")
            member.size = len(content or b"")
            if content is None:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
            archive.addfile(member, io.BytesIO(content or b""))
    return folder / name


def test_wanted_files_are_taken_out_of_the_one_archive(tmp_path: Path) -> None:
    sources, tree = tmp_path / "sources", tmp_path / "tree"
    spec = parse("x.spec", f"Source0: http://x/%{{name}}-1.tar.gz\n{SPEC}")
    sources.mkdir()
    (sources / "a.patch").write_text("--- a/x\n")
    with pytest.raises(Unknown, match="0 archives"):
        _archive(sources, spec)
    pack(sources, "x-1.tar.gz", a=b"a", src__b=b"b")
    _take_out(_archive(sources, spec), {"src/b", "c"}, tree)
    assert [path.relative_to(tree).as_posix() for path in tree.rglob("*")] == ["src", "src/b"]
    other = parse("x.spec", f"Source: x.zip\nSource1: y.tar.gz\n{SPEC}")
    with pytest.raises(Unknown, match="not plain that its first source"):
        _archive(sources, other)
    pack(sources, "y-1.tar.gz")
    with pytest.raises(Unknown, match="2 archives"):
        _archive(sources, spec)


def test_hostile_archives_are_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = pack(tmp_path, "a.tar.gz", a=None)
    with pytest.raises(Unknown, match="no plain file"):
        _take_out(link, {"a"}, tmp_path / "tree")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(pack(tmp_path, "b.tar.gz", a=b"a" * 10_000).read_bytes()[:60])
    with pytest.raises(Unknown, match="cannot be read"):
        _take_out(cut, {"a"}, tmp_path / "tree")
    monkeypatch.setattr(rehearsal, "MOST_BYTES", 10)
    with pytest.raises(Unknown, match="too large"):
        _take_out(pack(tmp_path, "c.tar.gz", a=b"a" * 11), {"a"}, tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
