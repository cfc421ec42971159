"""Clean roots: made whole or not at all, shut off from the host, gone without a trace."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from backport.errors import BuildRootError, DeadlineError, ToolError
from backport.repodata import write_repodata
from backport.roots.limits import Bounds
from backport.roots.root import BUILDER_UID, ExtraRepository, Root, clean_root
from backport.run import Command
from backport.target import Target
from tests.e2e import tiny

TIMEOUT = 60.0
CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shared(f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root for tests that change nothing in it."""
    with clean_root(f28, cache=root_cache, workspace=tmp_path_factory.mktemp("shared")) as root:
        yield root


@pytest.fixture
def marker() -> str:
    """A time to sleep by which one test's processes are known from all others."""
    return f"1000.{uuid.uuid4().int}"


def is_running(pattern: str) -> bool:
    return subprocess.run(["pgrep", "-f", pattern], check=False, capture_output=True).returncode == 0


def inside(root: Root, script: str, user: Literal["builder", "root"] = "builder") -> str:
    """What a shell script prints inside the root."""
    return root.run(Command(["sh", "-euc", script], timeout=TIMEOUT), user=user).text.strip()


def test_a_root_holds_what_the_target_says_and_verifies(shared: Root) -> None:
    names = {nevra.name for nevra in shared.installed()}
    assert {"bash", "gcc", "rpm-build", "redhat-rpm-config"} <= names
    assert "gpg-pubkey" not in names
    verified = shared.run(Command(["rpm", "-Va", "--nomtime"], timeout=TIMEOUT, accept=None), user="root")
    assert verified.text == ""


def test_files_have_owners(shared: Root) -> None:
    owner = shared.owner_of("/bin/bash")
    assert owner is not None
    assert owner.name == "bash"
    assert shared.owner_of("/usr/bin/sh") is not None
    assert shared.owner_of("/nowhere") is None


def test_queries_are_answered_by_the_hosts_rpm(shared: Root) -> None:
    lines = shared.query("%{name} %{arch}")
    assert "bash x86_64" in lines
    assert len(lines) == len(shared.installed())


def test_the_builder_has_no_privileges_and_no_network(
    shared: Root, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller's")
    assert inside(shared, "id -u; id -g") == f"{BUILDER_UID}\n{BUILDER_UID}"
    status = inside(shared, "grep -E '^(CapEff|CapPrm|NoNewPrivs|Groups)' /proc/self/status").split()
    assert status == ["Groups:", "CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1"]
    assert "A_SECRET" not in inside(shared, "env")
    assert inside(shared, "uname -n") == "localhost"
    assert inside(shared, "grep -c : /proc/net/dev") == "1"
    assert inside(shared, f"test ! -e {tmp_path} && echo hidden") == "hidden"
    with pytest.raises(ToolError):
        inside(shared, "touch /etc/evil")


def test_root_inside_cannot_get_out(shared: Root) -> None:
    assert inside(shared, "id -u", user="root") == "0"
    for attempt in ("mount -t tmpfs none /mnt", "mknod /tmp/disk b 8 0", "echo 1 > /proc/sys/kernel/sysrq"):
        with pytest.raises(ToolError):
            inside(shared, attempt, user="root")


def test_no_user_namespace_can_be_made_inside(shared: Root) -> None:
    # clone3 is left out: what the C library takes instead is what is tried.
    new_user = 0x10000000
    tries = {
        "unshare": f"syscall(272, {new_user})",
        "clone": f"syscall(56, {new_user} | 17, 0, 0, 0, 0)",
    }
    for user in ("builder", "root"):
        with pytest.raises(ToolError):
            inside(shared, "unshare --user true", user=user)
        for call in tries.values():
            assert inside(shared, f"perl -e '$r = {call}; print \"$r $!\"'", user=user).startswith("-1 ")
        assert inside(shared, "perl -e 'print syscall(435, 0, 0), \" \", $! + 0'", user=user) == "-1 38"
        assert inside(shared, "(true | cat) && echo works", user=user) == "works"


def test_processes_memory_and_files_are_limited(shared: Root) -> None:
    forking = "for (1..500) { my $pid = fork; die unless defined $pid; sleep 60 unless $pid }"
    limits = Bounds(processes=64, memory=128, files=300)
    for user in ("builder", "root"):
        bombed = shared.run(
            Command(["perl", "-e", forking], timeout=TIMEOUT, accept=None), limits=limits, user=user
        )
        assert bombed.exit_code != 0
        assert bombed.reached == "its limit of 64 processes (`processes`)"
        hungry = ["perl", "-e", "$x = 'x' x (1 << 29); print length $x"]
        ended = shared.run(Command(hungry, timeout=TIMEOUT, accept=None), limits=limits, user=user)
        assert ended.exit_code != 0
        assert ended.reached == "its limit of 128 MiB of memory (`memory`)"
        asking = Command(["sh", "-c", "ulimit -Sn; ulimit -Hn"], timeout=TIMEOUT)
        assert shared.run(asking, limits=limits, user=user).text == "300\n300\n"
    assert not list(Path("/sys/fs/cgroup").rglob(f"backport-{os.getpid()}-*"))


def test_what_a_program_leaves_behind_is_ended(shared: Root, marker: str) -> None:
    inside(shared, f"setsid sleep {marker} > /dev/null 2>&1 &")
    assert not is_running(marker)


def test_a_program_past_its_deadline_is_ended(shared: Root, marker: str) -> None:
    with pytest.raises(DeadlineError, match="its deadline"):
        shared.run(Command(["sh", "-c", f"sleep {marker}; true"], timeout=1))
    assert not is_running(marker)


def test_a_daemon_can_be_met_in_its_own_network(shared: Root, tmp_path: Path) -> None:
    serving = textwrap.dedent("""\
        use Socket;
        socket(my $server, PF_INET, SOCK_STREAM, 0) or die;
        bind($server, sockaddr_in(25, INADDR_LOOPBACK)) or die "bind: $!";
        listen($server, 5) or die;
        $| = 1; print "ready\\n";
        while (accept(my $client, $server)) { print $client "220 hello\\n"; close $client }
    """)
    asking = textwrap.dedent("""\
        use Socket;
        socket(my $client, PF_INET, SOCK_STREAM, 0) or die;
        connect($client, sockaddr_in(25, INADDR_LOOPBACK)) or die "connect: $!";
        print scalar <$client>;
    """)
    log = tmp_path / "daemon.log"
    with shared.start(Command(["perl", "-e", serving], log=log, timeout=10)) as daemon:
        deadline = time.monotonic() + TIMEOUT
        while "ready" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        answer = shared.run(Command(["perl", "-e", asking], timeout=TIMEOUT), beside=daemon)
        assert answer.text == "220 hello\n"
        assert "perl" in Path(f"/proc/{daemon.pid}/maps").read_text()
        assert daemon.exit_code is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 25), timeout=1)
    assert not Path(f"/proc/{daemon.pid}").exists()


def test_a_daemon_that_ends_is_seen(shared: Root, tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with shared.start(Command(["sh", "-c", "sleep 1; exit 3"], log=log, timeout=10)) as daemon:
        deadline = time.monotonic() + TIMEOUT
        while daemon.exit_code is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert daemon.exit_code == 3


def test_roots_share_one_base_and_download_nothing_twice(
    f28: Target, root_cache: Path, tmp_path: Path, shared: Root
) -> None:
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        assert "Installing" not in (tmp_path / "root.log").read_text()
        assert root.installed() == shared.installed()
        inside(root, "echo mine > /etc/mine; echo mine > /usr/mine", user="root")
        assert not (shared.path / "etc/mine").exists()
        assert not (shared.path / "usr/mine").exists()
        kept = root.path
    assert not kept.exists()


def test_a_root_with_more_packages_begins_as_a_copy_of_the_base(
    f28: Target, root_cache: Path, tmp_path: Path, shared: Root
) -> None:
    with clean_root(f28, packages=["lksctp-tools-devel"], cache=root_cache, workspace=tmp_path) as root:
        more = set(root.installed()) - set(shared.installed())
        assert {one.name for one in more} == {"lksctp-tools", "lksctp-tools-devel"}
        assert set(shared.installed()) < set(root.installed())
    assert "Installing       : lksctp-tools-devel" in (tmp_path / "root.log").read_text()
    assert "Installing       : bash" not in (tmp_path / "root.log").read_text()


def test_a_root_shows_no_host_user_its_set_user_id_programs(root_cache: Path, shared: Root) -> None:
    assert shared.path.is_relative_to(root_cache / "roots")
    assert (root_cache / "roots").stat().st_mode & 0o077 == 0


def test_a_base_root_that_was_changed_is_made_anew(
    f28: Target, root_cache: Path, tmp_path: Path, shared: Root
) -> None:
    for base in (root_cache / "roots").glob("base-*"):
        passwd = base / "root" / "etc" / "passwd"
        state = passwd.stat()
        passwd.write_bytes(passwd.read_bytes().replace(b"nologin", b"nologiN"))
        os.utime(passwd, ns=(state.st_atime_ns, state.st_mtime_ns))
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        assert root.locate("/etc/passwd").read_bytes() == shared.locate("/etc/passwd").read_bytes()
    assert "is not as it was sealed" in (tmp_path / "root.log").read_text()


def test_metadata_that_was_changed_is_read_anew(f28: Target, root_cache: Path, tmp_path: Path) -> None:
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        root.install(["lksctp-tools"])
        known = list((root_cache / "dnf" / "f28-x86_64").rglob("*.solv"))
        assert known
        for path in known:
            path.write_bytes(b"planted")
        root.install(["lksctp-tools-devel"])
        assert {one.name for one in root.installed()} > {"lksctp-tools", "lksctp-tools-devel"}
        assert "dnf/f28-x86_64: is not as it was sealed" in (tmp_path / "root.log").read_text()
        assert not [path for path in known if path.exists() and path.read_bytes() == b"planted"]


def test_packages_are_installed_updated_and_put_back(f28: Target, root_cache: Path, tmp_path: Path) -> None:
    repositories = []
    for version in ("1", "2"):
        built = tiny.build(tmp_path / version, version=version, release="1.fc28")
        folder = built.rpms[0].path.parent
        write_repodata(folder, compression="gz")
        repositories.append(ExtraRepository.of_folder(f"tiny{version}", folder))
    old, new = repositories
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:

        def installed() -> list[str]:
            return [each.version for each in root.installed() if each.name == "tiny"]

        root.install(["tiny"], extra=[old])
        assert installed() == ["1"]
        root.update(extra=[new])
        assert installed() == ["2"]
        root.downgrade(["tiny"], extra=[old])
        assert installed() == ["1"]
        assert root.dnf.without_provider(["tiny = 1", "tiny > 8"], extra=repositories) == ("tiny > 8",)


def test_a_repository_that_has_just_changed_is_read_again(
    f28: Target, root_cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "repository"
    repository = ExtraRepository.of_folder("changing", folder)
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        for version in ("1", "2"):
            built = tiny.build(tmp_path / version, version=version, release="1.fc28")
            folder.mkdir(exist_ok=True)
            shutil.copy(built.rpms[0].path, folder)
            write_repodata(folder, compression="gz")
            # dnf counts whole seconds: what it has is never too old where no time passes.
            for known in (root_cache / "dnf").rglob("*/repodata/*"):
                os.utime(known, (time.time() + 3600,) * 2)
            root.install([f"tiny = {version}"], extra=[repository])
            assert [one.version for one in root.installed() if one.name == "tiny"] == [version]


def test_unsigned_packages_are_refused_where_keys_are_named(
    f28: Target, root_cache: Path, tmp_path: Path
) -> None:
    built = tiny.build(tmp_path / "tiny", release="1.fc28")
    folder = built.rpms[0].path.parent
    write_repodata(folder, compression="gz")
    repository = ExtraRepository.of_folder("tiny", folder, keys=tuple(f28.keys.values())[:1])
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        with pytest.raises(ToolError) as caught:
            root.install(["tiny"], extra=[repository])
        assert "not signed" in (tmp_path / "root.log").read_text()
        assert caught.value.log == tmp_path / "root.log"
    repository = replace(repository, keys=(), repo_gpgcheck=True)
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root, pytest.raises(ToolError):
        root.install(["tiny"], extra=[repository])


SCRIPTED = """\
Name: scripted
Version: 1
Release: 1
Summary: A package with a scriptlet that tries what it must not
License: MIT
BuildArch: noarch
%description
It tells what its scriptlet could do.
%post -p /bin/bash
"""
NOSY = """\
(echo > /dev/tcp/127.0.0.1/PORT) 2>/dev/null && echo network >> /could
mount -t tmpfs none /mnt 2>/dev/null && echo mount >> /could
echo nothing > /dev/null
test -c /dev/null || echo "no devices" >> /could
ls -d /proc/[0-9]* | wc -l > /processes
setsid sleep MARKER > /dev/null 2>&1 &
"""
POISON = """\
for file in FILES; do
    real=$(readlink -f $file)
    touch -r $real /tmp/time
    printf X | dd of=$real bs=1 conv=notrunc 2>/dev/null
    touch -r /tmp/time $real
done
"""


def scripted(folder: Path, scriptlet: str) -> ExtraRepository:
    """A repository with the package ``scripted``, whose %post is the given shell script."""
    spec, repository = folder / "scripted.spec", folder / "repository"
    folder.mkdir(parents=True, exist_ok=True)
    spec.write_text(SCRIPTED + scriptlet + "\n%files\n")
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/top", "--define",
         f"_rpmdir {repository}", spec],
        check=True, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )  # fmt: skip
    write_repodata(repository, compression="gz")
    return ExtraRepository.of_folder("scripted", repository)


def test_scriptlets_reach_nothing_but_the_root(
    f28: Target, root_cache: Path, tmp_path: Path, marker: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        extra = [scripted(tmp_path, NOSY.replace("PORT", port).replace("MARKER", marker))]
        with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
            root.install(["scripted"], extra=extra)
            assert not root.locate("/could").exists()
            assert int(root.locate("/processes").read_text()) < 20
    assert not is_running(marker)


def test_what_a_scriptlet_writes_in_place_is_in_no_later_root(
    f28: Target, root_cache: Path, tmp_path: Path, shared: Root
) -> None:
    files = ["/usr/include/stdio.h", "/etc/passwd", "/usr/bin/gcc"]
    before = {file: shared.locate(file).read_bytes() for file in files}
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        extra = [scripted(tmp_path, POISON.replace("FILES", " ".join(files)))]
        root.install(["scripted"], extra=extra)
        assert all(root.locate(file).read_bytes() != before[file] for file in files)
        assert root.locate(files[0]).stat().st_mtime_ns == shared.locate(files[0]).stat().st_mtime_ns
    with clean_root(f28, cache=root_cache, workspace=tmp_path / "next") as root:
        assert {file: root.locate(file).read_bytes() for file in files} == before
    assert "sealed" not in (tmp_path / "next" / "root.log").read_text()


def test_what_cannot_be_installed_is_an_error_with_its_log(
    f28: Target, root_cache: Path, tmp_path: Path
) -> None:
    impossible = f28.model_copy(update={"buildroot": (*f28.buildroot, "nowhere")})
    with (
        pytest.raises(BuildRootError) as caught,
        clean_root(impossible, cache=root_cache, workspace=tmp_path),
    ):
        pytest.fail("a root was made")
    assert caught.value.log == tmp_path / "root.log"
    assert caught.value.command is not None
    assert caught.value.command[0] == "dnf"


def test_a_killed_process_leaves_no_process_no_mount_and_no_half_root(
    f28: Target, tmp_path: Path, marker: str
) -> None:
    cache = tmp_path / "cache"
    script = textwrap.dedent(f"""\
        import sys
        from pathlib import Path
        from backport.roots.root import clean_root
        from backport.run import Command
        from backport.target import Target
        target = Target.model_validate_json(sys.stdin.read())
        with clean_root(target, cache=Path({str(cache)!r}), workspace=Path({str(tmp_path)!r})) as root:
            root.run(Command(["sh", "-c", "sleep {marker}; true"], timeout=1000))
    """)

    def wait_for(pattern: str, *, gone: bool = False) -> None:
        deadline = time.monotonic() + 120
        while is_running(pattern) == gone:
            assert time.monotonic() < deadline, f"{pattern}: nothing happened"
            time.sleep(0.05)

    for pattern in (f"{cache}.* dnf ", f"{cache}.*sleep {marker}"):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, cwd=CHECKOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(f28.model_dump_json().encode())
        process.stdin.close()
        wait_for(pattern)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        wait_for(str(cache), gone=True)
        assert not is_running(marker)
        assert str(cache) not in Path("/proc/self/mounts").read_text()
    with clean_root(f28, cache=cache, workspace=tmp_path) as root:
        assert list((cache / "roots").glob("live-*")) == [root.path.parent]
        assert root.owner_of("/usr/bin/gcc") is not None
