"""Metadata without what does not matter: libsolv gives the same answers, from less."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from backport.errors import PublishError
from backport.gates import filter as slim
from backport.gates.filter import Filter
from backport.gates.pool import Pool, ids, load_pool, provides
from backport.target import load_target
from tests.unit.metadata_text import Package, write

TARGET = load_target(Path(__file__).parents[2] / "mock-configs", "f28")

CANDIDATE = (
    Package(
        name="tls", release="1.fc28.bp1", provides=["libtls.so.2"], requires=["libc.so.6", "/bin/sh"],
        obsoletes=["tls-old"], files=["/usr/lib/libtls.so.2", "/usr/share/tls & more"],
    ),
)  # fmt: skip
STOCK = (
    Package(name="tls", provides=["libtls.so.1"], files=["/usr/lib/libtls.so.1", "/usr/bin/tls"]),
    Package(name="tls-old", provides=["tls-tool", "shared"]),
    Package(name="libc", provides=["libc.so.6", "libm.so.6"], files=["/usr/lib/libc.so.6"]),
    Package(name="shell", files=["/bin/sh", "/usr/share/shell/manual"]),
    Package(name="other-tls", provides=["shared"], files=["/usr/share/tls & more"]),
    Package(name="by-soname", requires=["libtls.so.1", "libm.so.6"]),
    Package(name="by-version", requires=["tls >= 1", "libc.so.6"]),
    Package(name="by-file", requires=["/usr/bin/tls"]),
    Package(name="by-either", requires=["(libtls.so.1 or elsewhere)"]),
    Package(name="by-either-file", requires=["(/usr/bin/tls or /usr/share/shell/manual)"]),
    Package(name="elsewhere", provides=["elsewhere"]),
    Package(name="by-shared", requires=["shared"]),
    Package(name="by-tool", requires=["tls-tool"]),
    Package(name="apart", requires=["libm.so.6", "nowhere"], files=["/usr/bin/apart"]),
)


def load(folder: Path, stock: Sequence[Package] = STOCK, candidate: Sequence[Package] = CANDIDATE) -> Pool:
    return load_pool(
        TARGET,
        {"fedora": write(folder / "fedora", stock)},
        write(folder / "candidate", candidate),
        paths={path for one in candidate for path in one.files},
        folder=folder,
    )


def answers(pool: Pool) -> dict[str, Any]:
    """All that gates ask, in words."""
    gone, there = ids(pool.replaced), ids((*pool.kept, *pool.candidate))
    asked = {
        (one.str(), each.text): bool(each.providers & there)
        for one in pool.kept
        for each in pool.requirements(one)
        if each.providers & gone
    }
    required = pool.requirements(pool.candidate[0])
    return {
        "consumers": asked,
        "closure": {each.text: len(each.providers & there) for each in required},
        "replaced": {one.str(): (set(provides(one)), one.lookup_location()[0]) for one in pool.replaced},
        "owners": {path: {one.str() for one in pool.owners(path)} for path in CANDIDATE[0].files},
        "server": {one.str() for one in pool.server},
    }


def test_every_answer_is_as_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("whole", "filtered"):
        (tmp_path / name).mkdir()
    filtered = answers(load(tmp_path / "filtered"))
    monkeypatch.setattr(Filter, "apply", lambda _self, metadata, _folder: metadata)
    assert filtered == answers(load(tmp_path / "whole"))


def test_the_answers_are_right(tmp_path: Path) -> None:
    found = answers(load(tmp_path))
    assert found["consumers"] == {
        ("by-soname-1:1-1.fc28.x86_64", "libtls.so.1"): False,
        ("by-version-1:1-1.fc28.x86_64", "tls >= 1:1"): True,
        ("by-file-1:1-1.fc28.x86_64", "/usr/bin/tls"): False,
        ("by-either-1:1-1.fc28.x86_64", "(libtls.so.1 or elsewhere)"): True,
        ("by-either-file-1:1-1.fc28.x86_64", "(/usr/bin/tls or /usr/share/shell/manual)"): True,
        ("by-shared-1:1-1.fc28.x86_64", "shared"): True,
        ("by-tool-1:1-1.fc28.x86_64", "tls-tool"): False,
    }
    assert found["closure"] == {"libc.so.6": 1, "/bin/sh": 1}
    both = {"tls-1:1-1.fc28.bp1.x86_64", "other-tls-1:1-1.fc28.x86_64"}
    assert found["owners"]["/usr/share/tls & more"] == both


def test_what_does_not_matter_is_left_out(tmp_path: Path) -> None:
    metadata = write(tmp_path / "fedora", STOCK)
    candidate = write(tmp_path / "candidate", CANDIDATE)
    found = Filter.of({"fedora": metadata}, candidate, CANDIDATE[0].files).apply(metadata, tmp_path)
    primary, filelists = found.primary.read_text(), found.filelists.read_text()
    assert primary.count("<package ") == len(STOCK)
    for left_out in ("libm.so.6", "nowhere", "Long", "It is"):
        assert left_out not in primary
    assert "/usr/bin/tls<" in filelists
    for left_out in ("/usr/bin/apart", "/usr/lib/libc.so.6", "libtls.so.1<"):
        assert left_out not in filelists


def test_owners_are_found_where_primary_alone_is_looked_at(tmp_path: Path) -> None:
    """Libsolv leaves the file lists alone where every path in question is one that primary has."""
    stock = [Package(name="tool", files=["/usr/bin/tool", "/usr/share/tool"])]
    pool = load(tmp_path, stock, [Package(name="new-tool", files=["/usr/bin/tool"])])
    assert {one.name for one in pool.owners("/usr/bin/tool")} == {"tool", "new-tool"}


def test_nothing_of_it_is_left(tmp_path: Path) -> None:
    load(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"fedora", "candidate"}


def test_metadata_that_is_broken_is_told(tmp_path: Path) -> None:
    metadata = write(tmp_path / "fedora", STOCK)
    metadata.primary.write_text(metadata.primary.read_text().removesuffix("</metadata>"))
    candidate = write(tmp_path / "candidate", CANDIDATE)
    with pytest.raises(PublishError, match=r"primary\.xml: cannot be read as repository metadata") as caught:
        Filter.of({"fedora": metadata}, candidate, ())
    assert caught.value.hint


@pytest.mark.parametrize("problem", [KeyboardInterrupt, OSError])
def test_what_comes_from_within_is_not_taken_for_broken_metadata(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    def visit(_package: object) -> None:
        raise problem

    with pytest.raises(problem):
        slim._read("primary", write(tmp_path / "fedora", STOCK).primary, visit)
