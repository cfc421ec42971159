"""The order in which source packages are built, from what they and their binary packages need."""

from __future__ import annotations

import graphlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backport.errors import UsageError

_RICH_OPERATORS = frozenset({"and", "or", "if", "unless", "else", "with", "without"})
_COMPARISONS = frozenset({"<", "<=", "=", ">=", ">"})


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one source package needs to be built, and what its binary packages need and provide: names
    without versions."""

    build_requires: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    stock: frozenset[str] = frozenset()
    """Names that the target's own packages satisfy well enough, so that nothing waits for them."""


def build_order(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    """The packages, each behind all those that it needs.

    A package needs another one when a name that it build-requires, or that its binary packages
    require, is provided by a binary package of the other one. Packages that need nothing of each
    other keep the order of their names. File names are matched only where they are provided by name.

    Raises UsageError for a cycle, which it names.
    """
    providers: dict[str, set[str]] = {}
    for package, node in nodes.items():
        for name in node.provides:
            providers.setdefault(name, set()).add(package)
    needs = {package: _needs(package, nodes[package], providers) for package in sorted(nodes)}
    sorter = graphlib.TopologicalSorter(needs)
    try:
        sorter.prepare()
    except graphlib.CycleError as problem:
        raise _cycle_error(list(reversed(problem.args[1])), nodes) from None
    return tuple(_drain(sorter))


def _drain(sorter: graphlib.TopologicalSorter[str]) -> Iterator[str]:
    """One package at a time, always the first by name of those that wait for nothing."""
    ready = set(sorter.get_ready())
    while ready:
        package = min(ready)
        ready.remove(package)
        yield package
        sorter.done(package)
        ready.update(sorter.get_ready())


def _needs(package: str, node: Node, providers: Mapping[str, set[str]]) -> list[str]:
    found = {
        provider
        for dependency in (*node.build_requires, *node.requires)
        for name in names_in(dependency)
        if name not in node.stock
        for provider in providers.get(name, ())
    }
    return sorted(found - {package})


def names_in(dependency: str) -> tuple[str, ...]:
    """The names in a dependency: itself, or all of those in a rich one, whichever rpm would choose.

    >>> names_in("openssl-devel"), names_in("(gnupg2 >= 2.2 or (sequoia if rust))")
    (('openssl-devel',), ('gnupg2', 'sequoia', 'rust'))
    """
    if not dependency.startswith("("):
        return (dependency,)
    names = []
    after_comparison = False
    for word in _words(dependency):
        if not after_comparison and word not in _RICH_OPERATORS | _COMPARISONS:
            names.append(word)
        after_comparison = word in _COMPARISONS
    return tuple(names)


def _words(rich: str) -> list[str]:
    """The words of a rich dependency, without the parentheses of its terms but with those of names."""
    words = []
    for word in rich.split():
        bare = word.lstrip("(")
        while bare.endswith(")") and bare.count(")") > bare.count("("):
            bare = bare[:-1]
        words.append(bare)
    return [word for word in words if re.search(r"[^()]", word)]


def _cycle_error(cycle: list[str], nodes: Mapping[str, Node]) -> UsageError:
    reasons = [
        f"{package} needs {_reason(nodes[package], nodes[needed])} from {needed}"
        for package, needed in itertools.pairwise(cycle)
    ]
    return UsageError(
        f"no build order: {' → '.join(cycle)}: {'; '.join(reasons)}",
        hint="if the target's own package will do for one of these, say so with `stock` in the recipe",
    )


def _reason(package: Node, needed: Node) -> str:
    """The first name that makes one package need the other."""
    dependencies = (*package.build_requires, *package.requires)
    names = {name for dependency in dependencies for name in names_in(dependency)} - package.stock
    return min(names & set(needed.provides))
