"""What the page shows of builds: what metadata and provenance say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from backport.artifacts import Nevra
from backport.evidence.intoto import ProvenanceStatement
from backport.repository import builds
from backport.repository.builds import builds_in
from backport.repository.contents import PublishedRpm
from backport.target import Target, load_target

STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "https://slsa.dev/provenance/v1",
    "subject": [
        {
            "name": "x86_64/tiny-2-1.noarch.rpm", "digest": {"sha256": "00"},
            "annotations": {"package": "tiny", "source": "tiny-2-1.src.rpm"},
        }
    ],
    "predicate": {
        "buildDefinition": {
            "buildType": "x", "externalParameters": {},
            "resolvedDependencies": [
                {"name": "glibc.rpm", "digest": {"sha256": "02"}, "annotations": {"package": "tiny"}},
                {
                    "name": "tiny-2-1.fc29.src.rpm", "digest": {"sha256": "01"},
                    "annotations": {"package": "tiny", "role": "source"},
                },
            ],
        },
        "runDetails": {"builder": {"id": "x"}},
    },
}  # fmt: skip


def rpm(nevra: str, source: str = "", folder: str = "x86_64") -> PublishedRpm:
    parsed = Nevra.parse(nevra)
    return PublishedRpm(
        path=f"{folder}/{parsed.filename}", nevra=parsed, sha256="", source=source or parsed.filename
    )


PACKAGES = (
    rpm("tiny-1:2-1.noarch", "tiny-2-1.src.rpm"), rpm("tiny-libs-1:2-1.noarch", "tiny-2-1.src.rpm"),
    rpm("tiny-debuginfo-1:2-1.noarch", "tiny-2-1.src.rpm", "debug/x86_64"),
    rpm("tiny-1:2-1.src", folder="source"), rpm("other-3-1.noarch", "other-3-1.src.rpm"),
)  # fmt: skip


@pytest.fixture
def f28() -> Target:
    return load_target(Path(__file__).parents[2] / "mock-configs", "f28")


def test_packages_are_told_by_their_source_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, f28: Target
) -> None:
    def described(_generation: Path, name: str) -> dict[str, PublishedRpm]:
        return {one.path: one for one in PACKAGES if one.path.rpartition("/")[0] == name}

    monkeypatch.setattr(builds, "described", described)
    statement = ProvenanceStatement.model_validate(STATEMENT)
    monkeypatch.setattr(builds, "statements", lambda _generation: [("a", statement)])
    other, tiny = builds_in(tmp_path, f28)
    assert (other.name, other.evr, other.origin, other.source) == ("other", "3-1", "", "")
    assert other.packages == (("x86_64/other-3-1.noarch.rpm", "other"),)
    assert (tiny.name, tiny.evr, tiny.origin) == ("tiny", "1:2-1", "tiny-2-1.fc29")
    assert tiny.source == "source/tiny-2-1.src.rpm"
    assert [name for _, name in tiny.packages] == ["tiny", "tiny-libs"]
    assert tiny.debug == 1
