"""Source packages: asked for at a source, fetched, locked, put in order.

`SOURCES` is the only place that knows which kinds of sources there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from backport.recipe import Recipe
from backport.settings import unknown
from backport.site import Site, known_recipes
from backport.sources.koji.builds import KojiSource
from backport.sources.offers import Found, Offer

__all__ = ["SOURCES", "Found", "Offer", "Source", "choose_source", "search"]


class Source(Protocol):
    """Where source packages come from. Every method raises FetchError."""

    @property
    def name(self) -> str:
        """What people call it, such as ``the hub``."""

    @property
    def address(self) -> str:
        """The URL at which it is asked."""

    def wanted(self, recipe: Recipe) -> tuple[str, ...]:
        """The recipe's packages as this source names them, in the recipe's order."""

    def ask(self, recipe: Recipe, *, arch: str) -> tuple[Offer, ...]:
        """The source packages that the recipe starts from, in its order, in as few requests as there can be.

        Binary packages are looked at for ``arch``, and only where several have to be put in order.
        """

    def search(
        self, pattern: str, places: Sequence[str], *, recipes: Sequence[Recipe], tell: Callable[[str], object]
    ) -> tuple[Found, ...]:
        """Packages whose name fits the pattern, and what each of the places has of them.

        Without ``places`` it looks in those of the recipes. ``tell`` is told what was left out.
        """

    def version(self) -> str:
        """What answers at the address, with its version, within seconds: for `backport doctor`."""


SOURCES: Mapping[str, Callable[[Site], Source]] = {"koji": KojiSource.of}
"""The kinds of sources, and what makes one of a site's settings."""


def choose_source(recipe: Recipe, site: Site) -> Source:
    """The source of the recipe's packages. Raises UsageError for a kind that there is not."""
    kind = recipe.source.kind
    if kind not in SOURCES:
        raise unknown(f"{recipe.place('source', 'kind')}: there is no kind of source", kind, SOURCES)
    return SOURCES[kind](site)


def search(
    site: Site, pattern: str, places: Sequence[str], *, tell: Callable[[str], object]
) -> tuple[Found, ...]:
    """What `Source.search` finds at every source of the site. Raises FetchError."""
    recipes = [] if places else list(known_recipes(site))
    return tuple(
        found
        for make in SOURCES.values()
        for found in make(site).search(pattern, places, recipes=recipes, tell=tell)
    )
