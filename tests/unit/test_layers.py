"""The package's shape: imports go downward only, stages do not know each other, modules stay short."""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import backport

PACKAGE = Path(backport.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 500

MAP = Path(__file__).parent.parent.parent / "docs" / "architecture.md"


def layers() -> list[list[frozenset[str]]]:
    """The layers as docs/architecture.md shows them, from the top: each with its groups of parts."""
    (block,) = re.findall(r"^```layers\n(.*?)^```", MAP.read_text(), re.MULTILINE | re.DOTALL)
    lines = [re.split(r" {4,}", line)[0] for line in block.splitlines()]
    return [[frozenset(group.split()) for group in line.split("|")] for line in lines]


LAYERS = layers()


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """The syntax tree of a module, which every test of this file looks at."""
    return tuple(ast.walk(ast.parse(path.read_text())))


def part_of(path: Path) -> str:
    """The module or sub-package of ``backport`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    """Line and part of every import from ``backport``, wherever in the file it stands."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "backport":
            names = [f"backport.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            if name.startswith("backport.") and not name.startswith("backport.__version__"):
                yield node.lineno, name.split(".")[1]


def place_of(part: str) -> tuple[int, int]:
    """Layer (0 is the top) and group of a part; one that has no place yet fails."""
    places = (
        (number, index)
        for number, layer in enumerate(LAYERS)
        for index, group in enumerate(layer)
        if part in group
    )
    place = next(places, None)
    assert place is not None, f"{part} has no place in LAYERS"
    return place


def short(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_every_module_has_its_layer() -> None:
    known = {part for layer in LAYERS for group in layer for part in group}
    assert {part_of(path) for path in MODULES} - {"__init__"} == known


def test_imports_go_downward() -> None:
    upward = []
    for path in MODULES:
        if part_of(path) == "__init__":
            assert list(imports_of(path)) == []
            continue
        layer, group = place_of(part_of(path))
        for line, part in imports_of(path):
            other_layer, other_group = place_of(part)
            if other_layer < layer or (other_layer == layer and other_group != group):
                upward.append(f"{short(path)}:{line} imports {part}")
    assert upward == []


def test_the_probe_needs_neither_root_nor_bindings() -> None:
    """It works on any machine: it imports two libraries, and no part of ours that knows of more."""
    found, left = set(), [path for path in MODULES if part_of(path) == "probe"]
    libraries: set[str] = set()
    while left:
        path = left.pop()
        found.add(path)
        names = list(_modules_imported(path))
        libraries |= {name.partition(".")[0] for name in names}
        left += [other for name in names for other in _files_of(name) if other not in found]
    assert libraries - sys.stdlib_module_names == {"backport", "cryptography", "OpenSSL", "dns"}
    assert {part_of(path) for path in found} == {"probe", "artifacts", "errors", "printable", "__init__"}


def _modules_imported(path: Path) -> Iterator[str]:
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of(name: str) -> list[Path]:
    """The files of the package that an imported name may be about."""
    parts = name.split(".")
    if parts[0] != "backport":
        return []
    places = [PACKAGE.joinpath(*parts[1:end]) for end in range(1, len(parts) + 1)]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return [file for file in files if file.is_file()]


def test_the_table_alone_knows_the_kinds_of_sources() -> None:
    knowing = {
        short(path)
        for path in MODULES
        if any(name.startswith(("backport.sources.koji", "koji")) for name in _modules_imported(path))
    }
    assert {name for name in knowing if not name.startswith("sources/koji/")} == {"sources/__init__.py"}


def test_imports_make_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        part = part_of(path)
        graph.setdefault(part, set()).update(other for _, other in imports_of(path) if other != part)
    assert list(TopologicalSorter(graph).static_order())


def test_modules_can_be_read_in_one_sitting() -> None:
    assert [short(path) for path in MODULES if len(path.read_text().splitlines()) > MAX_LINES] == []


def calls_in(path: Path) -> set[str]:
    return {ast.unparse(node.func) for node in nodes_of(path) if isinstance(node, ast.Call)}


def test_only_the_entry_point_and_the_commands_print_or_exit() -> None:
    ending = {"print", "sys.exit", "exit", "quit", "os._exit"}
    below = [path for path in MODULES if part_of(path) not in ("__main__", "commands")]
    assert {short(path): found for path in below if (found := calls_in(path) & ending)} == {}


def test_only_run_starts_programs() -> None:
    starting = re.compile(r"subprocess\.|os\.(exec|spawn|posix_spawn|system$|popen$|fork$)")
    others = [path for path in MODULES if part_of(path) != "run"]
    assert {
        short(path): found for path in others if (found := {*filter(starting.match, calls_in(path))})
    } == {}
    assert [short(path) for path in others if any("subprocess." in name for name in _from(path))] == []


def _from(path: Path) -> Iterator[str]:
    tree = nodes_of(path)
    return (f"{node.module}." for node in tree if isinstance(node, ast.ImportFrom))
