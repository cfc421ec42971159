"""mock's configuration, its user, and what its exit codes mean; mock itself is not needed."""

from __future__ import annotations

import configparser
import contextlib
import grp
import os
import pwd
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backport import run
from backport.builders import mockhost
from backport.builders.common import BuildRequest
from backport.builders.mock import MockBuilder, _meaning
from backport.builders.mockconfig import render_config
from backport.builders.mockhost import find_caller, holders, require_way, sudo_environment
from backport.errors import (
    BackportError,
    BuildError,
    BuildRootError,
    BuildRootLocked,
    BuildTimeout,
    HostError,
    Interrupted,
)
from backport.roots.dnf import ExtraRepository, own_repositories
from backport.run import Completed
from backport.settings import Key
from backport.site import Mock
from backport.target import load_target
from backport.trust import SHA1_POLICY, SHA1_POLICY_VARIABLE

CONFIGS = Path(__file__).parents[2] / "mock-configs"
TARGET = load_target(CONFIGS, "f28")


def read(text: str) -> tuple[dict[str, Any], configparser.ConfigParser]:
    """The configuration as mock reads it: a Python file that fills ``config_opts``."""
    options: dict[str, Any] = defaultdict(dict)
    options["nspawn_args"] = ["--capability=cap_ipc_lock"]
    exec(compile(text, "mock.cfg", "exec"), {"config_opts": options})
    repositories = configparser.ConfigParser(interpolation=None)
    repositories.read_string(options["dnf.conf"])
    return options, repositories


def test_the_committed_configuration_is_the_targets() -> None:
    assert (CONFIGS / "f28-x86_64.cfg").read_text() == render_config(TARGET), "run `make render`"


def test_the_configuration_says_what_the_target_says() -> None:
    options, repositories = read(render_config(TARGET))
    assert options["root"] == "backport-f28-x86_64"
    assert (options["releasever"], options["target_arch"], options["dist"]) == ("28", "x86_64", "fc28")
    assert options["chroot_setup_cmd"].split() == ["install", *TARGET.buildroot]
    assert options["rpmbuild_networking"] is False
    assert options["isolation"] == "nspawn"
    assert options["use_bootstrap"] is False
    assert options["macros"]["%source_date_epoch_from_changelog"] == "1"
    for repository in TARGET.repositories:
        section = repositories[repository.id]
        assert section["baseurl"] == repository.baseurl
        assert section["gpgcheck"] == "1"
        key = TARGET.keys[repository.keys[0]].file
        assert section["gpgkey"] == key.as_uri()


def test_what_a_run_adds_for_old_keys_is_told_to_those_who_use_it_by_hand(tmp_path: Path) -> None:
    by_hand = render_config(TARGET)
    assert f"config_opts['environment']['{SHA1_POLICY_VARIABLE}'] = '/path/of/the/file'" in by_hand
    lines = [line.removeprefix("#").strip() for line in by_hand.splitlines()]
    assert [line for line in SHA1_POLICY.splitlines() if line not in lines] == []
    assert "environment" not in read(by_hand)[0]
    new = {name: key.model_copy(update={"sha1_self_signature": False}) for name, key in TARGET.keys.items()}
    for other in (
        render_config(TARGET.model_copy(update={"keys": new})),
        render_config(TARGET, repositories=own_repositories(TARGET)),
    ):
        assert SHA1_POLICY_VARIABLE not in other


def test_a_run_brings_its_own_keys_and_candidates(tmp_path: Path) -> None:
    key = tmp_path / "a.asc"
    signer = Key(fingerprint="B" * 40, file=tmp_path / "b.asc")
    published = ExtraRepository(
        id="published", baseurl="file:///srv", keys=(signer,), repo_gpgcheck=True, only=("a-1-1.noarch",)
    )
    package: Any = None
    request = BuildRequest(patched=package, workspace=tmp_path, candidates=tmp_path, published=published)
    own = own_repositories(
        TARGET.model_copy(update={"keys": {"fedora-28": Key(fingerprint="A" * 40, file=key)}})
    )
    text = render_config(TARGET, repositories=(*own, *request.extra), settings=Mock(), environment={"A": "1"})
    options, repositories = read(text)
    assert repositories["updates"]["gpgkey"] == key.as_uri()
    assert repositories["candidates"]["baseurl"] == tmp_path.resolve().as_uri()
    assert (repositories["candidates"]["gpgcheck"], repositories["candidates"]["priority"]) == ("0", "1")
    assert "priority" not in repositories["published"]
    wanted = {"gpgkey": signer.file.as_uri(), "repo_gpgcheck": "1", "includepkgs": "a-1-1.noarch"}
    assert wanted.items() <= dict(repositories["published"]).items()
    assert options["nspawn_args"] == ["--capability=cap_ipc_lock", "--register=no", "--keep-unit"]
    assert options["environment"] == {"A": "1"}


def test_what_backport_relies_on_is_not_for_the_site_to_change() -> None:
    extra = "\n".join(
        f"config_opts{place} = {value!r}"
        for place, value in (
            ("['root']", "other"),
            ("['basedir']", "/other"),
            ("['rootdir']", "/other"),
            ("['rpmbuild_networking']", True),
            ("['plugin_conf']['compress_logs_enable']", True),
            ("['plugin_conf']['package_state_enable']", False),
            ("['macros']['%_buildhost']", "other"),
            ("['macros']['%vendor']", "ours"),
            ("['nspawn_args']", []),
        )
    )
    options, _ = read(render_config(TARGET, settings=Mock(basedir=Path("/fast"), extra_config=extra)))
    assert (options["root"], options["basedir"]) == ("backport-f28-x86_64", "/fast")
    assert options["rootdir"] == "{{basedir}}/{{root}}/root"
    assert options["rpmbuild_networking"] is False
    assert options["plugin_conf"]["compress_logs_enable"] is False
    assert options["plugin_conf"]["package_state_enable"] is True
    assert options["macros"]["%_buildhost"] == "localhost"
    assert options["macros"]["%vendor"] == "ours"
    assert options["nspawn_args"] == ["--register=no", "--keep-unit"]


def test_what_experts_set_is_in_force() -> None:
    settings = Mock(isolation="simple", bootstrap_image="fedora:28", root_cache=True, suppress_sync=True)
    options, _ = read(render_config(TARGET, settings=settings))
    assert options["isolation"] == "simple"
    assert (options["use_bootstrap"], options["bootstrap_image"]) == (True, "fedora:28")
    assert options["plugin_conf"]["root_cache_enable"] is True
    assert "--suppress-sync=yes" in options["nspawn_args"]


def test_settings_of_mock_that_can_decide_results_are_part_of_the_key(tmp_path: Path) -> None:
    def identity(**settings: Any) -> str:
        return MockBuilder(target=TARGET, cache=tmp_path, settings=Mock(**settings)).identity

    assert identity() == identity(basedir="/fast", suppress_sync=True, unique_extension="a") == "mock"
    assert identity(isolation="simple") == "mock (isolation=simple)"
    one, other = (identity(extra_config=f"config_opts['macros']['%vendor'] = '{name}'") for name in "ab")
    assert len({one, other, "mock"}) == 3


def test_no_value_breaks_out_of_its_literal(tmp_path: Path) -> None:
    repository = TARGET.repositories[0].model_copy(
        update={"baseurl": 'https://h/"""+__import__("os").system("false")+"""\\x22'}
    )
    target = TARGET.model_copy(update={"summary": 'it\'s "quoted" \\', "repositories": (repository,)})
    options, repositories = read(render_config(target))
    assert options["description"] == target.summary
    assert repositories[repository.id]["baseurl"] == repository.baseurl


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (1, BuildError),
        (10, BuildError),
        (11, BuildTimeout),
        (2, HostError),
        (3, BuildRootError),
        (7, Interrupted),
        (20, BuildRootError),
        (30, BuildRootError),
        (40, BuildError),
        (60, BuildRootLocked),
        (70, BuildRootError),
        (80, HostError),
        (90, BuildRootError),
        (-9, BuildError),
        (143, BuildError),
    ],
)
def test_every_exit_code_has_its_meaning(tmp_path: Path, exit_code: int, kind: type[BackportError]) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "build.log").write_text("+ make\n")
    completed = Completed(argv=("mock", "--rebuild"), exit_code=exit_code, output=b"")
    problem = _meaning("tiny", completed, results, tmp_path, spec=tmp_path / "tiny.spec")
    assert type(problem) is kind
    assert problem.message.startswith("tiny: ")
    assert problem.hint
    assert problem.command == completed.argv
    assert problem.log is not None
    assert problem.log.name == ("build.log" if kind in (BuildError, BuildTimeout) else "root.log")


def user(name: str, uid: int, gid: int = 100) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", f"/home/{name}", "/bin/sh"))


def host(monkeypatch: pytest.MonkeyPatch, members: list[str] | None, *users: pwd.struct_passwd) -> None:
    def group(_name: str) -> grp.struct_group:
        if members is None:
            raise KeyError
        return grp.struct_group(("mock", "x", 135, members))

    by_name = {one.pw_name: one for one in users}
    groups = {one.pw_name: [one.pw_gid] for one in users}
    monkeypatch.setattr(grp, "getgrnam", group)
    monkeypatch.setattr(pwd, "getpwnam", by_name.__getitem__)
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, *groups[name]])
    # A directory service of many users is not to be asked for them all.
    monkeypatch.delattr(pwd, "getpwall")


def test_the_user_who_called_sudo_is_taken_where_mock_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = user("ann", 1001), user("bob", 1002)
    host(monkeypatch, ["ann", "bob"], user("root", 0), ann, bob)
    monkeypatch.setenv("SUDO_USER", "bob")
    assert find_caller() == bob
    monkeypatch.setenv("SUDO_USER", "eve")
    assert find_caller() == ann
    monkeypatch.delenv("SUDO_USER")
    assert find_caller() == ann
    assert sudo_environment(ann) == {"SUDO_UID": "1001", "SUDO_GID": "100", "SUDO_USER": "ann"}


def test_a_caller_who_is_a_member_by_primary_group_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch, [], user("root", 0, 135), user("carl", 1003, 135))
    monkeypatch.setenv("SUDO_USER", "carl")
    assert find_caller().pw_name == "carl"


@pytest.mark.parametrize("members", [None, [], ["root"], ["nobody-by-that-name"]])
def test_without_a_user_mock_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, members: list[str] | None
) -> None:
    host(monkeypatch, members, user("root", 0), user("ann", 1001))
    with pytest.raises(HostError) as caught:
        find_caller()
    assert caught.value.hint


def test_a_folder_that_the_user_cannot_reach_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    host(monkeypatch, ["ann"], user("ann", 4242))
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    outer.chmod(0o700)
    with pytest.raises(HostError, match=f"ann cannot enter {outer}"):
        require_way(user("ann", 4242), inner)


@dataclass
class Folder:
    """What a folder's owner, group and mode are."""

    st_uid: int
    st_gid: int
    st_mode: int


@pytest.mark.parametrize(
    ("owner", "group", "mode", "enters"),
    [
        (0, 135, 0o710, True),
        (0, 135, 0o701, False),  # the group's bits count for its members, not the others'
        (0, 100, 0o710, False),  # mock drops the user's own groups
        (0, 0, 0o701, True),
        (4242, 135, 0o611, False),  # so do the owner's
        (4242, 0, 0o100, True),
    ],
)
def test_a_folder_of_mocks_group_lets_its_user_in(
    monkeypatch: pytest.MonkeyPatch, owner: int, group: int, mode: int, enters: bool
) -> None:
    host(monkeypatch, ["ann"], user("ann", 4242))

    def stat(path: Path) -> Folder:
        return Folder(owner, group, mode) if path.name == "closed" else Folder(0, 0, 0o755)

    monkeypatch.setattr(Path, "stat", stat)
    with contextlib.nullcontext() if enters else pytest.raises(HostError, match="closed"):
        require_way(user("ann", 4242), Path("/nowhere/closed"))


def test_who_has_a_root_locked_is_named(tmp_path: Path) -> None:
    assert holders(tmp_path / "nowhere") == {}
    lock = tmp_path / "buildroot.lock"
    lock.touch()
    assert holders(tmp_path) == {}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "buildroot.lock").symlink_to(lock)
    assert holders(tmp_path / "other") == {}
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "buildroot.lock")
    assert holders(tmp_path / "pipe") == {}


def found_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(run, "BASE_ENVIRONMENT", {**run.BASE_ENVIRONMENT, "PATH": str(folder)})


def install(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_the_program_behind_fedoras_wrapper_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper, wrapped = install(tmp_path / "bin" / "consolehelper"), tmp_path / "libexec" / "mock"
    (wrapper.parent / "mock").symlink_to("consolehelper")
    found_in(wrapper.parent, monkeypatch)
    monkeypatch.setattr(mockhost, "_WRAPPED", wrapped)
    with pytest.raises(HostError, match="leads to consolehelper, but there is no") as caught:
        mockhost.program()
    assert caught.value.hint
    install(wrapped)
    assert mockhost.program() == wrapped


def test_a_mock_without_wrapper_is_started_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = install(tmp_path / "bin" / "mock")
    found_in(program.parent, monkeypatch)
    assert mockhost.program() == program
    program.unlink()
    with pytest.raises(HostError, match="not installed"):
        mockhost.program()
