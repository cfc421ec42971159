from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from typer.testing import CliRunner

from backport import __version__
from backport.__main__ import NOBODY_READS, main
from backport.commands import app
from backport.commands.host import SchemaName
from backport.commands.options import chosen, verbosity
from backport.commands.schemas import NAMES
from backport.commands.terminal import TerminalProgress
from backport.errors import (
    BUSY,
    BackportError,
    BuildError,
    BuildRootLocked,
    Ending,
    FetchError,
    HostError,
    Interrupted,
    PatchError,
    PublishError,
    SelfTestError,
    SignError,
    UsageError,
    as_kind,
)
from backport.files import locked
from backport.recipe import load_recipe
from backport.repository import listing
from backport.runs.history import Recorder, is_going_on
from backport.runs.job import load_job
from backport.site import Site, apply_site
from backport.target import load_target

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text()


def leaves(typer_app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in typer_app.registered_commands:
        name = command.name or (command.callback.__name__.replace("_", "-") if command.callback else "")
        yield (*path, name)
    for group in typer_app.registered_groups:
        assert group.typer_instance is not None
        inner = (*path, group.name) if isinstance(group.name, str) else path
        yield from leaves(group.typer_instance, inner)


COMMANDS = sorted(leaves(app))
GROUPS = sorted({command[:-1] for command in COMMANDS if len(command) > 1})


@pytest.mark.parametrize("group", GROUPS, ids=" ".join)
def test_every_group_helps_with_an_example(group: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*group, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"backport {' '.join(group)} " in result.output.partition("Example")[2]
    assert "\\b" not in result.output


def test_search_looks_in_the_tags_of_the_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[list[str], str]] = []

    def search(_koji: object, _pattern: str, *, tags: list[str], tell: object, hint: str) -> tuple[()]:
        asked.append((tags, hint))
        return ()

    monkeypatch.setattr("backport.sources.koji.builds.search", search)
    site = tmp_path / "backport.toml"
    site.write_text("")
    for words in ([], ["--tag", "f30"]):
        assert (
            CliRunner().invoke(app, ["search", "x", "--json", "--config", str(site), *words]).exit_code == 0
        )
    assert [tags for tags, _ in asked] == [["f29-updates"], ["f30"]]
    assert "in the recipe" in asked[0][1]
    assert asked[1][1] == "correct --tag"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps_with_an_example(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert f"backport {' '.join(command)}" in result.output
    assert "Example" in result.output
    assert "--debug" in result.output
    assert "\\b" not in result.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: tuple[str, ...]) -> None:
    assert f"`{' '.join(command)}" in README


def test_exit_codes_are_as_the_readme_says() -> None:
    kinds: list[type[Ending]] = [
        BackportError,
        UsageError,
        FetchError,
        PatchError,
        BuildError,
        SignError,
        SelfTestError,
        PublishError,
        HostError,
        Interrupted,
    ]
    documented = [
        line.split("|")[1].strip()
        for line in README.splitlines()
        if line.startswith("| ") and "|" in line[2:]
    ]
    assert {str(kind.exit_code) for kind in kinds} | {str(NOBODY_READS)} <= set(documented)


@pytest.mark.parametrize(
    "arguments", [["bild"], ["build"], ["build", "openssl"], ["build", "--targt", "f28"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_help_and_the_schema_need_no_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKPORT_CONFIG", str(tmp_path / "missing.toml"))
    for kind in get_args(SchemaName):
        result = CliRunner().invoke(app, ["schema", kind])
        assert result.exit_code == 0
        assert '"$schema"' in result.output or '"properties"' in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "openssl", "--target", "f28", "--until", "fech"], "(did you mean fetch?)"),
        (["schema", "recipes"], "(did you mean recipe?)"),
        (["log", "--limit", "x"], "must be a whole number"),
        (["log", "--limit", "0"], "must be at least 1"),
        (["probe", "localhost", "--timeout", "soon"], "must be a number"),
        (["maillog", "x", "--since", "soon"], "'soon' does not match the formats '%Y-%m-%d'"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Value error" not in result.output
    assert "Input" not in result.output


def site(folder: Path) -> str:
    file = folder / "backport.toml"
    file.write_text('[paths]\ncache = "cache"\n')
    return str(file)


def test_a_log_without_runs_says_so(tmp_path: Path) -> None:
    for options, output in (([], "no runs yet\n"), (["--json"], "[]\n")):
        result = CliRunner().invoke(app, ["log", *options, "--config", site(tmp_path)])
        assert (result.exit_code, result.output) == (0, output)


def test_a_search_without_hits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backport.sources.koji.builds.search", lambda *_, **__: ())
    result = CliRunner().invoke(app, ["search", "opnssl", "--tag", "f29", "--config", site(tmp_path)])
    assert (result.exit_code, result.output) == (0, "nothing fits 'opnssl'\n")


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ({}, "changed: unknown, since the run ended before its inputs were known"),
        ({"target": "t"}, "changed: nothing changed since the run before"),
    ],
)
def test_what_was_not_compared_is_not_told_to_be_unchanged(
    tmp_path: Path, inputs: dict[str, str], told: str
) -> None:
    config = site(tmp_path)
    record = Recorder(load_job("openssl", "f28", Path(config)), runs=tmp_path / "cache" / "runs")
    record.inputs_are(inputs, "key", replace(record.finish(), inputs=inputs))
    record.finish(FetchError("the hub is down"))
    result = CliRunner().invoke(app, ["log", record.id, "--config", config])
    assert told in result.output.splitlines()


def ended(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """How the whole command ends."""
    monkeypatch.setattr("sys.argv", ["backport", *arguments])
    monkeypatch.delenv("BACKPORT_DEBUG", raising=False)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


def test_what_the_system_refuses_is_told_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = site(tmp_path)
    (tmp_path / "cache").write_text("a file")
    for command in ("build", "diff", "selftest"):
        assert ended([command, "openssl", "--target", "f28", "--config", config], monkeypatch) == 9
        told = capsys.readouterr().err
        assert f"error: {tmp_path}/cache" in told
        assert "hint: " in told


def test_an_error_of_the_tools_own_names_a_command_that_tells_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("backport.site.load_site", fail)
    arguments = ["log", "--config", site(tmp_path)]
    assert ended(arguments, monkeypatch) == 1
    told = capsys.readouterr().err
    assert "error: unexpected ZeroDivisionError" in told
    assert "Traceback" not in told
    again = shlex.split(told.splitlines()[1].partition(": ")[2].rpartition(": ")[2])
    assert ended(again[1:], monkeypatch) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["schema", "recipe"], ["log"], ["log", "--json"], ["--help"]])
def test_output_that_nobody_reads_any_more_has_an_exit_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("BACKPORT_CONFIG", site(tmp_path))
    Recorder(load_job("openssl", "f28", None), runs=tmp_path / "cache" / "runs").finish()
    inner, outer = os.pipe()
    os.close(inner)
    with os.fdopen(outer, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert ended(arguments, monkeypatch) == NOBODY_READS


@pytest.mark.parametrize("arguments", [["schema", "site"], ["log"], ["log", "--json"], ["--help"]])
def test_output_that_finds_no_room_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.setenv("BACKPORT_CONFIG", site(tmp_path))
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert ended(arguments, monkeypatch) == 9
        assert "No space left on device\nhint: make room" in capsys.readouterr().err


def test_mocks_configuration_for_use_by_hand_is_that_of_the_site(tmp_path: Path) -> None:
    key = "A" * 40
    site = tmp_path / "backport.toml"
    site.write_text(
        f"""
        [mock]
        basedir = "/fast"
        extra_config = "config_opts['macros']['%vendor'] = 'ours'"
        [mirrors.f28]
        updates = "https://mirror.example/f28/updates"
        [keys.fedora-28]
        fingerprint = "{key}"
        file = "mine.asc"
        """
    )
    result = CliRunner().invoke(app, ["mock-config", "openssl", "--config", str(site)])
    assert result.exit_code == 0
    assert "baseurl=https://mirror.example/f28/updates\n" in result.output
    assert f"gpgkey={(tmp_path / 'mine.asc').as_uri()}\n" in result.output
    assert "config_opts['basedir'] = '/fast'" in result.output
    assert "config_opts['macros']['%vendor'] = 'ours'" in result.output


@pytest.mark.parametrize("words", [["--version"], ["-V"], ["version"], ["--version", "build"]])
def test_the_version_is_told_by_option_and_by_command(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.output) == (0, f"backport {__version__}\n")


def test_quiet_shows_no_progress_and_verbose_names_the_site_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "backport.toml"
    site.write_text(f'[paths]\ncache = "{tmp_path}"\n')
    for words in (["log", "--verbose"], ["doctor", "-v"]):
        CliRunner().invoke(app, [*words, "--config", str(site)])
    shown = CliRunner().invoke(app, ["log", "-v", "-c", str(site)])
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "no runs yet\n", f"site file: {site}\n")
    verbosity(quiet=True, verbose=False)
    with TerminalProgress() as progress, progress.following("waiting", tmp_path / "log"):
        progress.note("working")
        progress.transfer("a", 1, 2)
    assert capsys.readouterr() == ("", "")
    shown = CliRunner().invoke(app, ["log", "-c", str(site)])
    assert (shown.stdout, shown.stderr) == ("no runs yet\n", "")
    refused = CliRunner().invoke(app, ["log", "-q", "-v"])
    assert isinstance(refused.exception, UsageError)


def test_of_runs_and_generations_a_beginning_or_latest_will_do() -> None:
    known = ["20261124T2-b", "20261124T1-a", "20261123T9-a"]
    for word, name in (("latest", known[0]), ("20261124T1", known[1]), ("20261123", known[2])):
        assert chosen(word, known, what="run", listed="backport log") == name
    for word, reason in (("20261124", "begins 2 of the runs"), ("2025", "no run '2025'"), ("", "begins 3")):
        with pytest.raises(UsageError, match=reason) as caught:
            chosen(word, known, what="run", listed="backport log")
        assert caught.value.hint
    with pytest.raises(UsageError, match="no run 'latest'"):
        chosen("latest", [], what="run", listed="backport log")


def test_a_run_is_followed_until_it_ends(tmp_path: Path) -> None:
    site, run = tmp_path / "backport.toml", tmp_path / "runs/20261124T041000.000000Z-hello-f28"
    site.write_text(f'[paths]\ncache = "{tmp_path}"\n')
    (run / "build").mkdir(parents=True)
    (run / "build/build.log").write_text("+ make\n\x1b[31mred\n")
    guard = tmp_path / "runs/.hello-f28.lock"
    for words in ([], ["latest"], ["2026"]):
        shown = CliRunner().invoke(app, ["log", *words, "--follow", "-c", str(site)])
        assert shown.exit_code == 0
        assert "==> build/build.log <==\n+ make\n" in shown.stdout
        assert "\x1b" not in shown.stdout
        assert "has ended" in shown.stderr
    with locked(guard, timeout=0, what="x"):
        assert is_going_on(tmp_path / "runs", run.name)
    assert not is_going_on(tmp_path / "runs", run.name)


def test_whoever_is_busy_is_told_by_one_exit_code(tmp_path: Path) -> None:
    for error in (PublishError, FetchError, BuildError):
        with (
            locked(tmp_path / "lock", timeout=0, what="x"),
            pytest.raises(error) as caught,
            as_kind(error),
            locked(tmp_path / "lock", timeout=0, what="x"),
        ):
            pass
        assert caught.value.exit_code == BUSY
    assert BuildRootLocked("x").exit_code == BUSY
    assert PublishError("x").exit_code == 8


def test_bindings_that_a_venv_does_not_see_are_told_with_their_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("No module named 'rpm'", name="rpm")

    monkeypatch.setattr("backport.__main__.app", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 9
    assert "install python3-rpm; a venv sees them only if made with" in capsys.readouterr().err


def test_the_readme_s_recipe_is_one(tmp_path: Path) -> None:
    text = README.partition("## Add a recipe")[2].partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "nginx.toml").write_text(text)
    recipe = load_recipe(tmp_path, "nginx")
    target = load_target(ROOT / "mock-configs", recipe.targets[0])
    assert apply_site(recipe, target, Site())[0].packages["nginx"].nvr.endswith(".fc29")
    assert recipe.source.tag.startswith("f29")


def test_every_command_with_json_has_a_schema() -> None:
    def walk(command: Any, *path: str) -> Iterator[str]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, *path, name)
        if any("--json" in option.opts for option in command.params):
            yield "-".join(path)

    found = set(walk(typer.main.get_command(app)))
    assert found == set(NAMES)
    assert set(get_args(SchemaName)) == found | {"recipe", "target", "site"}


def test_completion_knows_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = (datetime(2026, 11, 24, 4, 10, tzinfo=UTC), datetime(2026, 11, 23, 4, 10, tzinfo=UTC))
    listed = [
        listing.Listed(
            id=f"{at:%Y%m%dT%H%M%SZ}-0", time=at, current=False, proven=True, packages=1, added=1, run=""
        )
        for at in times
    ]
    monkeypatch.setattr(
        listing, "list_generations", lambda folder: listed if folder.path.name == "f28" else []
    )
    monkeypatch.setenv("_BACKPORT_COMPLETE", "complete_bash")

    def completed(*words: str) -> list[str]:
        env = {"COMP_WORDS": " ".join(("backport", *words)), "COMP_CWORD": str(len(words))}
        return CliRunner().invoke(app, [], prog_name="backport", env=env).output.split()

    known = [one.id for one in listed]
    assert completed("repo", "rollback", "--target", "f28", "2026") == known
    assert completed("repo", "show", "--target", "f28", "20261123") == known[1:]
    assert completed("repo", "diff", "--target", "f28", "l") == ["latest"]
    assert completed("repo", "show", "2026") == []
    assert completed("repo", "verify", "--target", "f82", "2026") == []
