"""A sandbox's limits on made-up hosts, and the filter of its system calls."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backport.roots import limits as module
from backport.roots.limits import FILES, Bounds, fenced
from backport.roots.seccomp import without_user_namespaces

NEW_USER = 0x10000000


class Host:
    """A made-up cgroup file system; a group that is made gets the kernel's files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, monkeypatch
        self.files: tuple[str, ...] = ("pids.max", "memory.max", "cgroup.procs")
        make = Path.mkdir

        def mkdir(path: Path, *arguments: object, **options: object) -> None:
            make(path, *arguments, **options)  # type: ignore[arg-type]  # as they come
            if path.name.startswith("backport-"):
                for name in self.files:
                    (path / name).write_text("max\n")

        def rmdir(path: Path) -> None:
            self.removed.append(path.name)

        self.removed: list[str] = []
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "rmdir", rmdir)

    def has(self, mounts: str, mine: str) -> None:
        """What proc(5) says of mounts and of this process's groups."""
        read = Path.read_text
        said = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": mine}

        def read_text(path: Path, *arguments: object) -> str:
            return said.get(str(path)) or read(path)

        self._patch.setattr(Path, "read_text", read_text)

    def group(self, name: str, controllers: str) -> Path:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "cgroup.subtree_control").write_text(controllers)
        return path


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def test_a_group_is_made_where_its_controllers_are_enabled(host: Host) -> None:
    host.group(".", "cpu memory pids")
    host.group("user.slice", "memory pids")
    host.group("user.slice/session.scope", "")
    host.has(
        f"25 1 0:22 / {host.folder} rw - cgroup2 cgroup2 rw\n",
        "1:name=systemd:/\n0::/user.slice/session.scope\n",
    )
    with fenced(Bounds(processes=100, memory=50)) as fence:
        (group,) = fence.groups
        assert group.parent == host.folder / "user.slice"
        assert (group / "pids.max").read_text().startswith("100")
        assert (group / "memory.max").read_text() == str(50 * 1024**2)
        assert fence.words[:2] == ("sh", "-c")
        assert str(group) in fence.words
        assert not [word for word in fence.words if word.startswith(("--nproc", "--as"))]
        assert fence.reached() == ""
        (group / "pids.events").write_text("max 3\n")
        assert fence.reached() == "its limit of 100 processes (`processes`)"
        (group / "pids.events").write_text("max 0\n")
        (group / "memory.events").write_text("low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\n")
        assert fence.reached() == "its limit of 50 MiB of memory (`memory`)"
    assert host.removed == [group.name]


def test_the_older_hierarchies_are_used_each_by_itself(host: Host) -> None:
    for name in ("pids", "memory/mine"):
        (host.folder / name).mkdir(parents=True)
    host.files = ("pids.max", "memory.limit_in_bytes", "cgroup.procs")
    host.has(
        f"1 1 0:1 / {host.folder}/pids rw - cgroup cgroup rw,pids\n"
        f"2 1 0:2 / {host.folder}/memory rw shared:1 - cgroup cgroup rw,memory\n",
        "8:pids:/\n4:memory:/mine\n0::/\n",
    )
    with fenced(Bounds(memory=50)) as fence:
        assert [group.parent for group in fence.groups] == [host.folder / "pids", host.folder / "memory/mine"]
        assert (fence.groups[1] / "memory.limit_in_bytes").read_text() == str(50 * 1024**2)
        (fence.groups[1] / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
        assert "50 MiB" in fence.reached()


def not_enabled(host: Host) -> None:
    host.group(".", "")
    host.has(f"1 1 0:1 / {host.folder} rw - cgroup2 c rw\n", "0::/\n")


def no_such_files(host: Host) -> None:
    not_enabled(host)
    host.group(".", "pids memory")
    host.files = ()


def no_mount(host: Host) -> None:
    host.has("1 1 0:1 / / rw - ext4 /dev/vda rw\n", "0::/\n")


NOTHING: dict[str, Callable[[Host], object]] = {
    "no mount": no_mount,
    "not enabled": not_enabled,
    "no such files": no_such_files,
}


@pytest.mark.parametrize("lacking", NOTHING.values(), ids=NOTHING)
def test_without_groups_resources_are_limited(host: Host, lacking: Callable[[Host], object]) -> None:
    lacking(host)
    with fenced(Bounds(processes=100, memory=50, files=256)) as fence:
        assert fence.groups == ()
        assert fence.words == (
            "prlimit", "--nofile=256:256", "--nproc=100:100", f"--as={50 * 1024**2}:{50 * 1024**2}", "--"
        )  # fmt: skip
    with fenced(Bounds()) as fence:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        assert fence.words[1] == f"--nofile={min(FILES, hard)}:{min(FILES, hard)}"
        assert not [word for word in fence.words if word.startswith("--as")]


def test_what_a_killed_process_left_is_swept(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("backport-999999999-0", f"backport-{os.getpid()}-77"):
        (host.folder / name).mkdir()
    module._sweep(host.folder)
    assert host.removed == ["backport-999999999-0"]


@contextmanager
def interpreted(program: bytes) -> Iterator[Callable[..., int]]:
    """What the kernel makes of a filter: the verdict on a call (filter.rst, classic BPF)."""
    steps = list(struct.iter_unpack("=HBBI", program))

    def verdict(arch: int, number: int, *arguments: int) -> int:
        words = [*arguments, *[0] * (6 - len(arguments))]
        data = struct.pack("=IIQ6Q", number, arch, 0, *words)
        at, loaded = 0, 0
        while True:
            code, then, otherwise, value = steps[at]
            at += 1
            match code:
                case 0x20:
                    (loaded,) = struct.unpack_from("=I", data, value)
                case 0x54:
                    loaded &= value
                case 0x05:
                    at += value
                case 0x15:
                    at += then if loaded == value else otherwise
                case 0x45:
                    at += then if loaded & value else otherwise
                case 0x06:
                    return int(value)
                case _:
                    raise AssertionError(code)

    yield verdict


ALLOWED, FORBIDDEN, UNKNOWN = 0x7FFF0000, 0x00050001, 0x00050026
ABIS = [
    ("x86_64", 0xC000003E, 56, 272, 0),
    ("x86_64", 0x40000003, 120, 310, 0),
    ("aarch64", 0xC00000B7, 220, 97, 0),
    ("aarch64", 0x40000028, 120, 337, 0),
    ("ppc64le", 0xC0000015, 120, 282, 0),
    ("s390x", 0x80000016, 120, 303, 1),
]


@pytest.mark.parametrize(("machine", "arch", "clone", "unshare", "place"), ABIS)
def test_the_filter_forbids_user_namespaces_and_nothing_else(
    machine: str, arch: int, clone: int, unshare: int, place: int
) -> None:
    with interpreted(without_user_namespaces(machine)) as verdict:
        flags = [0] * place
        assert verdict(arch, clone, *flags, NEW_USER | 17) == FORBIDDEN
        assert verdict(arch, clone, *flags, 17) == ALLOWED
        assert verdict(arch, unshare, NEW_USER) == FORBIDDEN
        assert verdict(arch, unshare, 0x20000) == ALLOWED
        assert verdict(arch, unshare, NEW_USER | 0x20000 | 1 << 40) == FORBIDDEN
        assert verdict(arch, 435, 0, 0) == UNKNOWN
        assert verdict(arch, 1, NEW_USER) == ALLOWED
        assert verdict(0x12345678, clone, NEW_USER) == UNKNOWN
        if machine == "x86_64" and clone == 56:
            assert verdict(arch, clone | 0x40000000, NEW_USER) == FORBIDDEN
