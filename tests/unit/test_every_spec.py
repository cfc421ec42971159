"""What `make specs` takes for an edit without a loss."""

from pathlib import Path

import pytest

from tests.every_spec import judge, loss

SPECS = sorted((Path(__file__).parents[1] / "data/specs").glob("*.spec"))
BEFORE = "Name: a\nRelease: %autorelease\n%prep\n%autosetup\n%autopatch -p1\n%build\n"


@pytest.mark.parametrize("strip", [0, 1, 2])
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_the_sample_specs_are_edited_without_a_loss(path: Path, strip: int) -> None:
    assert judge(path.name, path.read_bytes(), strip=strip).wrong == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("%autorelease", "%{autorelease}.bp1"),
        ("%autosetup", "%autosetup -N"),
        ("%autopatch -p1", "%patch -P 0 -p1"),
        ("%autopatch -p1", "%autopatch -M 3 -p1"),
        ("%build", "%patch -P 1 -p1\n%build"),
    ],
)
def test_what_an_edit_may_change(old: str, new: str) -> None:
    assert loss(BEFORE, BEFORE.replace(old, new)) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Name: a\n", ""),
        ("Name: a", "Name: b"),
        ("%autorelease", "%{autorelease} .bp1"),
        ("%autorelease", "%{autorelease"),
        ("%autosetup", "%autosetup -n b"),
        ("%build\n", "%build"),
        ("%build", "%build\nmake"),
        ("\n", "\r\n"),
    ],
)
def test_what_is_a_loss(old: str, new: str) -> None:
    assert loss(BEFORE, BEFORE.replace(old, new)) != ""
