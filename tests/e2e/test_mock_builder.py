"""mock by its command line: a recording stand-in everywhere, the real one where it is on PATH."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pickle
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from backport import run
from backport.artifacts import BuiltRpms, Rpm
from backport.builders import BuildRequest, choose_builder, mock, mockhost
from backport.builders.chroot import ChrootBuilder
from backport.builders.mock import MockBuilder
from backport.errors import (
    BackportError,
    BuildError,
    BuildRootError,
    BuildRootLocked,
    BuildTimeout,
    HostError,
)
from backport.roots.limits import NO_WISHES, Bounds
from backport.run import Command
from backport.site import Mock, Paths, Site
from backport.target import Target
from tests.e2e import hello, tiny

ROOT = Path(__file__).parents[2]
# What mock does as far as its caller sees: it notes how it was called, fills the result folder, and exits.
STAND_IN = """\
#!{python}
import json, os, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
words = sys.argv[1:]
with (here / "calls.jsonl").open("a") as calls:
    config = pathlib.Path(words[words.index("-r") + 1]).read_text() if "-r" in words else ""
    folder = pathlib.Path(words[words.index("--configdir") + 1]) if config else here / "none"
    files = {{path.name: path.read_text() for path in folder.glob("*")}}
    call = {{"argv": words, "environment": dict(os.environ), "config": config, "files": files}}
    calls.write(json.dumps(call) + "\\n")
if "--version" in words:
    print("6.7")
    sys.exit(0)
plan = json.loads((here / "plan.json").read_text())
root = pathlib.Path(plan["roots"]) / ("backport-f28-x86_64-" + words[words.index("--uniqueext") + 1])
if "--clean" in words:
    shutil.rmtree(root, ignore_errors=True)
    sys.exit(plan.get("clean", 0))
for option in ("--chroot", "--installdeps"):
    if option in words:
        sys.exit(plan.get(option, 0))
if plan.get("made", True):
    (root / "root").mkdir(parents=True, exist_ok=True)
    (root / "root/.initialized").touch()
step = "pack" if "--buildsrpm" in words else "rebuild"
results = pathlib.Path(words[words.index("--resultdir") + 1])
for name in ("build.log", "root.log", "state.log", "installed_pkgs.log"):
    (results / name).write_text(f"{{name}} of {{step}}\\n")
exit_code = plan.get(step, 0)
if exit_code:
    (results / "build.log").write_text(plan.get("build_log", ""))
    sys.exit(exit_code)
for path in map(pathlib.Path, plan["packages"]):
    if path.name.endswith(".src.rpm") or step == "rebuild":
        shutil.copy(path, results)
"""

# What userhelper(8) does for consolehelper where root is the caller: it keeps what console.apps/mock names.
WRAPPER = """\
#!/bin/sh
exec env -i PATH="$PATH" http_proxy="$http_proxy" https_proxy="$https_proxy" USERHELPER_UID=0 {program} "$@"
"""


@pytest.fixture
def cache() -> Iterator[Path]:
    """A cache folder that mock's user can enter; pytest's own folders are root's alone."""
    folder = Path(tempfile.mkdtemp(prefix="backport-mock-", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A stand-in for mock that is first on PATH, and what it leaves."""

    folder: Path
    built: BuiltRpms
    builder: MockBuilder
    workspace: Path

    def plan(self, packages: Sequence[Rpm] | None = None, **steps: Any) -> None:
        """What it is to leave and the exit codes of its steps."""
        rpms = (self.built.srpm, *self.built.rpms) if packages is None else packages
        roots = str(self.builder.settings.basedir)
        plan = {"packages": [str(rpm.path) for rpm in rpms], "roots": roots, **steps}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def build(self, *, candidates: Path | None = None, **options: Any) -> BuiltRpms:
        """Build the package that it leaves."""
        patched = hello.patched(self.folder / "hello", name="tiny", **options)
        source = self.built.patched.source
        newer = replace(source.rpm, nevra=replace(source.rpm.nevra, release="1.fc29"))
        patched = replace(patched, source=replace(source, rpm=newer))
        return self.builder.build(
            BuildRequest(patched=patched, candidates=candidates, workspace=self.workspace)
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """How it was called: words, environment, configuration."""
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]


def found_first_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{folder}:{run.BASE_ENVIRONMENT['PATH']}"
    monkeypatch.setattr(run, "BASE_ENVIRONMENT", {**run.BASE_ENVIRONMENT, "PATH": path})


@pytest.fixture
def stand_in(f28: Target, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "mock"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    found_first_in(folder, monkeypatch)
    group = grp.struct_group(("mock", "x", 65534, ["nobody"]))
    monkeypatch.setattr(grp, "getgrnam", lambda _name: group)
    builder = choose_builder(Site(paths=Paths(cache=cache), mock=Mock(basedir=tmp_path / "roots")), f28)
    assert isinstance(builder, MockBuilder)
    stand_in = StandIn(
        folder=folder,
        built=tiny.build(tmp_path / "tiny", subpackages=["tiny-doc"]),
        builder=builder,
        workspace=tmp_path / "workspace",
    )
    stand_in.plan()
    return stand_in


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_what_mock_leaves_is_taken_over(stand_in: StandIn) -> None:
    result = stand_in.build()
    assert result.builder == "mock 6.7"
    assert result.srpm.sha256 == stand_in.built.srpm.sha256
    assert {rpm.nevra: rpm.sha256 for rpm in result.rpms} == {
        rpm.nevra: rpm.sha256 for rpm in stand_in.built.rpms
    }
    assert all(rpm.path.parent == stand_in.workspace / "rpms" for rpm in (result.srpm, *result.rpms))


def test_mock_is_told_all_by_its_command_line(stand_in: StandIn) -> None:
    stand_in.build(
        with_=("loud",), without=("quiet",), macros={"greeting": "good day"}, check=False, timeout=77
    )
    pack, rebuild, version, clean = [call["argv"] for call in stand_in.calls]
    assert len({after(words, "--uniqueext") for words in (pack, rebuild, clean)}) == 1
    assert version == ["--version"]
    for words in (pack, rebuild):
        assert "--with loud --without quiet --define greeting good day" in " ".join(words)
    assert "--buildsrpm" in pack
    assert after(pack, "--spec").endswith("/tiny.spec")
    assert "--no-cleanup-after" in pack
    assert {"--no-clean", "--nocheck"} <= set(rebuild)
    assert after(rebuild, "--rpmbuild_timeout") == "77"
    assert Path(after(rebuild, "--rebuild")).name == stand_in.built.srpm.path.name
    assert after(pack, "--resultdir") != after(rebuild, "--resultdir")
    assert "--clean" in clean


def test_mock_gets_an_environment_from_nothing(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller's")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    stand_in.build()
    environment = stand_in.calls[0]["environment"]
    assert environment["SUDO_UID"] == str(pwd.getpwnam("nobody").pw_uid)
    assert environment["https_proxy"] == "http://proxy.example:3128"
    assert "A_SECRET" not in environment


def test_fedoras_wrapper_does_not_make_root_the_builder(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, wrapped = stand_in.folder / "wrapped", stand_in.folder / "mock"
    folder.mkdir()
    (folder / "consolehelper").write_text(WRAPPER.format(program=wrapped))
    (folder / "consolehelper").chmod(0o755)
    (folder / "mock").symlink_to("consolehelper")
    found_first_in(folder, monkeypatch)
    monkeypatch.setenv("all_proxy", "http://proxy.example:3128")
    monkeypatch.setattr(mockhost, "_WRAPPED", wrapped)
    stand_in.build()
    for call in stand_in.calls:
        assert "USERHELPER_UID" not in call["environment"]
        assert call["environment"]["SUDO_UID"] == str(pwd.getpwnam("nobody").pw_uid)
        assert call["environment"]["all_proxy"] == "http://proxy.example:3128"


def test_candidates_and_checked_keys_are_configured(stand_in: StandIn, f28: Target, tmp_path: Path) -> None:
    stand_in.build(candidates=tmp_path)
    config = stand_in.calls[0]["config"]
    assert f"baseurl={tmp_path.resolve().as_uri()}" in config
    assert "['rpmbuild_networking'] = False" in config
    fingerprint = f28.keys[f28.repositories[0].keys[0]].fingerprint
    assert f"/keys/{fingerprint}.asc" in config


def test_nothing_of_the_hosts_own_configuration_is_in_force(stand_in: StandIn) -> None:
    stand_in.build()
    for call in stand_in.calls:
        if "--version" not in call["argv"]:
            assert call["files"]["site-defaults.cfg"] == ""
            assert "[formatter_unadorned]" in call["files"]["logging.ini"]
            assert call["files"]["f28-x86_64.cfg"] == call["config"]


def test_the_files_of_mocks_user_are_hidden_from_it(tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    home = pwd.struct_passwd((*user[:5], str(tmp_path), user.pw_shell))
    (tmp_path / ".config").mkdir()
    file = tmp_path / ".config/mock.cfg"
    file.write_text("config_opts['macros']['%vendor'] = 'elsewhere'")
    with mockhost.ended_together(home, NO_WISHES) as fence:
        shown = run.run(Command([*fence.words, "cat", file], timeout=60))
    assert shown.output == b""
    assert "elsewhere" in file.read_text()


def test_a_build_is_held_to_its_limits(stand_in: StandIn) -> None:
    stand_in.build(processes=300, files=1000)
    arguments: dict[str, Any] = defaultdict(dict, nspawn_args=[])
    exec(compile(stand_in.calls[0]["config"], "mock.cfg", "exec"), {"config_opts": arguments})
    assert {"--rlimit=RLIMIT_NPROC=300", "--rlimit=RLIMIT_NOFILE=1000"} <= {*arguments["nspawn_args"]}
    caller = mockhost.find_caller()
    with mockhost.ended_together(caller, Bounds(processes=20, files=1000)) as fence:
        # As mock's user: where this host makes no control groups, root is bounded by nothing.
        forks = "ulimit -n; for n in $(seq 100); do sleep 5 & done; wait"
        user = ("setpriv", f"--reuid={caller.pw_uid}", f"--regid={caller.pw_gid}", "--clear-groups")
        done = run.run(Command([*fence.words, *user, "bash", "-c", forks], timeout=60, accept=None))
        assert done.text.split() == ["1000"]
        assert done.exit_code
        assert not fence.groups or "20 processes" in fence.reached()


def test_the_logs_of_both_steps_are_kept(stand_in: StandIn) -> None:
    result = stand_in.build()
    assert [log.name for log in result.logs] == [
        *("build.log", "root.log", "installed_pkgs.log", "state.log", "hw_info.log", "buildroot.json")
    ]
    assert (stand_in.workspace / "root.log").read_text() == "root.log of pack\nroot.log of rebuild\n"
    assert list((stand_in.builder.cache / "mock").glob("live-*")) == []


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ({"rebuild": 10, "build_log": "+ make\n"}, BuildError),
        ({"rebuild": 1, "build_log": "+ make\n"}, BuildError),
        ({"rebuild": 1, "build_log": "Mock Version: 6.7\n", "made": False}, BuildRootError),
        ({"rebuild": 10, "--installdeps": 30}, BuildRootError),
        ({"rebuild": 1, "--chroot": 1}, HostError),
        ({"pack": 40, "--chroot": 1}, HostError),
        ({"rebuild": 11}, BuildTimeout),
        ({"pack": 30}, BuildRootError),
        ({"pack": 20}, BuildRootError),
        ({"pack": 60}, BuildRootLocked),
        ({"pack": 90}, BuildRootError),
    ],
)
def test_exit_codes_are_told_apart_and_the_root_is_removed(
    stand_in: StandIn, steps: dict[str, Any], kind: type[BackportError]
) -> None:
    stand_in.plan(**steps)
    with pytest.raises(kind) as caught:
        stand_in.build()
    assert type(caught.value) is kind
    assert caught.value.message.startswith("tiny: ")
    assert "--clean" in stand_in.calls[-1]["argv"]
    kept = {path.name for path in stand_in.workspace.iterdir()}
    logs = {"build.log", "root.log", "installed_pkgs.log", "state.log", "hw_info.log", "mock.log"}
    assert kept == {*logs, "by-hand"}
    assert list((stand_in.builder.cache / "mock").glob("live-*")) == []


def test_a_failed_build_can_be_done_again_by_the_command_that_is_told(
    stand_in: StandIn, tmp_path: Path
) -> None:
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates/other.rpm").touch()
    stand_in.plan(rebuild=10, build_log="+ make\n")
    with pytest.raises(BuildError) as caught:
        stand_in.build(candidates=tmp_path / "candidates", with_=("loud",), check=False)
    shutil.rmtree(tmp_path / "candidates")
    stand_in.plan()
    command = caught.value.command
    assert command is not None
    results = tmp_path / "results"
    results.mkdir()
    extension = ["--uniqueext", "by-hand", "--resultdir", str(results)]
    subprocess.run([*command, *extension], check=True, env={"PATH": os.environ["PATH"]}, timeout=60)
    call = stand_in.calls[-1]
    assert call["environment"]["SUDO_UID"] == str(pwd.getpwnam("nobody").pw_uid)
    assert "--with loud --nocheck" in " ".join(call["argv"])
    assert Path(after(call["argv"], "--rebuild")).read_bytes() == stand_in.built.srpm.path.read_bytes()
    kept = stand_in.workspace / "by-hand"
    assert f"baseurl={(kept / 'candidates').as_uri()}" in call["config"]
    assert (kept / "candidates/other.rpm").exists()
    for key in (line for line in call["config"].splitlines() if line.startswith("gpgkey=")):
        assert key.startswith(f"gpgkey={kept.as_uri()}/keys/")


def test_the_root_of_a_failed_build_can_be_kept_until_the_next(stand_in: StandIn) -> None:
    stand_in.plan(rebuild=10, build_log="+ make\n")
    keeping = replace(stand_in, builder=replace(stand_in.builder, keep_root=True))
    with pytest.raises(BuildError) as caught:
        keeping.build()
    assert "--clean" not in stand_in.calls[-1]["argv"]
    [root] = stand_in.builder.settings.basedir.iterdir()
    command = shlex.split((caught.value.hint or "").partition("until the next build: ")[2])
    assert root.name == f"backport-f28-x86_64-{after(command, '--uniqueext')}"
    assert after(command, "-r") == after(list(caught.value.command or ()), "-r")
    assert command[-1] == "--shell"
    shutil.rmtree(stand_in.folder / "hello")
    stand_in.plan()
    keeping.build()
    assert list(stand_in.builder.settings.basedir.iterdir()) == []


def test_a_source_package_that_cannot_be_packed_is_kept_as_spec_and_sources(stand_in: StandIn) -> None:
    stand_in.plan(pack=10, build_log="error: line 1\n")
    with pytest.raises(BuildError) as caught:
        stand_in.build()
    command = list(caught.value.command or ())
    assert Path(after(command, "--spec")).is_relative_to(stand_in.workspace)
    assert sorted(path.name for path in Path(after(command, "--sources")).iterdir()) == [
        "greet.sh",
        "hello.c",
    ]


def test_roots_of_killed_builds_are_removed(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.build()
    own = after(stand_in.calls[0]["argv"], "--uniqueext").split("-live-")[0]
    roots = tmp_path / "roots"
    for name in (f"backport-f28-x86_64-{own}-live-dead", "backport-f28-x86_64-other-live-busy", "fedora-28"):
        (roots / name).mkdir(parents=True)
    shutil.rmtree(stand_in.folder / "hello")
    stand_in.build()
    cleaned = [after(call["argv"], "--uniqueext") for call in stand_in.calls if "--clean" in call["argv"]]
    assert cleaned[1] == f"{own}-live-dead"
    assert len(cleaned) == 3


def test_what_a_killed_build_has_left_is_ended_before_its_folder_is_removed(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.build()
    own = after(stand_in.calls[0]["argv"], "--uniqueext").split("-live-")[0]
    left = tmp_path / "roots" / f"backport-f28-x86_64-{own}-live-dead"
    left.mkdir(parents=True)
    shutil.rmtree(stand_in.folder / "hello")
    folder = stand_in.builder.cache / "mock/live-dead"
    folder.mkdir()
    with holding(left / "buildroot.lock", here=folder) as process:
        stand_in.build()
        assert process.wait(10) == -signal.SIGKILL
    assert not folder.exists()


def test_a_root_that_is_still_used_is_never_passed_over(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.plan(clean=60)
    with pytest.raises(BuildRootLocked, match="finds it locked"):
        stand_in.build()
    shutil.rmtree(stand_in.folder / "hello")
    monkeypatch.setattr(mock, "end_holders", lambda _place: {4242: "cc1"})
    stand_in.plan(rebuild=10, build_log="+ make\n")
    with pytest.raises(BuildError, match="rpmbuild failed") as caught:
        stand_in.build()
    assert "4242 (cc1)" in (caught.value.hint or "")


@contextlib.contextmanager
def holding(lock: Path, *, here: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has locked a file as mock locks its roots, while the folder of its build is there."""
    code = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'a+'); fcntl.lockf(lock, fcntl.LOCK_SH);"
        "print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, lock], cwd=here, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_no_packages_is_a_failure_whatever_mock_says(stand_in: StandIn) -> None:
    stand_in.plan(packages=[stand_in.built.srpm])
    with pytest.raises(BuildError, match="no binary package"):
        stand_in.build()


real_mock = pytest.mark.skipif(
    run.find_program("mock") is None,
    reason="mock is not on PATH: no registry carries it for this distribution",
)


@real_mock
def test_mock_and_the_chroot_give_the_same_packages(
    f28: Target, cache: Path, root_cache: Path, tmp_path: Path
) -> None:
    patched = hello.patched(tmp_path / "hello", macros={"greeting": "good day"}, with_=("loud",))
    by_mock = MockBuilder(target=f28, cache=cache).build(
        BuildRequest(patched=patched, workspace=tmp_path / "mock")
    )
    by_chroot = ChrootBuilder(target=f28, cache=root_cache).build(
        BuildRequest(patched=patched, workspace=tmp_path / "chroot")
    )
    assert hello.differences(by_mock, by_chroot) == []
    assert (tmp_path / "mock/installed_pkgs.log").exists()


# What builds in a process of its own: it is to be killed.
BUILD = """\
import pickle, sys, pathlib
builder, request = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
builder.build(request)
"""


def processes_of(marker: str) -> list[str]:
    found = subprocess.run(["pgrep", "-f", marker], check=False, capture_output=True, text=True)
    return found.stdout.split()


def until(condition: Callable[[], object], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(condition())


@real_mock
def test_a_killed_build_takes_mock_and_its_container_along(f28: Target, cache: Path, tmp_path: Path) -> None:
    marker = f"1000.{uuid.uuid4().int}"
    builder = MockBuilder(target=f28, cache=cache)
    sleeping = hello.patched(tmp_path / "hello", checking=f"sleep {marker}")
    request = BuildRequest(patched=sleeping, workspace=tmp_path / "killed")
    (tmp_path / "build").write_bytes(pickle.dumps((builder, request)))
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", BUILD, tmp_path / "build"], cwd=ROOT, stdout=output, stderr=output
        )
        assert until(lambda: processes_of(f"^sleep {marker}"), seconds=120), (tmp_path / "output").read_text()
        process.kill()
        process.wait()
    assert until(lambda: not processes_of(f"^sleep {marker}"), seconds=10)
    assert until(lambda: not processes_of(f"mock.*{cache.name}"), seconds=10)
    roots = mock._Roots(target=f28, settings=builder.settings, folders=cache / "mock")
    assert list(roots.abandoned()) != []
    builder.build(
        BuildRequest(patched=hello.patched(tmp_path / "again"), workspace=tmp_path / "again-workspace")
    )
    assert list(roots.abandoned()) == []
    assert "locked" not in (tmp_path / "again-workspace/mock.log").read_text()


@real_mock
def test_an_interrupted_mock_leaves_no_process_and_no_root(f28: Target, cache: Path, tmp_path: Path) -> None:
    marker = f"1000.{uuid.uuid4().int}"

    def is_sleeping() -> bool:
        return processes_of(f"^sleep {marker}") != []

    def interrupt() -> None:
        while not is_sleeping() and waiting.is_set():
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Event()
    waiting.set()
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        sleeping = hello.patched(tmp_path / "hello", checking=f"sleep {marker}")
        with pytest.raises(KeyboardInterrupt):
            MockBuilder(target=f28, cache=cache).build(
                BuildRequest(patched=sleeping, workspace=tmp_path / "workspace")
            )
    finally:
        waiting.clear()
        thread.join()
    assert not is_sleeping()
    assert list((cache / "mock").glob("live-*")) == []
    assert "/lib/mock/backport-" not in Path("/proc/self/mounts").read_text()


@real_mock
def test_mock_tells_a_failed_build_from_a_late_one(f28: Target, cache: Path, tmp_path: Path) -> None:
    builder = MockBuilder(target=f28, cache=cache)
    with pytest.raises(BuildError, match="hello: rpmbuild failed") as caught:
        builder.build(
            BuildRequest(patched=hello.patched(tmp_path / "a", checking="false"), workspace=cache / "1")
        )
    assert type(caught.value) is BuildError
    again = [*(caught.value.command or ()), "--resultdir", str(cache / "again"), "--uniqueext", "again"]
    (cache / "again").mkdir()
    shutil.chown(cache / "again", mockhost.find_caller().pw_uid)
    failed = subprocess.run(again, check=False, capture_output=True, timeout=300)
    assert failed.returncode in (1, 10)
    assert "+ false" in (cache / "again/build.log").read_text()
    end = [word for word in again if word not in ("--rebuild", *again[again.index("--rebuild") + 1 :][:1])]
    subprocess.run([*end, "--clean"], check=True, capture_output=True, timeout=300)
    late = hello.patched(tmp_path / "b", checking="sleep 1000", timeout=20)
    with pytest.raises(BuildTimeout):
        builder.build(BuildRequest(patched=late, workspace=tmp_path / "2"))
    lacking = hello.patched(tmp_path / "c", build_requires="BuildRequires: nowhere-devel")
    with pytest.raises(BuildRootError, match="dnf could not install"):
        builder.build(BuildRequest(patched=lacking, workspace=tmp_path / "3"))
