"""The host's side of mock: its program, the user that it falls back to, and who is inside its roots.

mock refuses to be started by plain root, because it needs a user to fall back to. It takes one from
SUDO_UID, as sudo(8) sets it; so does this builder: the user who called sudo where that is a member of the
group ``mock``, otherwise the first member of that group.

Fedora's ``mock`` is a link to consolehelper(8), which makes users of the group root. It would take SUDO_UID
away and set USERHELPER_UID to the caller's, root's, so that everything would be built as root: the program
behind it (``PROGRAM`` in ``/etc/security/console.apps/mock``) is started instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import signal
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from backport.errors import HostError, as_kind
from backport.files import opened_regular, scratch_folder
from backport.roots.limits import Bounds, Fence, fenced
from backport.run import Command, find_program, run

GROUP = "mock"
ENDING = 10.0
"""How long processes in a root are given to go after they were killed, in seconds."""

UNREGISTERED = ("--register=no", "--keep-unit")
"""With these systemd-nspawn asks the service manager for no scope and no machine, which would outlive us."""
_ASKING = 60.0
_WRAPPER = "consolehelper"
_WRAPPED = Path("/usr/libexec/mock/mock")
_USER_FILES = (".mock/user.cfg", ".config/mock.cfg")
# Where systemd is the first process (sd_booted(3)), a container that keeps its caller's unit needs one whose
# cgroup is delegated to it (systemd-nspawn(1), --keep-unit).
_SYSTEMD = Path("/run/systemd/system")
_SCOPE = ("systemd-run", "--quiet", "--scope", "--collect", "--property=Delegate=yes")
# All processes of mock's get a pid namespace that goes with mock, and mock with whoever started it. Files
# that are named before "--" are empty for mock.
_HIDE_AND_RUN = """\
while [ "$1" != -- ]; do mount --bind /dev/null "$1" || exit 80; shift; done
shift
"$@"
exit $?"""
_ENDED_TOGETHER = (
    "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", _HIDE_AND_RUN, "sh",
)  # fmt: skip


def program() -> Path:
    """The mock that programs are looked for by, without its wrapper. Raises HostError without one."""
    found = find_program("mock")
    if found is None:
        raise HostError("mock is not installed on this host", hint="install mock, or use the chroot builder")
    if Path(found).resolve().name != _WRAPPER:
        return Path(found)
    if not os.access(_WRAPPED, os.X_OK):
        raise HostError(f"{found} leads to {_WRAPPER}, but there is no {_WRAPPED}", hint="reinstall mock")
    return _WRAPPED


@contextlib.contextmanager
def ended_together(caller: pwd.struct_passwd, bounds: Bounds) -> Iterator[Fence]:
    """What mock is started by, so that all of its processes end with this program and keep to the bounds.

    mock reads the files of its user behind every other configuration (``load_config`` in its sources):
    they are hidden from it.
    """
    hidden = [file for name in _USER_FILES if (file := Path(caller.pw_dir, name)).is_file()]
    if _has_scopes():
        processes, memory, files = bounds.filled()
        # The scope has a group of its own, out of whichever its caller was in (systemd.resource-control(5)).
        scope = (f"--property=TasksMax={processes}", f"--property=MemoryMax={memory}M")
        words = ("prlimit", f"--nofile={files}:{files}", "--", *_together(hidden, scope))
        yield Fence(words=words, processes=processes, memory=memory)
        return
    with fenced(bounds) as fence:
        yield replace(fence, words=(*fence.words, *_together(hidden)))


def container_limits(bounds: Bounds) -> tuple[str, ...]:
    """What systemd-nspawn is told of the bounds: it takes no limit of resources from its caller."""
    processes, _, files = bounds.filled()
    return (f"--rlimit=RLIMIT_NPROC={processes}", f"--rlimit=RLIMIT_NOFILE={files}")


def _has_scopes() -> bool:
    return _SYSTEMD.is_dir() and find_program(_SCOPE[0]) is not None


def _together(hidden: Sequence[Path] = (), properties: Sequence[str] = ()) -> tuple[str, ...]:
    scope = (*_SCOPE, *properties, "--") if _has_scopes() else ()
    return ("setpriv", "--pdeathsig", "KILL", *scope, *_ENDED_TOGETHER, *map(str, hidden), "--")


def find_caller() -> pwd.struct_passwd:
    """The user whom mock falls back to. Raises HostError where no member of its group is there.

    Users are asked for by name: a directory service need not list them all.
    """
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        raise HostError("this host has no group mock", hint="install mock, which makes it") from None
    for user in _known([os.environ.get("SUDO_USER", ""), *group.gr_mem]):
        if user.pw_name in group.gr_mem or group.gr_gid in os.getgrouplist(user.pw_name, user.pw_gid):
            return user
    raise HostError(
        "mock has to fall back to an unprivileged user, and its group has no member",
        hint="make one: useradd --system --groups mock mockrunner",
    )


def _known(names: Sequence[str]) -> Iterator[pwd.struct_passwd]:
    for name in names:
        with contextlib.suppress(KeyError):
            if name and (user := pwd.getpwnam(name)).pw_uid != 0:
                yield user


def sudo_environment(caller: pwd.struct_passwd) -> dict[str, str]:
    """What sudo tells mock about the user that it is to fall back to."""
    return {
        "SUDO_UID": str(caller.pw_uid),
        "SUDO_GID": str(caller.pw_gid),
        "SUDO_USER": caller.pw_name,
    }


def require_way(caller: pwd.struct_passwd, folder: Path) -> None:
    """Raise HostError when the folder or one above it keeps mock's user out.

    Of the user's groups mock keeps the group ``mock`` alone (``setup_uid_manager`` in its sources).
    """
    group = grp.getgrnam(GROUP).gr_gid
    for above in (folder.resolve(), *folder.resolve().parents):
        state = above.stat()
        needed = 0o100 if state.st_uid == caller.pw_uid else 0o010 if state.st_gid == group else 0o001
        if not state.st_mode & needed:
            raise HostError(
                f"mock's user {caller.pw_name} cannot enter {above}",
                hint=f"chmod o+x {above}, or set paths.cache to a folder that every user can enter",
            )


@as_kind(HostError)
def has_builddep() -> bool:
    """Whether the host's dnf has the command by which mock installs what a build needs."""
    dnf = find_program("dnf-3") or "dnf"
    return run(Command([dnf, "builddep", "--help"], timeout=_ASKING, accept=None)).exit_code == 0


@as_kind(HostError)
def start_container() -> None:
    """Start a container of nothing but the host's own programs, as mock starts those of its roots.

    Raises HostError with what systemd-nspawn says when it cannot.
    """
    with scratch_folder(Path(tempfile.gettempdir()), "backport-container-") as tree:
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr"):
            (tree / name).mkdir()
        for name in ("bin", "lib", "lib64"):
            (tree / name).symlink_to(f"usr/{name}")
        (tree / "etc/os-release").touch()
        words = ("systemd-nspawn", "-q", "-D", tree, *UNREGISTERED, "--bind-ro=/usr", "/usr/bin/true")
        what = "systemd-nspawn cannot start a container"
        run(Command([*_together(), *words], timeout=_ASKING, what=what))


def holders(place: Path) -> Mapping[int, str]:
    """Who is inside the root that mock has at ``place``, or has it locked: names by process ids.

    A process outside of this host's own namespace has the id 0.
    """
    found = {pid: _name_of(pid) for pid in _inside(place / "root")}
    owner = _lock_owner(place / "buildroot.lock")
    return found if owner is None else {**found, owner: _name_of(owner)}


def end_holders(place: Path) -> Mapping[int, str]:
    """End whoever is inside the root at ``place`` or has it locked; those who are still there after all."""
    deadline = time.monotonic() + ENDING
    while (left := holders(place)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                if pid > 0:
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    return left


def _inside(root: Path) -> Iterator[int]:
    """The processes whose root directory is this folder, however it is mounted for them."""
    try:
        wanted = root.stat(follow_symlinks=False)
    except OSError:
        return
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.path.samestat((process / "root").stat(), wanted):
                yield int(process.name)


def _lock_owner(lock: Path) -> int | None:
    """The process that has locked a file by fcntl(2), as mock locks its roots; None where none has."""
    layout = "hhqqi4x"
    asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with opened_regular(lock) as stream:
            kind, _, _, _, pid = struct.unpack(layout, fcntl.fcntl(stream, fcntl.F_GETLK, asked))
    except OSError:
        return None
    return None if kind == fcntl.F_UNLCK else max(int(pid), 0)


def _name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return "unknown"
