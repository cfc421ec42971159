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
    for kind in ("recipe", "target", "site", "probe", "selftest", "maillog"):
        result = CliRunner().invoke(app, ["schema", kind])
        assert result.exit_code == 0
        assert '"properties"' in result.output
