"""The whole way with two small packages: what a run does, does again, and does not do."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backport import repodata
from backport.errors import HostError
from backport.files import digest_of
from tests.e2e.command import Bench, bench
from tests.e2e.shelf import snapshot
from tests.lab.serve import Served

pytestmark = pytest.mark.usefixtures("services")

EXPECTED = [
    "hello-1.0-1.fc28.bp1.src.rpm",
    "hello-1.0-1.fc28.bp1.x86_64.rpm",
    "libgreet-1.0-1.fc28.bp1.src.rpm",
    "libgreet-1.0-1.fc28.bp1.x86_64.rpm",
    "libgreet-devel-1.0-1.fc28.bp1.x86_64.rpm",
]


def without_debug(names: list[str]) -> list[str]:
    return [name for name in names if "-debug" not in name]


def current(place: Bench) -> str:
    return (place.repository / "f28/current").readlink().name


@pytest.fixture(scope="module")
def first(services: Served, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A site whose recipe has been built and published once."""
    place = bench(services, tmp_path_factory.mktemp("first"))
    assert place.run("keys", "init").code == 0
    result, report = place.build()
    assert (result.code, report["outcome"]) == (0, "published"), result.errors
    return place


@pytest.fixture
def fresh(services: Served, tmp_path: Path, first: Bench) -> Bench:
    """A site of its own that shares the first one's key, and a copy of what it built."""
    place = bench(services, tmp_path, signing={"gnupghome": str(first.folder / "gnupg")})
    (tmp_path / "cache").mkdir()
    for name in ("built", "sources"):
        subprocess.run(["cp", "-a", first.folder / "cache" / name, tmp_path / "cache" / name], check=True)
    (tmp_path / "cache" / "roots").symlink_to(first.folder / "cache" / "roots")
    return place


def test_a_run_ends_in_a_repository_of_everything_that_was_built(first: Bench) -> None:
    assert without_debug(first.published()) == EXPECTED


def test_packages_are_built_in_the_order_of_their_build_requires(first: Bench) -> None:
    (report,) = json.loads(first.run("log", "--json").output)
    (resolve,) = [stage for stage in report["stages"] if stage["name"] == "resolve"]
    assert resolve["details"]["order"] == ["libgreet", "hello"]


def test_the_report_ties_sources_keys_and_packages_together(first: Bench) -> None:
    (report,) = json.loads(first.run("log", "--json").output)
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["resolve", "fetch", "patch", "build", "sign", "self-test", "gates", "publish"]
    assert {source["nevra"] for source in stages["fetch"]["details"]["sources"]} == {
        "hello-1.0-1.fc29.src",
        "libgreet-1.0-1.fc29.src",
    }
    # The target has none of these packages: there is nothing to update, and no library to compare.
    inapplicable = {"gate.abi", "gate.installable.update", "gate.installable.downgrade"}
    for check in report["checks"]:
        assert check["verdict"] == ("skipped" if check["id"] in inapplicable else "pass"), check
    assert "command.greets-the-postmaster" in {check["id"] for check in report["checks"]}
    folder = Path(report["folder"])
    assert (folder / "junit.xml").exists()
    assert list(folder.glob("build/*/build.log"))
    assert not list(folder.rglob("*.rpm"))


def test_the_same_inputs_are_not_built_again(first: Bench) -> None:
    before = first.published()
    result = first.run("build", "hello", "--target", "f28", "--explain")
    assert result.code == 0
    assert "nothing to do" in result.output
    assert "nothing changed" in result.output
    assert first.published() == before
    assert json.loads(first.run("plan", "hello", "--target", "f28", "--json").output)["published"] is True


def test_a_changed_recipe_is_explained_and_only_what_it_touches_is_done_again(fresh: Bench) -> None:
    assert fresh.build()[1]["outcome"] == "published"
    generations = {path.name for path in (fresh.repository / "f28" / "generations").iterdir()}
    fresh.change('output = "^Hello, postmaster$"', 'output = "postmaster"')
    result, report = fresh.build("--explain")
    assert report["outcome"] == "published", result.errors
    assert [line.split(" changed: ")[0] for line in report["changed"]] == ["self-test"]
    assert {path.name for path in (fresh.repository / "f28" / "generations").iterdir()} >= generations
    assert without_debug(fresh.published()) == EXPECTED


def test_a_run_can_stop_after_any_stage(fresh: Bench) -> None:
    for stage in ("fetch", "patch", "build", "sign", "self-test", "gates"):
        result, report = fresh.build("--until", stage)
        assert (result.code, report["outcome"], report["stages"][-1]["name"]) == (0, "stopped", stage)
    assert not fresh.repository.exists()


def test_a_failing_check_stops_publishing(fresh: Bench) -> None:
    fresh.change("^Hello, postmaster$", "^Goodbye$")
    result, report = fresh.build()
    assert (result.code, report["outcome"], report["failure"]["stage"]) == (7, "failed", "self-test")
    assert "command.greets-the-postmaster" in report["failure"]["message"]
    assert not fresh.repository.exists()


def test_the_root_of_a_failed_self_test_is_kept_until_another_is(fresh: Bench) -> None:
    fresh.change("^Hello, postmaster$", "^Goodbye$")
    result, report = fresh.build("--keep-root")
    assert (result.code, report["failure"]["stage"]) == (7, "self-test")
    root = Path(report["kept_root"])
    assert (root / "usr/bin/hello").is_file()
    done = subprocess.run(
        report["entrance"],
        input="hello; id -u; exit 3\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (3, ["Hello, postmaster", "1000"])
    # A run that keeps nothing leaves it alone; one that keeps its own takes its place.
    fresh.change('puts(greet(argc > 1 ? argv[1] : "world"));', "puts(x);", file=postmaster(fresh))
    assert fresh.build()[1]["kept_root"] is None
    assert (root / "usr/bin/hello").is_file()
    result, report = fresh.build("--keep-root")
    assert (report["failure"]["stage"], report["kept_root"]) == ("build", str(root))
    assert not (root / "usr/bin/hello").exists()
    assert list((root / "builddir/build/BUILD").iterdir())
    assert str(root.parent) in fresh.run("repo", "gc", "--target", "f28").output
    assert not root.exists()


def postmaster(place: Bench) -> Path:
    return place.folder / "patches/hello/postmaster.patch"


def test_built_packages_are_left_in_a_folder(fresh: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    result, report = fresh.build("--until", "build", "--result-dir", str(folder))
    assert (report["results"], report["results_signed"]) == (str(folder), False), result.errors
    assert without_debug(sorted(path.name for path in folder.iterdir())) == EXPECTED
    unsigned = digest_of(folder / EXPECTED[0])
    result, report = fresh.build("--until", "sign", "--result-dir", str(folder))
    assert (report["results"], report["results_signed"]) == (str(folder), True), result.errors
    assert digest_of(folder / EXPECTED[0]) != unsigned
    file = tmp_path / "file"
    file.touch()
    assert fresh.run("build", "hello", "--target", "f28", "--result-dir", str(file)).code == 2


def test_a_shell_opens_only_on_a_terminal(fresh: Bench) -> None:
    refused = fresh.run("build", "hello", "--target", "f28", "--shell")
    assert (refused.code, "--shell needs a terminal" in refused.errors) == (2, True)
    fresh.change("^Hello, postmaster$", "^Goodbye$")
    ours, its = os.openpty()
    with subprocess.Popen(
        fresh.command("build", "hello", "--target", "f28", "--shell"), stdin=its, stdout=its, stderr=its
    ) as run:
        os.close(its)
        said = b""
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 4096):
                said += piece
                if b"a shell in " in said and b"\x00" not in said:
                    os.write(ours, b"echo in-$((40+2)); exit\n")
                    said += b"\x00"
        assert run.wait(120) == 7
    os.close(ours)
    assert b"in-42" in said


def test_a_gate_stops_publishing_unless_the_recipe_takes_it_as_a_warning(fresh: Bench) -> None:
    fresh.change("[self_test]", '[gates.consumers]\nno-such-package = ["true"]\n\n[self_test]')
    result, report = fresh.build()
    assert (result.code, report["outcome"], report["failure"]["stage"]) == (8, "failed", "gates")
    assert "gate.installable" in report["failure"]["message"]
    assert not fresh.repository.exists()
    fresh.change("[self_test]", '[gates.warn]\ninstallable = "nobody has it"\n\n[self_test]')
    result, report = fresh.build()
    assert (result.code, report["outcome"]) == (0, "published")
    (check,) = [check for check in report["checks"] if check["verdict"] == "warn"]
    assert check["id"] == "gate.installable"
    assert "nobody has it" in check["advice"]


def test_a_patch_that_does_not_apply_is_told_with_its_log(fresh: Bench) -> None:
    fresh.change(
        'puts(greet(argc > 1 ? argv[1] : "world"));',
        "puts(greeting);",
        file=fresh.folder / "patches/hello/postmaster.patch",
    )
    result, report = fresh.build()
    failure = report["failure"]
    assert (result.code, failure["stage"]) == (5, "build")
    assert Path(failure["log"]).read_text()
    assert "hello" in failure["message"]


def test_another_build_of_the_same_version_is_refused(fresh: Bench) -> None:
    assert fresh.build()[0].code == 0
    before = fresh.published()
    fresh.change('"postmaster"));', '"hostmaster"));', file=fresh.folder / "patches/hello/postmaster.patch")
    fresh.change("^Hello, postmaster$", "^Hello, hostmaster$")
    result, report = fresh.build()
    assert (result.code, report["failure"]["stage"]) == (8, "publish")
    assert "bump" in report["failure"]["hint"]
    assert fresh.published() == before
    fresh.change("[packages.hello]", "[packages.hello]\nbump = 2")
    assert fresh.build()[0].code == 0
    assert "hello-1.0-1.fc28.bp2.x86_64.rpm" in fresh.published()


def test_a_package_that_somebody_put_into_the_cache_is_not_used(fresh: Bench) -> None:
    (package,) = (fresh.folder / "cache" / "built").glob("*/hello-1*.x86_64.rpm")
    (other,) = (fresh.folder / "cache" / "built").glob("*/libgreet-1*.x86_64.rpm")
    built = digest_of(package)
    package.write_bytes(other.read_bytes())
    manifest = package.with_name("result.json")
    manifest.write_text(manifest.read_text().replace(built, digest_of(package)))
    result, report = fresh.build("--until", "build")
    assert (result.code, report["outcome"]) == (0, "stopped")
    assert f"hello: what lies in {package.parent} is not what was built here" in result.errors.replace(
        "\n", ""
    )
    (stage,) = [stage for stage in report["stages"] if stage["name"] == "build"]
    assert built in {one["sha256"] for one in stage["details"]["hello"]}
    assert digest_of(package) == built


def test_a_cache_that_others_can_write_to_is_refused(fresh: Bench) -> None:
    (fresh.folder / "cache" / "built").chmod(0o777)
    result = fresh.run("build", "hello", "--target", "f28", "--until", "build")
    assert result.code == 9
    assert "built: others can write to it (mode 0777)" in result.errors.replace("\n", " ")


def test_what_was_rolled_back_is_held_until_somebody_wants_it(fresh: Bench) -> None:
    assert fresh.build()[1]["outcome"] == "published"
    first = current(fresh)
    fresh.change('output = "^Hello, postmaster$"', 'output = "postmaster"')
    assert fresh.build()[1]["outcome"] == "published"
    done = fresh.run("repo", "rollback", "--target", "f28")
    assert (done.code, current(fresh)) == (0, first)
    assert "hello is not published again" in done.output
    before = snapshot(fresh.repository)
    result, report = fresh.build()
    assert (result.code, report["outcome"]) == (0, "held")
    assert "clients were led back" in result.errors
    assert [stage["name"] for stage in report["stages"]] == ["resolve", "publish"]
    assert snapshot(fresh.repository) == before
    result, report = fresh.build("--force")
    assert (result.code, report["outcome"]) == (0, "published"), result.errors
    assert current(fresh) != first
    assert fresh.build()[1]["outcome"] == "unchanged"


def test_another_self_test_does_not_bring_back_what_was_rolled_back(fresh: Bench) -> None:
    assert fresh.build()[1]["outcome"] == "published"
    first = current(fresh)
    fresh.change("[packages.hello]", "[packages.hello]\nbump = 2")
    assert fresh.build()[1]["outcome"] == "published"
    assert fresh.run("repo", "rollback", "--target", "f28").code == 0
    fresh.change('output = "^Hello, postmaster$"', 'output = "postmaster"')
    result, report = fresh.build()
    assert (result.code, report["outcome"], current(fresh)) == (0, "held", first)
    assert [stage["name"] for stage in report["stages"]] == ["resolve", "fetch", "patch"]
    fresh.change("bump = 2", "bump = 3")
    assert fresh.build()[1]["outcome"] == "published"
    assert "hello-1.0-1.fc28.bp3.x86_64.rpm" in fresh.published()


def test_what_was_built_for_testing_is_promoted_as_it_is(fresh: Bench) -> None:
    result, report = fresh.build("--channel", "testing")
    assert (result.code, report["outcome"]) == (0, "published"), result.errors
    assert not (fresh.repository / "f28").exists()
    testing, stable = fresh.repository / "testing/f28/current", fresh.repository / "f28/current"
    assert fresh.run("repo", "promote", "testing", "stable", "--target", "f28").code == 0
    assert without_debug(fresh.published()) == EXPECTED
    for path in testing.resolve().rglob("*.rpm"):
        assert (stable / path.relative_to(testing.resolve())).samefile(path)
    for channel in ("testing", "stable"):
        assert fresh.run("repo", "verify", "--target", "f28", "--channel", channel).code == 0
    # The same inputs are known in the other channel now.
    assert fresh.build()[1]["outcome"] == "unchanged"
    (listed,) = json.loads(fresh.run("repo", "list", "--target", "f28", "--json").output)
    assert (listed["current"], listed["proven"]) == (True, True)


def test_metadata_that_this_host_cannot_write_stops_a_run_before_it_begins(fresh: Bench) -> None:
    target = fresh.folder / "mock-configs/f28.toml"
    target.write_text(target.read_text().replace('compression = "gz"', 'compression = "zstd"'))
    result, report = fresh.build("--until", "fetch")
    if hasattr(repodata.bindings(), "ZSTD_COMPRESSION"):
        assert (result.code, report["outcome"]) == (0, "stopped"), result.errors
    else:
        assert result.code == HostError.exit_code
        assert "cannot write zstd metadata" in result.errors
        assert 'compression = "gz"' in result.errors
        assert (report["outcome"], report["stages"]) == ("failed", [])


def test_a_lock_admits_what_was_locked_and_nothing_else(fresh: Bench) -> None:
    assert fresh.run("lock", "hello").code == 0
    lock = fresh.folder / "specs" / "hello.lock"
    assert fresh.run("fetch", "hello").code == 0
    text = lock.read_text()
    digest = text.split('sha256 = "', 1)[1][:64]
    lock.write_text(text.replace(digest, "0" * 64))
    assert fresh.run("plan", "hello", "--target", "f28").code == 3
    result, report = fresh.build()
    assert (result.code, report["failure"]["stage"]) == (3, "resolve")
    assert "0" * 64 in report["failure"]["message"]
    assert digest in report["failure"]["message"]


def test_the_diff_is_the_whole_change(first: Bench) -> None:
    text = first.run("diff", "hello", "--target", "f28").output
    assert "+Release:        1%{?dist}.bp1" in text
    assert "postmaster.patch" in text
    assert '+    puts(greet(argc > 1 ? argv[1] : "postmaster"));' in text


@pytest.mark.parametrize("words", [(), ("--tag", "f29-updates")], ids=["recipes-tags", "named-tag"])
def test_search_finds_builds_by_tag(first: Bench, words: tuple[str, ...]) -> None:
    found = json.loads(first.run("search", "hel*", *words, "--json").output)
    assert {"package": "hello", "builds": {"f29-updates": "hello-1.0-1.fc29"}} in found


def test_a_hub_that_is_down_is_told_in_one_sentence(services: Served, fresh: Bench) -> None:
    fresh.change(services.hub_url, "http://127.0.0.1:9/kojihub", file=fresh.site)
    result, report = fresh.build()
    assert (result.code, report["failure"]["stage"]) == (3, "resolve")
    assert "127.0.0.1:9" in report["failure"]["message"]


def test_without_a_key_nothing_is_fetched(services: Served, tmp_path: Path) -> None:
    result, report = bench(services, tmp_path).build()
    assert (result.code, report["failure"]["stage"]) == (6, "resolve")
    assert "backport keys init" in result.errors
    assert not (tmp_path / "cache" / "sources").exists()


def test_two_runs_of_one_recipe_do_not_meet(fresh: Bench) -> None:
    with subprocess.Popen(
        fresh.command("build", "hello", "--target", "f28", "--force"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as one:
        _wait_for(fresh.folder / "cache" / "runs" / ".hello-f28.lock")
        result, report = fresh.build()
        assert result.code == 75
        assert "another process" in result.errors
        assert (report["outcome"], Path(report["folder"], "junit.xml").is_file()) == ("failed", True)
        assert one.wait(300) == 0


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_an_ended_run_leaves_no_process_no_mount_and_nothing_published(
    fresh: Bench, number: int, code: int
) -> None:
    with subprocess.Popen(
        fresh.command("build", "hello", "--target", "f28", "--force"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        _wait_for_log(fresh.folder / "cache" / "runs", "build/*/build.log")
        run.send_signal(number)
        assert run.wait(60) == code
    time.sleep(1.5 if number == signal.SIGKILL else 0)
    assert str(fresh.folder) not in Path("/proc/self/mountinfo").read_text()
    assert not _processes_in(fresh.folder)
    assert not fresh.repository.exists()
    assert fresh.build()[0].code == 0
    assert without_debug(fresh.published()) == EXPECTED
    runs = fresh.folder / "cache" / "runs"
    assert all((folder / "report.json").is_file() for folder in runs.glob("*Z-*"))


@pytest.mark.parametrize(
    ("stage", "pattern"),
    [("self-test", "self-test/update.log"), ("gates", "gates/*/*.log"), ("publish", "publish/*.log")],
)
def test_an_interruption_is_no_finding(fresh: Bench, stage: str, pattern: str) -> None:
    """Neither the self-test nor a gate takes it for a check that failed, and goes on with the next."""
    runs = fresh.folder / "cache" / "runs"
    with subprocess.Popen(
        fresh.command("build", "hello", "--target", "f28", "--json"), stdout=subprocess.PIPE, text=True
    ) as run:
        _wait_for_log(runs, pattern)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=60)
    report = json.loads(output)
    assert run.returncode == 130
    assert (report["outcome"], report["failure"]["stage"]) == ("interrupted", stage)
    assert not [check for check in report["checks"] if "interrupted" in check["found"]]
    assert not fresh.published()
    assert not _processes_in(fresh.folder)


def test_an_interruption_ends_the_wait_for_a_hub_that_says_nothing(services: Served, fresh: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        fresh.change(services.hub_url, f"http://127.0.0.1:{port}/kojihub", file=fresh.site)
        with subprocess.Popen(
            fresh.command("build", "hello", "--target", "f28", "--json"), stdout=subprocess.PIPE, text=True
        ) as run:
            silent.settimeout(60)
            connection, _ = silent.accept()
            with connection:
                connection.recv(1024)
                run.send_signal(signal.SIGINT)
                output, _ = run.communicate(timeout=60)
            silent.settimeout(0)
            with pytest.raises(BlockingIOError):
                silent.accept()
    assert run.returncode == 130
    assert json.loads(output)["outcome"] == "interrupted"


def test_a_full_disk_is_told_and_a_later_run_goes_on(fresh: Bench) -> None:
    small = fresh.folder / "small"
    small.mkdir()
    (fresh.folder / "cache" / "runs").symlink_to(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", small], check=True)
    try:
        state = os.statvfs(small)
        (small / "ballast").write_bytes(bytes(state.f_bavail * state.f_frsize - 60_000))
        result, report = fresh.build()
        failure = report["failure"]
        assert (result.code, failure["stage"], report["outcome"]) == (5, "build", "failed")
        assert "No space left on device" in failure["message"]
        assert f"command: {shlex.join(failure['replay'])}\n" in result.errors
        assert Path(report["folder"], "report.json").read_text() == result.output
        (small / "ballast").unlink()
        words = failure["replay"]
        assert words[:1] == ["backport"]
        assert subprocess.run([sys.executable, "-m", *words], check=False, timeout=300).returncode == 0
        assert without_debug(fresh.published()) == EXPECTED
    finally:
        subprocess.run(["umount", small], check=True)


def _wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def _wait_for_log(runs: Path, pattern: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not any(runs.glob(f"*/{pattern}")):
        assert time.monotonic() < deadline, "the build did not begin"
        time.sleep(0.02)


def _processes_in(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
            root = str((process / "root").readlink())
        except OSError:
            continue
        if str(folder) in command or root.startswith(str(folder)):
            found.append(command)
    return found
