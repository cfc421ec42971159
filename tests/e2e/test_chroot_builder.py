"""Packages built in a chroot: what comes out, what a build can reach, and what a failure leaves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from backport.artifacts import BuiltRpms
from backport.builders import BuildRequest
from backport.builders.chroot import ChrootBuilder
from backport.errors import BuildError, BuildRootError, BuildTimeout
from backport.repodata import write_repodata
from backport.spec import edit_spec
from backport.target import Target
from tests.e2e import hello, tiny

LOGS = {"build.log", "root.log", "installed_pkgs.log", "buildroot.json"}


@pytest.fixture
def builder(f28: Target, root_cache: Path) -> ChrootBuilder:
    return ChrootBuilder(target=f28, cache=root_cache)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def nothing_but_logs(workspace: Path, cache: Path) -> bool:
    return {path.name for path in workspace.iterdir()} <= LOGS and not list((cache / "roots").glob("live-*"))


def by_name(built: BuiltRpms) -> dict[str, Path]:
    return {rpm.nevra.name: rpm.path for rpm in built.rpms}


def test_a_package_is_built_with_its_logs(builder: ChrootBuilder, workspace: Path, tmp_path: Path) -> None:
    patched = hello.patched(tmp_path / "hello", macros={"greeting": "good day"}, with_=("loud",))
    built = builder.build(BuildRequest(patched=patched, workspace=workspace))
    assert str(built.srpm.nevra) == "hello-1:1.0-1.fc28.bp1.src"
    assert {"hello", "hello-devel"} <= set(by_name(built))
    assert built.patched is patched
    assert built.builder.startswith("chroot (rpm ")
    assert {log.name for log in built.logs} == LOGS
    build_log = (workspace / "build.log").read_text()
    assert "-DLOUD" in build_log
    installed = (workspace / "installed_pkgs.log").read_text().splitlines()
    assert any(line.startswith("gcc-") and line.endswith(" installed") for line in installed)
    origins = json.loads((workspace / "buildroot.json").read_text())
    assert len(origins) == len(installed)
    assert all("sha256" in origin for origin in origins)
    for origin in origins[:3]:
        content = requests.get(origin["url"], timeout=30).content
        assert hashlib.sha256(content).hexdigest() == origin["sha256"]
    assert {path.name for path in workspace.iterdir()} == LOGS | {"rpms"}


def test_the_targets_dist_is_set_and_looked_for_before_anything_is_built(
    builder: ChrootBuilder, f28: Target, workspace: Path, tmp_path: Path
) -> None:
    target = f28.model_copy(update={"dist": ".el9_4"})
    built = replace(builder, target=target).build(
        BuildRequest(patched=hello.patched(tmp_path / "a"), workspace=workspace)
    )
    assert {rpm.nevra.release for rpm in (built.srpm, *built.rpms)} == {"1.el9_4.bp1"}
    own = hello.patched(tmp_path / "b", building="touch /builddir/results/built")
    own.spec.write_bytes(b"%global dist .fc29\n" + own.spec.read_bytes())
    with pytest.raises(BuildError, match=r"does not have the target's %dist, \.fc28"):
        builder.build(BuildRequest(patched=own, workspace=workspace / "own"))
    assert "rpmbuild -bb" not in (workspace / "own" / "build.log").read_text()


@pytest.mark.parametrize(("undefine", "printed"), [((), "fuzz [0]"), (("_default_patch_fuzz",), "fuzz []")])
def test_a_macro_of_rpm_can_be_unset(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path, undefine: tuple[str, ...], printed: str
) -> None:
    patched = hello.patched(tmp_path / "hello", building='echo "fuzz [%{?_default_patch_fuzz}]"')
    text = patched.spec.read_bytes()
    patched.spec.write_bytes(edit_spec(text, name="hello", undefine=undefine, bump=0, changelog=None))
    builder.build(BuildRequest(patched=patched, workspace=workspace))
    assert printed in (workspace / "build.log").read_text().splitlines()


def test_what_is_built_depends_on_its_inputs_alone(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    digests = []
    for attempt in ("first", "second"):
        patched = hello.patched(tmp_path / attempt)
        built = builder.build(BuildRequest(patched=patched, workspace=workspace / attempt))
        digests.append({rpm.nevra: rpm.sha256 for rpm in (built.srpm, *built.rpms)})
    assert digests[0] == digests[1]
    header = hello.header_of(built.srpm.path)
    assert header["buildtime"] == hello.CHANGELOG_DAY
    assert header["buildhost"] == "localhost"


def test_a_build_is_shut_in(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of the caller's")
    outside = tmp_path / "outside"
    outside.write_text("of the host's")
    check = f"""
test "$(id -u)" = 1000
test "$(umask)" = 0022
test "$(uname -n)" = localhost
test -z "$A_SECRET"
test ! -e {outside}
grep -q '^NoNewPrivs:.*1$' /proc/self/status
grep -q '^CapEff:.*0000000000000000$' /proc/self/status
test "$(grep -c : /proc/net/dev)" = 1
grep -q 'lo:' /proc/net/dev
test "$(ls -d /proc/[0-9]* | wc -l)" -lt 20
if touch /usr/bin/evil; then exit 1; fi
if touch /etc/evil; then exit 1; fi
"""
    builder.build(
        BuildRequest(patched=hello.patched(tmp_path / "hello", checking=check), workspace=workspace)
    )


def test_a_failing_check_fails_the_build_unless_it_is_left_out(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="hello: the build failed: exit code 1") as caught:
        builder.build(
            BuildRequest(patched=hello.patched(tmp_path / "a", checking="false"), workspace=workspace)
        )
    assert type(caught.value) is BuildError
    assert caught.value.log == workspace / "build.log"
    assert nothing_but_logs(workspace, builder.cache)
    unchecked = hello.patched(tmp_path / "b", checking="false", check=False)
    assert builder.build(BuildRequest(patched=unchecked, workspace=workspace / "unchecked")).rpms


def test_a_spec_that_cannot_be_parsed_is_the_packages_fault(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    broken = hello.patched(tmp_path / "hello", build_requires="%if 1")
    with pytest.raises(BuildError, match="hello: the source package cannot be packed") as caught:
        builder.build(BuildRequest(patched=broken, workspace=workspace))
    assert type(caught.value) is BuildError
    assert nothing_but_logs(workspace, builder.cache)


def test_a_build_that_hangs_is_ended_at_its_deadline(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    marker = f"1000.{uuid.uuid4().int}"
    hanging = hello.patched(tmp_path / "hello", building=f"(sleep {marker} &); sleep {marker}", timeout=5)
    with pytest.raises(BuildTimeout, match="5 s, its deadline"):
        builder.build(BuildRequest(patched=hanging, workspace=workspace))
    assert nothing_but_logs(workspace, builder.cache)
    assert subprocess.run(["pgrep", "-f", f"sleep {marker}"], check=False).returncode == 1


def test_a_build_that_is_killed_is_told_so(builder: ChrootBuilder, workspace: Path, tmp_path: Path) -> None:
    killed = hello.patched(tmp_path / "hello", building="kill -KILL $PPID")
    with pytest.raises(BuildError, match="killed by SIGKILL") as caught:
        builder.build(BuildRequest(patched=killed, workspace=workspace))
    assert "memory" in str(caught.value.hint)
    assert nothing_but_logs(workspace, builder.cache)


def test_a_missing_build_dependency_is_named(builder: ChrootBuilder, workspace: Path, tmp_path: Path) -> None:
    lines = "BuildRequires: nowhere-devel >= 3\nBuildRequires: perl(Nowhere)\nBuildRequires: make"
    lacking = hello.patched(tmp_path / "hello", build_requires=lines)
    wanted = r"hello: nothing provides what it needs to be built: nowhere-devel >= 3, perl\(Nowhere\)$"
    with pytest.raises(BuildRootError, match=wanted) as caught:
        builder.build(BuildRequest(patched=lacking, workspace=workspace))
    assert caught.value.log == workspace / "root.log"
    assert nothing_but_logs(workspace, builder.cache)


@pytest.mark.parametrize("name", ["https://evil.example/x", "/srv/evil.rpm"])
def test_a_build_dependency_is_never_a_download(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path, name: str
) -> None:
    evil = hello.patched(tmp_path / "hello", build_requires=f"BuildRequires: {name}")
    with pytest.raises(BuildRootError, match=f"nothing provides .*: {name}$"):
        builder.build(BuildRequest(patched=evil, workspace=workspace))


def test_alternatives_among_build_dependencies_are_resolved(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    either = hello.patched(tmp_path / "hello", build_requires="BuildRequires: (nowhere-devel or zlib-devel)")
    builder.build(BuildRequest(patched=either, workspace=workspace))
    assert "zlib-devel-" in (workspace / "installed_pkgs.log").read_text()


def test_a_result_that_is_a_link_is_refused(builder: ChrootBuilder, workspace: Path, tmp_path: Path) -> None:
    linking = hello.patched(tmp_path / "hello", checking="ln -s /etc/shadow /builddir/results/shadow.rpm")
    with pytest.raises(BuildError, match=r"shadow\.rpm: the build left no plain file"):
        builder.build(BuildRequest(patched=linking, workspace=workspace))


def test_a_tree_too_deep_for_paths_is_removed(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    digging = 'perl -e \'for (1..3000) { mkdir "deeper" or die; chdir "deeper" or die }\''
    deep = hello.patched(tmp_path / "hello", checking=f"{digging}; false")
    with pytest.raises(BuildError, match="the build failed"):
        builder.build(BuildRequest(patched=deep, workspace=workspace))
    assert nothing_but_logs(workspace, builder.cache)


def test_candidates_come_before_older_packages(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    candidates = tmp_path / "candidates"
    for version in ("1", "2"):
        built = tiny.build(tmp_path / version, "tiny-devel", version=version, release="1.fc28")
        candidates.mkdir(exist_ok=True)
        (candidates / built.rpms[0].path.name).write_bytes(built.rpms[0].path.read_bytes())
    write_repodata(candidates, compression="gz")
    needing = hello.patched(
        tmp_path / "hello",
        build_requires="BuildRequires: tiny-devel",
        checking="test -f /usr/share/tiny-devel/file",
    )
    builder.build(BuildRequest(patched=needing, candidates=candidates, workspace=workspace))
    assert "tiny-devel-2-1.fc28.noarch" in (workspace / "installed_pkgs.log").read_text()


def test_generated_build_dependencies_are_installed(
    builder: ChrootBuilder, workspace: Path, tmp_path: Path
) -> None:
    generate = """
%generate_buildrequires
echo zlib-devel
test -e /usr/include/zlib.h && echo 'make >= 1'
true
"""
    generating = hello.patched(tmp_path / "hello", generate=generate, checking="test -e /usr/include/zlib.h")
    built = builder.build(BuildRequest(patched=generating, workspace=workspace))
    assert "zlib-devel-" in (workspace / "installed_pkgs.log").read_text()
    assert {rpm.nevra.arch for rpm in built.rpms} == {"x86_64"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with no room but for a base root and its copy."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1400m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_build_that_fills_the_disk_is_told_so(f28: Target, small_disk: Path, tmp_path: Path) -> None:
    workspace = small_disk / "workspace"
    workspace.mkdir()
    filling = hello.patched(tmp_path / "hello", building="cat /dev/zero > /builddir/zeros")
    builder = ChrootBuilder(target=f28, cache=small_disk / "cache")
    with pytest.raises(BuildRootError, match="the disk is full") as caught:
        builder.build(BuildRequest(patched=filling, workspace=workspace))
    assert "make room" in str(caught.value.hint)
    assert nothing_but_logs(workspace, builder.cache)
