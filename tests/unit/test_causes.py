"""Causes found in logs: what is told, what is left out, and that no log takes long."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from backport.causes import MOST_LINES, causes_in, causes_of
from backport.errors import SHOWN_EVIDENCE, BackportError, explained


def failed(section: str, *lines: str) -> str:
    """What rpmbuild prints of a section that fails."""
    return "\n".join(
        [
            "Executing(%prep): /bin/sh -e /var/tmp/rpm-tmp.a", "+ ls x", "x: error: of another section",
            f"Executing({section}): /bin/sh -e /var/tmp/rpm-tmp.b", *lines,
            f"error: Bad exit status from /var/tmp/rpm-tmp.b ({section})", "", "RPM build errors:",
            f"    Bad exit status from /var/tmp/rpm-tmp.b ({section})",
        ]
    )  # fmt: skip


def test_only_the_section_that_failed_counts() -> None:
    causes = causes_in(failed("%check", "+ make check", "not ok 3 - adds up", "make: *** [check] Error 1"))
    assert causes.summary == "%check: not ok 3 - adds up (in `make check`)"
    assert causes.evidence == ("not ok 3 - adds up", "make: *** [check] Error 1", "+ make check")


def test_what_the_shell_says_that_it_does_is_no_cause() -> None:
    causes = causes_in(failed("%build", "+ echo 'a: error: none'", "a: fine", "+ ./configure"))
    assert causes.summary == "%build: `./configure` failed"


def test_a_log_that_tells_nothing_gives_no_cause() -> None:
    assert causes_in("").summary == ""
    assert causes_of(None).evidence == ()
    assert causes_of(Path("/nonexistent/build.log")).summary == ""


def test_only_what_was_printed_since_counts(tmp_path: Path) -> None:
    log = tmp_path / "root.log"
    log.write_text("No match for argument: old\n")
    start = log.stat().st_size
    log.write_text(log.read_text() + "No match for argument: new\n")
    assert causes_of(log, start=start).evidence == ("No match for argument: new",)
    assert causes_of(log, start=10**9).evidence == ()


@pytest.mark.parametrize(
    ("line", "summary"),
    [
        ("Error: Failed to download metadata for repo 'x': Cannot download repomd.xml", "Failed to download"),
        ("Package a-1.rpm is not signed", "Package a-1.rpm is not signed"),
        ("Public key for a-1.rpm is not installed", "Public key for a-1.rpm is not installed"),
        ("  file /usr/x from install of a conflicts with file from package b", "file /usr/x from install"),
        ("  At least 12MB more space needed on the / filesystem.", "At least 12MB more space needed"),
        (
            "DEBUG util.py:461:  No matching package to install: 'x-devel'",
            "No matching package to install: 'x",
        ),
        ("DEBUG util.py:461:    - nothing provides x needed by y-1", "nothing provides x needed by y-1"),
        (">>> [RPM] %prein(a-1) scriptlet failed, exit status 1", "%prein(a-1) scriptlet failed"),
        (" 2/3 Test #2: foo ....***Failed 0.1 sec", "2/3 Test #2: foo"),
        ("cc1plus: out of memory allocating 65536 bytes", "cc1plus: out of memory"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "g++: fatal error: Killed"),
        ("/bin/sh: fork: retry: Resource temporarily unavailable", "/bin/sh: fork"),
        ("foo.o: undefined reference to `bar'", "foo.o: undefined reference"),
        ("configure: error: no acceptable C compiler found", "configure: error: no acceptable"),
        ("ModuleNotFoundError: No module named 'x'", "ModuleNotFoundError"),
    ],
)
def test_lines_that_tell_a_cause_are_known(line: str, summary: str) -> None:
    assert causes_in(f"noise\n{line}\nnoise").summary.startswith(summary)


def test_a_macro_with_a_question_mark_is_named_with_its_line() -> None:
    spec = "Name: x\n%build\n%{?!nodejs_symlink_deps} --all\n"
    causes = causes_in('error: File must begin with "/": %{?!nodejs_symlink_deps}/x', spec)
    assert causes.summary == "the target does not know the macro %{nodejs_symlink_deps} (line 3 of the spec)"
    assert "macros" in str(causes.hint)


def test_a_macro_in_a_line_that_rpm_cannot_parse_is_named() -> None:
    causes = causes_in(
        "error: line 4: Illegal char '{' (0x7b) in: Version: %{of_f29}", "\n\nVersion: %{of_f29}"
    )
    assert causes.summary == "the target does not know the macro %{of_f29} (line 3 of the spec)"
    assert causes_in("error: line 5: Second %description").summary == "line 5: Second %description"


def test_evidence_is_bounded_and_harmless() -> None:
    lines = "".join(f"a.c:{number}: error: \x1b[31m{'x' * 5000}\x9b\u202e\t\x00\n" for number in range(900))
    causes = causes_in(lines)
    assert len(causes.evidence) <= MOST_LINES
    assert all(line.isprintable() and len(line) <= 400 for line in (causes.summary, *causes.evidence))


@pytest.mark.parametrize(
    "line", ["a", "file /a " * 400, "error: " * 500, "%{" * 1500, "\t" * 9000]
)  # fmt: skip
def test_no_log_takes_long(tmp_path: Path, line: str) -> None:
    log = tmp_path / "build.log"
    log.write_text(failed("%build", *[line] * (2 * 1024 * 1024 // len(line))))
    started = time.monotonic()
    causes_of(log)
    assert time.monotonic() - started < 5


def test_a_scriptlet_that_says_nothing_is_told_alone() -> None:
    log = "  Running scriptlet: a-1.noarch  1/1\nerror: %prein(a-1.noarch) scriptlet failed, exit status 1\n"
    assert causes_in(log).summary == "%prein(a-1.noarch) scriptlet failed, exit status 1"


def test_evidence_of_any_error_is_harmless() -> None:
    problem = BackportError("x", evidence=["  \x1b[31mred\x1b[0m\r", "\x1b]0;title\x07", "plain"])
    assert all(line.isprintable() for line in problem.evidence)


def test_a_terminal_shows_ten_lines_of_evidence() -> None:
    told = list(explained(hint="mend it", evidence=[f"line {number}" for number in range(30)]))
    assert told == [*(f"  | line {number}" for number in range(SHOWN_EVIDENCE)), "hint: mend it"]
