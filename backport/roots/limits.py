"""How much of the host a sandbox may use: processes, memory, open files.

Processes and memory are bounded for the sandbox as a whole by a control group of its own (the kernel's
cgroup-v2.rst, and cgroup-v1 where a host still has it), made beside that of this process and gone with the
sandbox. Where this host lets none be made, a limit of resources (setrlimit(2)) does what it can: it counts
the processes of the user, whoever started them, and bounds the memory of each process alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import BuildOptions

PROCESSES, PROCESSES_PER_CORE = 4096, 256
"""How many processes, threads among them, where nothing else is said: the larger number of the two."""
FILES = 16384
"""How many files a process may have open where nothing else is said."""
MIB = 1024**2
_MEMORY_SHARE = 0.9
"""How much of the host's memory, where nothing else is said and a control group can be made."""
_PREFIX = "backport-"
_JOIN = 'for group in $1; do echo 0 > "$group/cgroup.procs" || exit; done; shift; exec "$@"'
_numbers = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The bounds of one sandbox; None: what this host gives."""

    processes: int | None = None
    memory: int | None = None
    """In MiB."""
    files: int | None = None

    @classmethod
    def of(cls, options: BuildOptions) -> Bounds:
        """Those of a build."""
        return cls(processes=options.processes, memory=options.memory, files=options.files)

    def filled(self) -> tuple[int, int, int]:
        """Processes, memory in MiB and open files, with what this host gives where nothing is said."""
        cores = len(os.sched_getaffinity(0))
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return (
            self.processes or max(PROCESSES, PROCESSES_PER_CORE * cores),
            self.memory or int(host * _MEMORY_SHARE) // MIB,
            min(self.files or FILES, most_files),
        )


NO_WISHES = Bounds()
"""What this host gives, of everything."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Bounds in force, until the block of `fenced` is left."""

    words: tuple[str, ...]
    """What a program is started by, so that it is held to them."""
    processes: int
    memory: int | None
    groups: tuple[Path, ...] = ()

    def reached(self) -> str:
        """Which limit has kept a program from something, in people's words; empty where none has."""
        if self._count("pids.events", "max"):
            return f"its limit of {self.processes} processes (`processes`)"
        killed = ("memory.events", "oom_kill"), ("memory.oom_control", "oom_kill")
        if any(self._count(*place) for place in killed) and self.memory:
            return f"its limit of {self.memory} MiB of memory (`memory`)"
        return ""

    def _count(self, file: str, key: str) -> int:
        for group in self.groups:
            with contextlib.suppress(OSError, ValueError):
                words = (group / file).read_text().split()
                return int(words[words.index(key) + 1])
        return 0


@contextlib.contextmanager
def fenced(limits: Bounds) -> Iterator[Fence]:
    """Bounds for the programs that are started by the fence's words while the block lasts."""
    processes, memory, files = limits.filled()
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(_groups({"pids": str(processes), "memory": str(memory * MIB)}))
        bounds = [f"--nofile={files}:{files}"]
        if "pids" not in made:
            bounds.append(f"--nproc={processes}:{processes}")
        if "memory" not in made and limits.memory:
            bounds.append(f"--as={memory * MIB}:{memory * MIB}")
        places = tuple(dict.fromkeys(made.values()))
        joining = ("sh", "-c", _JOIN, "sh", " ".join(map(str, places))) if places else ()
        yield Fence(
            words=(*joining, "prlimit", *bounds, "--"),
            processes=processes,
            memory=memory if "memory" in made or limits.memory else None,
            groups=places,
        )


@contextlib.contextmanager
def _groups(limits: dict[str, str]) -> Iterator[dict[str, Path]]:
    """A new control group for each controller that this host lets be used, with its limit set."""
    made: dict[str, Path] = {}
    try:
        for controller, limit in limits.items():
            with contextlib.suppress(OSError):
                parent = _parent(controller)
                if parent is not None:
                    made[controller] = _make(parent, controller, limit, made)
        yield made
    finally:
        for group in set(made.values()):
            # Whoever may be left in it is killed, and it is swept then.
            with contextlib.suppress(OSError):
                group.rmdir()


def _make(parent: Path, controller: str, limit: str, made: dict[str, Path]) -> Path:
    """A group below ``parent``; that of another controller where both share a hierarchy. Raises OSError."""
    group = next((group for group in made.values() if group.parent == parent), None)
    fresh = group is None
    if group is None:
        _sweep(parent)
        group = parent / f"{_PREFIX}{os.getpid()}-{next(_numbers)}"
        group.mkdir()
    try:
        name = {"pids": ("pids.max",), "memory": ("memory.max", "memory.limit_in_bytes")}[controller]
        file = next((group / one for one in name if (group / one).exists()), group / name[0])
        # Not made where it is missing: only the kernel makes such files.
        with file.open("r+") as stream:
            stream.write(limit)
    except OSError:
        if fresh:
            group.rmdir()
        raise
    return group


def _sweep(parent: Path) -> None:
    """Remove the groups of processes that were killed."""
    for group in parent.glob(f"{_PREFIX}*-*"):
        pid = group.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):
                group.rmdir()


def _parent(controller: str) -> Path | None:
    """The nearest group above that of this process below which groups with the controller can be made."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mine = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _, controllers, path in mine:
        if controller in controllers.split(","):
            return _mounted(mounts, "cgroup", path, controller)
    for number, controllers, path in mine:
        if number == "0" and not controllers:
            start = _mounted(mounts, "cgroup2", path)
            return _enabled(start, controller) if start else None
    return None


def _mounted(mounts: Sequence[Sequence[str]], kind: str, path: str, controller: str = "") -> Path | None:
    """Where a group lies in the file system: proc(5), /proc/pid/mountinfo."""
    for words in mounts:
        end = words.index("-")
        if words[end + 1] != kind or (controller and controller not in words[end + 3].split(",")):
            continue
        root = words[3].rstrip("/")
        if path.startswith(f"{root}/") or path == root:
            group = Path(words[4] + path.removeprefix(root))
            if group.is_dir():
                return group
    return None


def _enabled(start: Path, controller: str) -> Path | None:
    """The group or the nearest above it that has the controller for those below it.

    A group with processes in it cannot have that (cgroup-v2.rst, "No Internal Process Constraint").
    """
    for group in (start, *start.parents):
        control = group / "cgroup.subtree_control"
        if not control.is_file():
            return None
        if controller in control.read_text().split():
            return group
    return None
