"""Builders: they pack a patched source package and rebuild it, for every one in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from backport.artifacts import BuiltRpms
from backport.builders.chroot import ChrootBuilder
from backport.builders.common import BuildRequest
from backport.builders.mock import MockBuilder
from backport.errors import HostError
from backport.roots.root import Aftermath
from backport.run import find_program
from backport.settings import unknown
from backport.site import Site
from backport.target import Target

__all__ = ["BUILDERS", "BuildRequest", "Builder", "check_name", "choose_builder"]


class Builder(Protocol):
    """One way of building packages for a target."""

    program: ClassVar[str]
    """The program without which it cannot build."""

    @classmethod
    def at(cls, site: Site, target: Target, on_failure: Aftermath | None) -> Builder:
        """The builder for the target as the site has it; ``on_failure`` as in `choose_builder`."""

    @property
    def name(self) -> str:
        """The builder's name as settings have it."""

    @property
    def identity(self) -> str:
        """The name, with those of the builder's settings that can decide results."""

    def build(self, request: BuildRequest) -> BuiltRpms:
        """Build one package, in a root of the newest that the target's and the published repository hold.

        After a failure only the logs are left. Raises BuildError or one of its kinds, HostError where the
        host lacks something.
        """


BUILDERS: Mapping[str, type[Builder]] = {"mock": MockBuilder, "chroot": ChrootBuilder}
"""By the names that settings have for them; ``auto`` takes the first whose program is installed."""


def check_name(site: Site, *, configured: bool) -> None:
    """Refuse a builder that there is not. Raises UsageError.

    ``configured`` says that the site file names it, not ``--builder``.
    """
    if site.builder not in ("auto", *BUILDERS):
        place = site.place("builder") if configured else "--builder"
        raise unknown(f"{place}: there is no builder", site.builder, ["auto", *BUILDERS])


def choose_builder(site: Site, target: Target, *, on_failure: Aftermath | None = None) -> Builder:
    """The site's builder for the target.

    ``on_failure`` gets the root of a build that failed, but for mock's: it stays, and the hint of the failure
    has the command by which mock opens it.

    Raises HostError when the host lacks a program that the builder needs, or that the stages behind it need
    for their roots whichever builder it is.
    """
    *_, last = BUILDERS
    there = (name for name, builder in BUILDERS.items() if find_program(builder.program))
    builder = BUILDERS[next(there, last) if site.builder == "auto" else site.builder]
    for program in (builder.program, "dnf", "bwrap"):
        if not find_program(program):
            hint = "`backport doctor` names the package that brings it, or choose another `builder`"
            raise HostError(f"{program} is not installed on this host", hint=hint)
    return builder.at(site, target, on_failure)
