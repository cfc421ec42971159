"""The spec editor on specs that were made to keep it busy: it is done, or refuses, in a time that grows
with their size alone.

No time is measured here: each of these took minutes while something in the editor grew with the square.
"""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Iterator

import pytest

from backport import run
from backport.errors import PatchError
from backport.spec import ChangelogEntry, SpecEdit, SpecPatch, edit, edit_spec

N = 10_000
HEADER = "Name: a\nVersion: 1\nRelease: 1%{?dist}\nSource0: a.tar.gz\n"
ENTRY = ChangelogEntry(date=dt.date(2026, 11, 24), author="A <a@example.org>", lines=("x",))


def spec(*, tags: str = "", prep: str = "", header: str = HEADER, behind: str = "") -> str:
    return f"{header}{tags}\n%description\nA.\n%prep\n%setup -q\n{prep}\n%build\n%changelog\n{behind}"


OWN = "".join(f"Patch{number}: {number}.patch\n" for number in range(N))
MACROS = "".join(f"%global r{number} %{{r{number + 1}}}\n" for number in range(N))
HOSTILE = {
    "brackets": spec(prep="(" * 10 * N),
    "pairs of brackets": spec(prep="(" * 190 + "()" * N),
    "lines of brackets": spec(prep="(\n" * N),
    "patches": spec(tags=OWN, prep="".join(f"%patch -P {number} -p1\n" for number in range(N))),
    "patches of one autopatch": spec(tags=OWN, prep="%autopatch -p2"),
    "autopatches": spec(tags="Patch0: x", prep="%autopatch -p2\n" * N),
    "autopatches in a line": spec(tags="Patch0: x", prep="%autopatch -p2 " * N),
    "patch macros in a line": spec(prep="%patch " * N),
    "releases": spec(header=HEADER + "Release: 1\n" * N),
    "releases of macros": spec(header="Name: a\n" + "Release: %{r0}\n" * N, tags=MACROS),
    "releases of subpackages": spec(tags="".join(f"%package s{x}\nRelease: %release.1\n" for x in range(N))),
    "macros in a release": spec(header="Name: a\nRelease: " + "%a" * N + "\n"),
    "blanks in a tag": spec(tags="Patch" + " " * 10 * N + "x"),
    "nested conditionals": spec(tags="%if 1\n" * N + "%endif\n" * N),
    "conditionals below others": spec(tags="%if 1\n" * 190 + "%if 1\n%endif\n" * N + "%endif\n" * 190),
    "branches": spec(prep="%if 1\ncd x\n" + "%elif 1\ncd y\n" * N + "%endif\n"),
    "folders": spec(prep="cd a\n" * N),
    "stacked folders": spec(prep="pushd a\n" * N),
    "here documents": spec(prep="cat " + "<<A " * N),
    "quotes": spec(prep='a"' * N + "b'" * N),
    "loops over all patches": spec(tags="Patch0: x", prep="for x in %{patches}; do\n" * N),
    "nested macros": spec(tags="Patch0: x", prep="%autopatch " + "%{?a:" * N + "}" * N),
    "open macros behind -p": spec(tags="Patch0: x", prep="%autopatch " + " -p%{" * N),
    "open definitions": spec(tags="%define x((" * N),
    "open globs": spec(prep="cp %{_sourcedir}/" + "[" * N + " ."),
    "globs": spec(prep="cp %{_sourcedir}/" + "*a" * N + " ."),
    "changelogs": spec(behind="%changelog\n" * N),
    "entries": spec(behind="* Mon Jan 01 2018 A\n- x\n" * N),
    "continued lines": spec(prep="x \\\n" * N),
    "a long line": spec(prep="a " * 10 * N),
    "macros of the sources' folder": spec(
        tags="".join(f"%global s{x} %{{_sourcedir}}\n" for x in range(N)), prep="cp %s1/*.x .\n" * N
    ),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_spec_is_edited_or_refused_in_linear_time(text: str) -> None:
    patches = [SpecPatch(name="ours.patch", strip=0)]
    told = ""
    try:
        edited = edit_spec(text.encode(), name="a.spec", patches=patches, bump=1, changelog=ENTRY)
    except PatchError as refused:
        told = refused.message
    assert "seconds" not in told
    assert told or b"ours.patch" in edited


@pytest.mark.parametrize(
    "text",
    [
        spec(tags="Patch" + "9" * 5000 + ": x"),
        spec(tags="Patch\N{SUPERSCRIPT TWO}: x"),
        spec(prep="%patch" + "1" * 5000 + " -p1"),
        spec(prep="%patch -P " + "1" * 5000),
        spec(header="Name: a\nRelease: 1.bp" + "1" * 5000 + "\n"),
        spec(tags="%{?x:Patch" + "1" * 5000 + ": y}"),
    ],
)
def test_numbers_that_are_none_are_refused(text: str) -> None:
    for encoding in ("latin-1", "utf-8"):
        with pytest.raises(PatchError):
            edit_spec(
                text.encode(encoding),
                name="a.spec",
                patches=[SpecPatch(name="o.patch")],
                bump=1,
                changelog=None,
            )


def test_a_level_of_5000_digits_is_unknown() -> None:
    text = spec(tags="Patch0: x", prep="%autopatch -p" + "1" * 5000).encode()
    assert b"ours" in edit_spec(text, name="a.spec", patches=[SpecPatch(name="ours")], bump=0, changelog=None)


def test_an_anchor_that_stands_everywhere_or_nowhere_in_a_large_spec_is_told() -> None:
    text = ("a" * 100 + "\n") * N
    for anchor, reason in (("a", "more than 20 lines"), ("b" * 10_000, "does not stand")):
        with pytest.raises(PatchError, match=reason):
            edit_spec(
                text.encode(),
                name="a.spec",
                edits=[SpecEdit(action="delete", anchor=anchor)],
                bump=0,
                changelog=None,
            )


@pytest.fixture
def alarm() -> Iterator[None]:
    """Whatever a test does to the process's timer is undone."""
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("alarm")
def test_editing_ends_at_its_deadline_within_a_regular_expression_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edit, "DEADLINE", 0.05)
    monkeypatch.setattr(edit, "parse", lambda _name, text: __import__("re").search(r"(a|a)*b", text))
    with pytest.raises(PatchError, match=r"^a\.spec: not done after 0\.05 seconds$"):
        edit_spec(b"a" * 64, name="a.spec", bump=0, changelog=None)


@pytest.mark.usefixtures("alarm")
def test_a_limit_leaves_an_outer_one_as_it_was() -> None:
    def outer(_number: int, _frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, outer)
    signal.setitimer(signal.ITIMER_REAL, 50)
    with run.time_limit(10, what="x", hint="y"):
        pass
    assert signal.getsignal(signal.SIGALRM) is outer
    assert 1 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
