"""The command line as a user starts it, with a site of its own in the lab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.serve import Served, write_site

DATA = Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command left: exit code, standard output and standard error."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A site of its own: cache, repository, key, and recipes that a test may change."""

    folder: Path
    site: Path

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def recipe(self) -> Path:
        return self.folder / "specs" / "hello.toml"

    def change(self, old: str, new: str, *, file: Path | None = None) -> None:
        path = file or self.recipe
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "backport", *arguments, "--config", str(self.site)]

    def run(self, *arguments: str, timeout: float = 300) -> Result:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )
        assert "Traceback" not in done.stderr
        return Result(code=done.returncode, output=done.stdout, errors=done.stderr)

    def build(self, *arguments: str) -> tuple[Result, dict[str, Any]]:
        result = self.run("build", "hello", "--target", "f28", "--json", *arguments)
        return result, json.loads(result.output) if result.output else {}

    def published(self) -> list[str]:
        return sorted(path.name for path in self.repository.glob("f28/current/**/*.rpm"))


def bench(services: Served, folder: Path, **overrides: Any) -> Bench:
    """A new site for the greeting recipe. ``overrides`` replace or add tables of its site file."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(DATA / "greeting", folder, dirs_exist_ok=True)
    targets = DATA.parent.parent / "mock-configs"
    shutil.copytree(targets, folder / "mock-configs", dirs_exist_ok=True)
    paths = {
        "cache": str(folder / "cache"),
        "repository": str(folder / "repository"),
        "recipes": "specs",
        "patches": "patches",
        "targets": "mock-configs",
    }
    site = write_site(
        folder,
        lab=services.lab,
        hub_url=services.hub_url,
        files_url=services.files_url,
        repos_url=services.repositories_url,
        **{"paths": paths, "pins": {}, **overrides},
    )
    return Bench(folder=folder, site=site)
