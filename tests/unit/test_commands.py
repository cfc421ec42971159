from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from backport.commands import app
from backport.errors import (
    BackportError,
    BuildError,
    FetchError,
    HostError,
    Interrupted,
    PatchError,
    PublishError,
    SelfTestError,
    SignError,
    UsageError,
)

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

    def search(_koji: object, _pattern: str, *, tags: list[str], hint: str) -> tuple[()]:
        asked.append((tags, hint))
        return ()

    monkeypatch.setattr("backport.sources.resolve.search", search)
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
    assert "\\b" not in result.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(command: tuple[str, ...]) -> None:
    assert f"`{' '.join(command)}" in README


def test_exit_codes_are_as_the_readme_says() -> None:
    kinds: list[type[BackportError]] = [
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
    assert {str(kind.exit_code) for kind in kinds} <= set(documented)


@pytest.mark.parametrize(
    "arguments", [["bild"], ["build"], ["build", "openssl"], ["build", "--targt", "f28"]]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_help_and_the_schema_need_no_site_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKPORT_CONFIG", str(tmp_path / "missing.toml"))
    for kind in ("recipe", "target", "site"):
        result = CliRunner().invoke(app, ["schema", kind])
        assert result.exit_code == 0
        assert '"properties"' in result.output
