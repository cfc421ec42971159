"""Builders: they pack a patched source package and rebuild it, for every one in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from backport.artifacts import BuiltRpms
from backport.builders.chroot import ChrootBuilder
from backport.builders.common import BuildRequest
from backport.builders.mock import MockBuilder
from backport.errors import HostError
from backport.roots.root import Aftermath
from backport.run import find_program
from backport.site import Mock
from backport.target import Target

__all__ = ["BuildRequest", "Builder", "ChrootBuilder", "MockBuilder", "choose_builder"]


class Builder(Protocol):
    """One way of building packages for a target."""

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


def choose_builder(
    wanted: Literal["auto", "mock", "chroot"],
    *,
    target: Target,
    cache: Path,
    mock: Mock | None = None,
    on_failure: Aftermath | None = None,
) -> Builder:
    """The wanted builder for the target; ``auto`` takes mock where it is installed.

    ``on_failure`` gets the root of a build that failed, but for mock's: it stays, and the hint of the failure
    has the command by which mock opens it.

    Raises HostError when the host lacks a program that the builder needs, or that the stages behind it need
    for their roots whichever builder it is.
    """
    with_mock = wanted == "mock" or (wanted == "auto" and find_program("mock") is not None)
    if with_mock:
        _require("mock", hint="install mock (Fedora), or set `builder` to chroot")
    for program in ("dnf", "bwrap"):
        _require(program, hint="`backport doctor` names the packages that bring it")
    if with_mock:
        return MockBuilder(
            target=target, cache=cache, settings=mock or Mock(), keep_root=on_failure is not None
        )
    return ChrootBuilder(target=target, cache=cache, on_failure=on_failure)


def _require(program: str, *, hint: str) -> None:
    if not find_program(program):
        raise HostError(f"{program} is not installed on this host", hint=hint)
