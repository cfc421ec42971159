import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console
from rich.text import Text

from backport.artifacts import Check, Verdict
from backport.commands import terminal
from backport.commands.terminal import TerminalProgress, checks_table, output, rows_table


def console(*, terminal: bool = False, width: int = 80) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width, highlight=False), stream


def test_a_pipe_gets_one_plain_line_per_step() -> None:
    target, stream = console()
    with TerminalProgress(target) as progress:
        progress.note("fetch openssl [1]")
        for done in range(0, 5_000_001, 1_000_000):
            progress.transfer("openssl.src.rpm", done, 5_000_000)
    lines = stream.getvalue().splitlines()
    assert [line.split("] ", 1)[1] for line in lines] == [
        "fetch openssl [1]",
        "downloading openssl.src.rpm, 5.0 MB",
    ]
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_gets_a_bar_that_goes_away() -> None:
    target, stream = console(terminal=True)
    with TerminalProgress(target) as progress:
        progress.note("fetch")
        progress.transfer("a.rpm", 1, None)
        progress.transfer("a.rpm", 5, 10)
        progress.transfer("a.rpm", 10, 10)
    assert "fetch" in stream.getvalue()


def test_colours_respect_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    target, stream = console(terminal=True)
    target.print(checks_table([Check(id="a", title="A", verdict=Verdict.FAIL)]))
    assert "\x1b[31" not in stream.getvalue()
    assert "\x1b[1;31" not in stream.getvalue()


def test_markup_in_foreign_text_is_shown_not_obeyed() -> None:
    target, stream = console()
    target.print(rows_table(("name",), [("[bold]x[/bold]",)]))
    target.print(
        checks_table([Check(id="a", title="A", verdict=Verdict.PASS, expected="[red]", found="[/]")])
    )
    assert "[bold]x[/bold]" in stream.getvalue()
    assert "[red]" in stream.getvalue()


@pytest.fixture
def broken_pipe() -> Iterator[TextIO]:
    """A stream whose reader has gone."""
    inner, outer = os.pipe()
    os.close(inner)
    stream = os.fdopen(outer, "w", buffering=1)
    yield stream
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_progress_that_nobody_reads_keeps_no_work_from_being_done(
    broken_pipe: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", broken_pipe)
    with TerminalProgress() as progress:
        for number in range(3):
            progress.note(f"step {number}")


def test_results_that_nobody_reads_are_told_to_the_entry_point(
    broken_pipe: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", broken_pipe)
    with pytest.raises(BrokenPipeError):
        output().print("a line")


CHECKS = (
    Check(
        id=f"transport.{'x' * 34}", title="", verdict=Verdict.FAIL, expected="TLSv1.3", found="TLSv1.2 it was"
    ),
    Check(id="transport.connect", title="", verdict=Verdict.PASS, expected="a session", found="a session"),
    Check(id="certificate.crl", title="", verdict=Verdict.SKIPPED, advice="no list is given"),
)


def test_a_wide_table_has_a_column_for_each() -> None:
    target, stream = console(width=120)
    target.print(checks_table(CHECKS))
    lines = stream.getvalue().splitlines()
    assert lines[0].split() == ["check", "verdict", "expected", "found"]
    assert lines[1].split() == [CHECKS[0].id, "fail", "TLSv1.3", "TLSv1.2", "it", "was"]
    assert lines[3].split() == ["certificate.crl", "skipped", "no", "list", "is", "given"]


def test_a_narrow_table_breaks_no_words() -> None:
    target, stream = console(width=80)
    target.print(checks_table(CHECKS))
    assert [line.rstrip() for line in stream.getvalue().splitlines()[1:]] == [
        f"fail     {CHECKS[0].id}",
        "           TLSv1.2 it was (expected: TLSv1.3)",
        "pass     transport.connect",
        "           a session",
        "skipped  certificate.crl",
        "           no list is given",
    ]


def test_short_cells_are_not_broken_where_a_long_one_can_give_way() -> None:
    target, stream = console(width=60)
    target.print(rows_table(("seen", "peer"), [("2026-11-11T01:04:35+0100", "x" * 60)]))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[1] == ["2026-11-11T01:04:35+0100", "x" * 34]
    assert lines[2] == ["x" * 26]


def test_long_work_shows_its_log_at_once_and_a_sign_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "HEARTBEAT", 0.0)
    monkeypatch.setattr(terminal, "_LOOK", 0.01)
    (target, shown), log = console(width=400), tmp_path / "build.log"
    log.write_text("Executing(%prep): /bin/sh\n")
    with TerminalProgress(target) as progress, progress.following("compiling tiny", log):
        assert f"compiling tiny; log: {log}" in shown.getvalue()
        with log.open("a") as stream:
            stream.write("Executing(%check): /bin/sh\n+ make check\n")
        assert until(lambda: "still compiling tiny: %check, 0 min" in shown.getvalue())
    assert "make check" not in shown.getvalue()
    assert "%prep" not in shown.getvalue()


def test_whoever_asks_for_it_sees_the_log_itself(tmp_path: Path) -> None:
    (target, shown), log = console(width=400), tmp_path / "build.log"
    with TerminalProgress(target, verbose=True) as progress, progress.following("compiling tiny", log):
        log.write_text("+ make\n  in\x1b[31m red\nan end without a newline")
    assert "+ make\n  in red\n" in shown.getvalue()


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_nothing_that_is_quoted_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output().print(Text("a\x1b[31mb\u202e"))
    output().print(rows_table(["x"], [["c\x1b]0;title\x07d"]]))
    with TerminalProgress() as progress:
        progress.note("e\x1b[2Jf")
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "a\\x1b[31mb\\u202e" in told.out
    assert "c\\x1b]0;title\\x07d" in told.out
    assert "e\\x1b[2Jf" in told.err


def test_names_are_never_broken_and_a_pipe_gets_no_padding(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-very-long-package-name-with-words-1:1.2.3-4.fc28.bp1.x86_64"
    target, shown = console(width=80)
    target.print(rows_table(("package", "repository"), [(name, "x" * 120)]))
    assert name in shown.getvalue()
    output().print(rows_table(("package", "at"), [("a", "b\tc"), ("longer", "")]))
    assert capsys.readouterr().out == "package\tat\na\tb c\nlonger\t\n"


def test_ids_and_paths_are_whole_in_eighty_columns() -> None:
    fingerprint, generation = "07813682AB9C43151652F3DB5C458C731DBD74CA", "20261125T003221Z-bdb8681a4138"
    run = f"{generation[:15]}.752102Z-hello-f28"
    target, stream = console(width=80)
    target.print(
        checks_table(
            [Check(id="key", title="", verdict=Verdict.PASS, expected=fingerprint, found=fingerprint)]
        )
    )
    header = ("now", "generation", "packages", "new", "a client installed it", "run")
    target.print(rows_table(header, [("*", generation, "9", "+9", "proven", run)] * 2))
    text = stream.getvalue()
    assert (text.count(fingerprint), text.count(generation), text.count(run)) == (1, 2, 2)
    assert all(len(line) <= 80 for line in text.splitlines())
