"""A target: the older release that packages are rebuilt for, as the one truth about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from backport.errors import UsageError
from backport.recipe import find_settings, settings_in
from backport.settings import Key, Name, Settings, SettingsFile, Url, load

PackageName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9/@][A-Za-z0-9._+/():-]*$")]
"""A package, file or capability that dnf can install."""


class Repository(Settings):
    """One of the target's own package repositories."""

    id: Name
    """The repository's id, as dnf and a site's ``mirrors`` name it."""
    baseurl: Url
    """May hold dnf's variables ``$basearch`` and ``$releasever``."""
    keys: tuple[Name, ...] = Field(min_length=1)
    """Names of the keys that sign its packages."""


class Target(SettingsFile):
    """The older release: where its packages are, what a build root holds, what its tools can read."""

    name: Name
    """The file's own name without ``.toml``; `--target` takes it, and the repository's folder has it."""
    summary: str
    """The release's full name."""
    releasever: Name
    """The value of dnf's ``$releasever``, such as ``28``."""
    dist: Annotated[str, StringConstraints(pattern=r"^\.[a-z]+[0-9]+([._+]?[a-z0-9]+)*$")]
    """The value of %dist, such as ``.fc28`` or ``.el9_4``: set for builds, and part of every release."""
    vendor: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")] | None = None
    """The namespace of package URLs, such as ``almalinux``. Default: what %dist says, ``fedora`` for
    ``.fc28``, ``redhat`` for ``.el9``, else its letters."""
    arch: Literal["x86_64", "aarch64", "ppc64le", "s390x"]
    """The architecture that is built for, as rpm and the host's kernel name it."""
    repositories: tuple[Repository, ...] = Field(min_length=1)
    keys: dict[Name, Key]
    buildroot: tuple[PackageName, ...] = Field(min_length=1)
    """What every build root starts with; an explicit list, since not every dnf reads comps groups."""
    compression: Literal["gz", "zstd"] = "gz"
    """Compression of published metadata: Fedora before 30 cannot read zstd."""
    signature_digest: Literal["sha256", "sha512"] = "sha256"
    """Digest of the signatures on packages and metadata that the target's rpm and gpg can verify."""

    @property
    def namespace(self) -> str:
        """The namespace of its packages' URLs."""
        return self.vendor or vendor_of(self.dist)

    @model_validator(mode="after")
    def _is_consistent(self) -> Target:
        ids = [repository.id for repository in self.repositories]
        if len(set(ids)) != len(ids):
            raise ValueError("repositories: every id must be unique")
        for repository in self.repositories:
            for key in repository.keys:
                if key not in self.keys:
                    raise ValueError(f"repository {repository.id}: key {key!r} is not among the keys")
        return self


def vendor_of(dist: str) -> str:
    """Whose packages have such a %dist, as package URLs name them.

    >>> vendor_of(".fc28"), vendor_of(".el9_4"), vendor_of(".amzn2023")
    ('fedora', 'redhat', 'amzn')
    """
    letters = re.match("[a-z]*", dist.removeprefix("."))
    name = letters[0] if letters else ""
    return {"fc": "fedora", "el": "redhat"}.get(name, name)


def load_targets(folders: Sequence[Path]) -> tuple[list[Target], dict[str, UsageError]]:
    """Every target in the folders that can be read, and what is wrong with the others, by name."""
    found, wrong = [], {}
    for name, path in settings_in(folders).items():
        try:
            found.append(load_target(path.parent, name))
        except UsageError as problem:
            wrong[name] = problem
    return found, wrong


def load_target(folder: Path, name: str) -> Target:
    """The target ``name`` from ``folder``. Raises UsageError."""
    path = find_settings((folder,), name, what="target")
    target = load(path, Target, what="a target")
    if target.name != name:
        raise UsageError(
            f"{target.place('name')}: {target.name!r} is not the name of the file",
            hint=f'write name = "{name}", or rename the file: what is published goes by this name',
        )
    return target
