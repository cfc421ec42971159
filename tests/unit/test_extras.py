"""What examining imports: the base dependencies, and nothing of what building needs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import backport
from backport.bindings import LIBRARIES

PACKAGE = Path(backport.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {"pyopenssl": "OpenSSL", "dnspython": "dns"}
BASE = {
    IMPORTED_AS.get(name.lower(), name)
    for name in (re.split(r"[>=\[]", line)[0] for line in PROJECT["dependencies"])
}


def imported(path: Path) -> Iterator[str]:
    """The modules that are imported with this one: not those of its functions, nor for types alone."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files_of(name: str) -> list[Path]:
    parts = name.split(".")[1:]
    places = [PACKAGE.joinpath(*parts[:end]) for end in range(len(parts) + 1)]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return [file for file in files if file.is_file()]


@pytest.mark.parametrize(
    "module", ["__main__", "commands.terminal", "commands.schemas", "commands.probe_view",
               "commands.maillog_view", "probe.examine", "maillog.tally", "doctor", "recipe"]
)  # fmt: skip
def test_the_base_dependencies_are_enough(module: str) -> None:
    left, seen, libraries = files_of(f"backport.{module}"), set[Path](), set[str]()
    assert left
    while left:
        path = left.pop()
        if path not in seen:
            seen.add(path)
            names = set(imported(path))
            libraries |= {name.partition(".")[0] for name in names}
            left += [file for name in names if name.startswith("backport.") for file in files_of(name)]
    assert libraries - sys.stdlib_module_names - {"backport"} <= BASE


def test_the_extra_brings_what_a_message_promises() -> None:
    brought = " ".join(PROJECT["optional-dependencies"]["build"])
    assert [library for library in LIBRARIES if library not in brought] == []
    assert BASE.isdisjoint(LIBRARIES)
