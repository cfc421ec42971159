"""The one way in which backport starts another program.

Every program gets an argv list (never a shell line), an environment made from nothing, no standard
input unless one is given, a deadline, and a session of its own, so that ending it ends its children.
What it prints goes to a log file behind the echoed command, or is captured within a bound.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from backport.causes import causes_in, causes_of
from backport.errors import DeadlineError, HostError, ToolError

BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "HOME": "/nonexistent",
}
NETWORK_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR")
CAPTURE_LIMIT = 16 * 1024 * 1024
TERMINATION_GRACE = 5.0
REST_GRACE = 5.0
"""How long what an ended program left behind is waited for, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A program that is to be run, and what people are told when it fails."""

    argv: Sequence[str | Path] = field(kw_only=False)
    timeout: float
    """Seconds until it is ended, or until it must have started where it is to stay."""
    what: str | None = None
    """What failed then, in people's words; without it, the program."""
    hint: str | None = None
    """What to do about it, where what it prints suggests nothing better."""
    accept: Collection[int] | None = (0,)
    """The exit codes that are no failure (None: any)."""
    stdin: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    """What its environment has besides `BASE_ENVIRONMENT`."""
    cwd: Path | str | None = None
    """Where it starts: inside the sandbox, if it runs in one."""
    log: Path | None = None
    """The file to which both of its streams are appended behind the echoed command. Without one, standard
    output is captured (at most ``CAPTURE_LIMIT`` bytes are kept) and standard error quoted in the error."""
    pass_fds: Collection[int] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The program and its arguments as text."""
        return tuple(map(str, self.argv))

    @property
    def purpose(self) -> str:
        """What people are told that failed."""
        return self.what or f"{Path(self.argv[0]).name} failed"

    def behind(self, *words: str | Path) -> Command:
        """The same command started by another program, to which it is what it was."""
        return replace(self, argv=(*words, *self.argv), what=self.purpose)


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a program left behind: its exit code (negative: the signal that ended it), and what it printed on
    standard output (empty when it went to a log)."""

    argv: tuple[str, ...]
    exit_code: int
    output: bytes
    reached: str = ""
    """Which of a sandbox's limits it ran into, if it failed."""
    log_start: int = 0
    """The byte of its log, if it has one, where what it printed begins."""

    @property
    def text(self) -> str:
        """The captured output as text; bytes that are not UTF-8 are replaced."""
        return self.output.decode("utf-8", "replace")


def network_environment() -> dict[str, str]:
    """The caller's own proxy and certificate settings, for programs that fetch over the network."""
    names = [spelling for name in NETWORK_VARIABLES for spelling in (name, name.upper())]
    return {name: os.environ[name] for name in names if name in os.environ}


@contextlib.contextmanager
def time_limit(seconds: float, *, what: str, hint: str) -> Iterator[None]:
    """End work of our own on foreign text after so many seconds, within a regular expression, too.

    Only the main thread can be ended so; in another one nothing happens. Raises DeadlineError.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(_number: int, _frame: object) -> None:
        raise DeadlineError(f"{what}: not done after {seconds:g} seconds", hint=hint)

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, end)
    remaining, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:
            signal.setitimer(signal.ITIMER_REAL, max(remaining - (time.monotonic() - started), 0.001))


def run(command: Command) -> Completed:
    """Run a program to its end and return what it left behind.

    Raises ToolError when the program fails, DeadlineError when it runs past its deadline, HostError when it
    is not installed.
    """
    with contextlib.ExitStack() as stack:
        stdout, stderr = _streams(stack, command)
        log_start = stdout.tell()
        process = _start(command, _as_file(stack, command.stdin), stdout, stderr)
        try:
            exit_code = _wait(process, command.timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise DeadlineError(
                f"{command.purpose}: ended after {command.timeout:.0f} s, its deadline", hint=command.hint,
                command=command.words, log=command.log,
                evidence=causes_of(command.log, start=log_start).evidence,
            ) from None  # fmt: skip
        except BaseException:
            _end(process)
            raise
        output = b"" if command.log else _read_back(stdout)
        if command.accept is not None and exit_code not in command.accept:
            said = "" if command.log else _read_back(stderr).decode("utf-8", "replace")
            causes = causes_of(command.log, start=log_start) if command.log else causes_in(said)
            summary = f": {causes.summary}" if causes.summary else ""
            raise ToolError(
                f"{command.purpose}: {describe_exit(exit_code)}{summary}", hint=causes.hint or command.hint,
                command=command.words, log=command.log, evidence=causes.evidence,
            )  # fmt: skip
    return Completed(argv=command.words, exit_code=exit_code, output=output, log_start=log_start)


def find_program(name: str) -> str | None:
    """Where `run` finds a program; None where it is not installed."""
    return shutil.which(name, path=BASE_ENVIRONMENT["PATH"])


@contextlib.contextmanager
def running(command: Command) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs while the block lasts and is ended, with its session, when it is left.

    Raises HostError when it is not installed.
    """
    with contextlib.ExitStack() as stack:
        stdout, stderr = _streams(stack, command)
        process = _start(command, _as_file(stack, command.stdin), stdout, stderr)
        try:
            yield process
        finally:
            _end(process)


def talk(argv: Sequence[str | Path]) -> int:
    """Let the person at the terminal use a program until it ends; its exit code.

    The program gets a terminal of its own, so that it cannot put words into the caller's (TIOCSTI), and every
    key goes to it. Standard input and output must be a terminal. Raises HostError when it is not installed.
    """
    command = Command(("setsid", "--ctty", "--wait", *argv), timeout=math.inf)
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    with contextlib.ExitStack() as stack:
        ours, its = os.openpty()
        stack.callback(os.close, ours)
        try:
            fcntl.ioctl(its, termios.TIOCSWINSZ, fcntl.ioctl(screen, termios.TIOCGWINSZ, bytes(8)))
            terminal = stack.enter_context(os.fdopen(os.dup(its), "r+b", buffering=0))
            process = _start(command, terminal, terminal, terminal, new_session=False)
            terminal.close()
        finally:
            os.close(its)
        stack.callback(_end, process)
        stack.callback(termios.tcsetattr, keyboard, termios.TCSAFLUSH, termios.tcgetattr(keyboard))
        tty.setraw(keyboard, termios.TCSADRAIN)
        _carry(keyboard, screen, ours)
        return process.wait()


def _carry(keyboard: int, screen: int, terminal: int) -> None:
    """Carry what is typed to a program's terminal, and what it says to the screen, until it has ended."""
    sources = [keyboard, terminal]
    while terminal in sources:
        for source in select.select(sources, [], [])[0]:
            try:
                said = os.read(source, 4096)
            except OSError:
                # EIO: nobody has the other side open any more (pty(7)).
                said = b""
            if not said:
                sources.remove(source)
            else:
                os.write(screen if source == terminal else terminal, said)


def describe_exit(exit_code: int) -> str:
    """An exit code in words: ``exit code 1`` or ``killed by SIGKILL``.

    >>> describe_exit(1), describe_exit(-9), describe_exit(137)
    ('exit code 1', 'killed by SIGKILL', 'killed by SIGKILL')
    """
    number = -exit_code if exit_code < 0 else exit_code - 128
    with contextlib.suppress(ValueError):
        if number > 0:
            return f"killed by {signal.Signals(number).name}"
    return f"exit code {exit_code}"


def _start(
    command: Command, stdin: BinaryIO, stdout: BinaryIO, stderr: BinaryIO, *, new_session: bool = True
) -> subprocess.Popen[bytes]:
    words = command.words
    try:
        return subprocess.Popen(
            words, stdin=stdin, stdout=stdout, stderr=stderr, env={**BASE_ENVIRONMENT, **command.env},
            cwd=command.cwd, pass_fds=tuple(command.pass_fds), start_new_session=new_session,
        )  # fmt: skip
    except FileNotFoundError as missing:
        raise HostError(
            f"{words[0]} is not installed on this host" if missing.filename == words[0] else str(missing),
            hint="`backport doctor` names the package that brings it",
            command=words,
        ) from missing


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int:
    """The exit code. Told by the kernel at once, where Popen.wait looks again only every 50 ms.

    Raises subprocess.TimeoutExpired.
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll(timeout * 1000)
    finally:
        os.close(descriptor)
    return process.wait(0)


def _streams(stack: contextlib.ExitStack, command: Command) -> tuple[BinaryIO, BinaryIO]:
    if command.log is None:
        return _as_file(stack, b""), _as_file(stack, b"")
    command.log.parent.mkdir(parents=True, exist_ok=True)
    stream = stack.enter_context(command.log.open("ab"))
    stream.write(f"$ {shlex.join(command.words)}\n".encode())
    stream.flush()
    return stream, stream


def _as_file(stack: contextlib.ExitStack, content: bytes | None) -> BinaryIO:
    if content is None:
        return stack.enter_context(Path(os.devnull).open("rb"))
    descriptor = os.memfd_create("backport", os.MFD_CLOEXEC)
    stream = stack.enter_context(os.fdopen(descriptor, "w+b"))
    stream.write(content)
    stream.seek(0)
    return stream


def _read_back(stream: BinaryIO) -> bytes:
    stream.seek(0)
    return stream.read(CAPTURE_LIMIT)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its session: politely, then for certain."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATION_GRACE)
            break
    _end_rest(process.pid)


def _end_rest(group: int) -> None:
    """End what a program left behind, and wait until it is gone: it may still hold what is to be removed."""
    deadline = time.monotonic() + REST_GRACE
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
        while _is_alive(group) and time.monotonic() < deadline:
            time.sleep(0.005)


def _is_alive(group: int) -> bool:
    """Whether a process of the group still does something; a dead one stays in it until it is reaped."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = status.read_text("ascii", "replace").rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False
