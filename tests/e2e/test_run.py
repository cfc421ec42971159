"""The one way to start a program, with real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backport import run as run_module
from backport.errors import DeadlineError, HostError, ToolError
from backport.run import Command, describe_exit, network_environment, run, running

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def test_returns_what_the_program_left_behind() -> None:
    done = run(Command(python("print('ä'); raise SystemExit(3)"), timeout=60, accept=(0, 3)))
    assert (done.exit_code, done.text) == (3, "ä\n")
    assert done.argv[0] == PYTHON


def test_the_environment_is_made_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_PASSPHRASE", "hunter2")
    monkeypatch.setenv("LD_PRELOAD_X", "x")
    done = run(Command(["env"], timeout=60, env={"EXTRA": "1", "HOME": "/builddir"}))
    found = dict(line.split("=", 1) for line in done.text.splitlines())
    assert found == {**run_module.BASE_ENVIRONMENT, "EXTRA": "1", "HOME": "/builddir"}


def test_network_settings_are_passed_on_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(network_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert network_environment() == {"https_proxy": "http://proxy.example:3128", "NO_PROXY": "localhost"}


def test_words_are_passed_as_they_are(tmp_path: Path) -> None:
    words = ["$(touch x)", "a b", "'", "*", ""]
    done = run(Command([*python("import sys; print(sys.argv[1:])"), *words], timeout=60, cwd=tmp_path))
    assert done.text == f"{words}\n"
    assert list(tmp_path.iterdir()) == []


def test_standard_input_is_empty_unless_given() -> None:
    read = python("import sys; print(len(sys.stdin.read()))")
    assert run(Command(read, timeout=60)).text == "0\n"
    assert run(Command(read, timeout=60, stdin=b"x" * 1_000_000)).text == "1000000\n"


def test_a_failure_says_what_failed_how_and_with_what_words() -> None:
    with pytest.raises(ToolError) as caught:
        run(
            Command(
                python("import sys; print('no such tag', file=sys.stderr); sys.exit(4)"),
                timeout=60,
                what="the hub was not asked",
                hint="try later",
            )
        )
    assert caught.value.message == "the hub was not asked: exit code 4: no such tag"
    assert caught.value.hint == "try later"
    assert caught.value.command is not None
    assert caught.value.command[0] == PYTHON


def test_a_program_that_was_killed_is_told_by_the_signals_name() -> None:
    with pytest.raises(ToolError, match="killed by SIGKILL"):
        run(Command(python("import os; os.kill(os.getpid(), 9)"), timeout=60))


@pytest.mark.parametrize(
    ("exit_code", "words"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (-15, "killed by SIGTERM"),
        (143, "killed by SIGTERM"),
        (255, "exit code 255"),
    ],
)
def test_exit_codes_in_words(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words


def test_what_a_program_leaves_behind_is_gone_when_its_block_is_left(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    code = (
        f"import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c', {stubborn!r}]);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    with running(Command(python(code), timeout=60, log=log)):
        while len(words := log.read_text().split("\n", 1)[1].split()) < 2:
            assert time.monotonic() < deadline, words
            time.sleep(0.01)
    child = next(word for word in words if word.isdigit())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_any_exit_code_may_be_accepted() -> None:
    assert run(Command(python("raise SystemExit(9)"), timeout=60, accept=None)).exit_code == 9


def test_a_missing_program_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match="backport-no-such-program is not installed") as caught:
        run(Command(["backport-no-such-program"], timeout=60))
    assert "doctor" in (caught.value.hint or "")


def test_a_missing_folder_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        run(Command(["true"], timeout=60, cwd=tmp_path / "none"))
    assert "is not installed" not in caught.value.message
    assert str(tmp_path / "none") in caught.value.message


def test_a_log_holds_the_command_and_both_streams(tmp_path: Path) -> None:
    log = tmp_path / "logs/x.log"
    code = "import sys; print('out', flush=True); print('err', file=sys.stderr)"
    for _ in range(2):
        done = run(Command(python(code), timeout=60, log=log))
        assert done.output == b""
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(f"$ {PYTHON} -c ")
    assert lines[1:3] == ["out", "err"]
    with pytest.raises(ToolError) as caught:
        run(Command(python("raise SystemExit(1)"), timeout=60, log=log))
    assert caught.value.log == log


def test_a_flood_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "CAPTURE_LIMIT", 1000)
    done = run(Command(python("print('x' * 5_000_000)"), timeout=60))
    assert done.output == b"x" * 1000


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be collected does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in ("Z", "X")


def gone(pid: int) -> bool:
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


TELLS_CHILD = (
    "import subprocess, sys, time, pathlib\n"
    "child = subprocess.Popen(['sleep', '600'])\n"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
    "time.sleep(600)"
)


def test_past_its_deadline_a_program_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(DeadlineError, match="ended after 2 s, its deadline"):
        run(Command([*python(TELLS_CHILD), tmp_path / "pid"], timeout=2, what="the build"))
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_program_that_ignores_the_polite_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "TERMINATION_GRACE", 0.2)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    with pytest.raises(DeadlineError, match="its deadline"):
        run(Command(python(code), timeout=1))


def test_an_interruption_ends_the_program_too(tmp_path: Path) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, interrupt)
    pid_file = tmp_path / "pid"

    def poke() -> None:
        while not pid_file.exists() or not pid_file.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR1)

    poker = threading.Thread(target=poke)
    poker.start()
    try:
        with pytest.raises(Interrupted):
            run(Command([*python(TELLS_CHILD), pid_file], timeout=60))
    finally:
        poker.join()
        signal.signal(signal.SIGUSR1, before)
    assert gone(int(pid_file.read_text()))


def test_a_running_program_ends_with_its_block(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with running(Command(["sleep", "600"], timeout=60, log=log)) as process:
        assert process.poll() is None
    assert process.poll() == -signal.SIGTERM
    assert log.read_text() == "$ sleep 600\n"


def test_a_running_program_ends_when_its_block_fails(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def work() -> None:
        with running(Command(["sleep", "600"], timeout=60, log=tmp_path / "x.log")) as process:
            started.append(process)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert started[0].poll() is not None


def test_only_named_descriptors_are_inherited() -> None:
    inner, outer = os.pipe()
    try:
        os.set_inheritable(inner, True)
        code = "import os; print([n for n in range(3, 256) if os.path.exists(f'/proc/self/fd/{n}')])"
        assert run(Command(python(code), timeout=60)).text == "[]\n"
        done = run(Command(python(code), timeout=60, pass_fds=(outer,)))
        assert done.text == f"[{outer}]\n"
    finally:
        os.close(inner)
        os.close(outer)
