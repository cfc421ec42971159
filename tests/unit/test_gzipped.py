"""Lists in gzip files of several members, which readers take for one."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import pytest

from backport.gzipped import MEMBERS, PackageList, Packed, pack_list, read_list

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<metadata xmlns="x" packages="%d">\n'
END = b"</metadata>\n"


def text_of(*names: str) -> bytes:
    return HEAD % len(names) + b"".join(map(entry, names)) + END


def entry(name: str) -> bytes:
    return b"<package>%s</package>\n" % name.encode()


def put(path: Path, content: bytes) -> PackageList:
    path.write_bytes(content)
    return read_list(path)


def members_of(data: bytes) -> int:
    count = 0
    while data:
        opener = zlib.decompressobj(31)
        opener.decompress(data)
        data, count = opener.unused_data, count + 1
    return count


def check(packed: Packed, text: bytes) -> None:
    assert gzip.decompress(packed.content) == text
    assert (packed.size, packed.sha256) == (len(text), hashlib.sha256(text).hexdigest())


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c")])
def test_a_list_grows_by_a_member(tmp_path: Path, names: tuple[str, ...]) -> None:
    text = text_of(*names)
    found = put(tmp_path / "list.gz", pack_list(text))
    assert (found.text, found.count) == (text, len(names))
    grown = found.extended(entry("new"), count=len(names) + 1)
    check(grown, text_of(*names, "new"))
    old = pack_list(text)
    assert members_of(old) == 3
    assert members_of(grown.content) == 4
    packages = found.packed
    assert packages
    assert packages in grown.content


def test_a_list_of_many_members_becomes_one_again(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(MEMBERS + 5)]
    content, seen = pack_list(text_of()), []
    for number, name in enumerate(names, 1):
        grown = put(tmp_path / "list.gz", content).extended(entry(name), count=number)
        check(grown, text_of(*names[:number]))
        content = grown.content
        seen.append(members_of(content))
    assert max(seen) == MEMBERS + 2
    assert seen[-7:] == [MEMBERS + 2, 3, 4, 5, 6, 7, 8]


def test_a_list_that_somebody_else_compressed_is_compressed_anew(tmp_path: Path) -> None:
    text = text_of("a", "b")
    for content in (gzip.compress(text), gzip.compress(text[:40]) + gzip.compress(text[40:])):
        found = put(tmp_path / "list.gz", content)
        assert found.packed == b""
        grown = found.extended(entry("c"), count=3)
        check(grown, text_of("a", "b", "c"))
        assert members_of(grown.content) == 3
    inside = [HEAD % 2 + b"<package>", b"a</package>\n", b"<package>b</package>\n" + END]
    found = put(tmp_path / "list.gz", b"".join(map(gzip.compress, inside)))
    assert found.packed == b""
    check(found.extended(entry("c"), count=3), text_of("a", "b", "c"))


def test_text_that_is_no_list_is_packed_as_it_is() -> None:
    assert gzip.decompress(pack_list(b"hello")) == b"hello"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"nothing", gzip.compress(b""), gzip.compress(b"hello"), gzip.compress(HEAD % 1),
        pack_list(text_of("a"))[:-1], pack_list(text_of("a"))[:-40], pack_list(text_of("a")) + b"\0",
    ],
)  # fmt: skip
def test_what_is_damaged_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"list\.gz: "):
        put(tmp_path / "list.gz", content)
