"""How a command ends: failures can be coped with, an interruption cannot; and what the system refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from backport import errors, gates
from backport.errors import (
    BUSY,
    BackportError,
    BuildError,
    BuildTimeout,
    BusyError,
    DeadlineError,
    HostError,
    Interrupted,
    PublishError,
    SignError,
    ToolError,
    as_kind,
    from_os,
)
from backport.gates import roots
from backport.probe.ledger import Ledger
from backport.progress import Silent


def interrupt() -> NoReturn:
    raise Interrupted("interrupted by SIGINT")


def test_only_an_interruption_passes_by_whoever_copes_with_failures() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")]
    assert [kind for kind in kinds if not issubclass(kind, BackportError)] == [errors.Ending, Interrupted]
    assert not issubclass(Interrupted, Exception)


def test_an_interruption_becomes_no_check_of_the_self_test() -> None:
    ledger = Ledger({"root.installed": "The root"})
    with pytest.raises(Interrupted), ledger.step("root.installed", expected="a root", advice="none"):
        interrupt()


def test_an_interruption_becomes_no_check_of_a_gate() -> None:
    subject: Any = SimpleNamespace(progress=Silent())
    with pytest.raises(Interrupted):
        list(gates._asked("gate.files", "Files", lambda _: interrupt(), subject))


def test_an_interruption_is_no_transaction_that_failed(tmp_path: Path) -> None:
    root: Any = None
    with pytest.raises(Interrupted):
        roots._transaction(roots.FRESH, root, set(), tmp_path / "dnf.log", interrupt)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO, errno.ENOENT])
def test_what_the_system_refuses_is_told_with_path_reason_and_hint(number: int) -> None:
    problem = from_os(OSError(number, os.strerror(number), "/srv/x"))
    assert (type(problem), problem.message) == (ToolError, f"/srv/x: {os.strerror(number)}")
    assert problem.hint


def test_a_refused_rename_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r".") as caught:
        (tmp_path / "a").rename(tmp_path / "b" / "c")
    problem = from_os(caught.value)
    assert problem.message == f"{tmp_path}/a → {tmp_path}/b/c: No such file or directory"


def test_what_the_system_does_not_explain_is_told_as_it_is() -> None:
    assert from_os(OSError("cannot be read back")).message == "cannot be read back"
    assert from_os(OSError()).message == "OSError"


def test_the_failure_of_a_tool_is_of_its_stages_kind_with_all_that_is_known(tmp_path: Path) -> None:
    told = BusyError(
        "cp failed",
        hint="make room",
        command=("cp",),
        sandboxed=True,
        log=tmp_path,
        evidence=("x",),
    )
    with pytest.raises(PublishError) as caught, as_kind(PublishError):
        raise told
    assert vars(caught.value) == {**vars(told), "exit_code": BUSY}
    assert (caught.value.kind, caught.value.exit_code) == ("publish", 75)


def test_a_deadline_may_be_of_a_kind_of_its_own_and_what_has_a_kind_keeps_it() -> None:
    for problem, kind in (
        (DeadlineError("x"), BuildTimeout),
        (ToolError("x"), BuildError),
        (HostError("x"), HostError),
        (SignError("x"), SignError),
    ):
        with pytest.raises(kind) as caught, as_kind(PublishError), as_kind(BuildError, late=BuildTimeout):
            raise problem
        assert type(caught.value) is kind


def test_what_a_message_quotes_does_nothing_to_a_terminal() -> None:
    evil = "a\x1b[31m\x9b2J\r\x07\u202e\ud800 b\tc\nd\N{NO-BREAK SPACE}é\N{CJK UNIFIED IDEOGRAPH-4E2D}"
    good = "a\\x1b[31m\\x9b2J\\r\\x07\\u202e\\ud800 b\tc\nd\N{NO-BREAK SPACE}é\N{CJK UNIFIED IDEOGRAPH-4E2D}"
    problem = BackportError(evil, hint=evil, command=("x", "\x1b[0m"), log=Path("\x1b"), evidence=(evil,))
    assert (problem.message, problem.hint, problem.evidence) == (good, good, (good,))
    assert str(problem) == good
    lines = errors.explained(
        hint=evil, replay=["\x1b"], command=problem.command, log=problem.log, evidence=[evil]
    )
    assert "\x1b" not in "".join(lines)
