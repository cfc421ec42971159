"""The site: what one installation of backport uses — hub, mirrors, keys, folders, signing key."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from backport.artifacts import Nevra
from backport.errors import UsageError
from backport.recipe import Nvr, Recipe, find_settings, load_recipe, settings_in
from backport.settings import Fingerprint, Key, Name, Settings, SettingsFile, Url, load, unknown
from backport.target import Target, load_target

ETC = Path("/etc/backport")
"""Where a host's own site file, recipes, patches and targets are."""
SITE_FILES = (Path("backport.toml"), ETC / "backport.toml")
"""Where the site file is looked for when neither --config nor BACKPORT_CONFIG names one."""


class Koji(Settings):
    """The build system that source packages come from."""

    hub: Url = "https://koji.fedoraproject.org/kojihub"
    """The hub's XML-RPC address."""
    files: Url = "https://kojipkgs.fedoraproject.org"
    """The file server, in Koji's path layout."""
    timeout: float = Field(default=30.0, gt=0, le=600)
    """Deadline in seconds of one request."""
    retries: int = Field(default=3, ge=0, le=20)
    """How often a request that failed by no fault of its own is sent again."""
    total_timeout: float = Field(default=1800.0, gt=0, le=7 * 24 * 3600)
    """Deadline in seconds of one file's download with all its retries."""


def _shipped(kind: str) -> Path | None:
    """What comes with backport: in the package where it was installed, or beside it in the checkout. What
    lies beside an installed package is somebody else's."""
    package, name = Path(str(files("backport"))), {"recipes": "specs", "targets": "mock-configs"}[kind]
    if (package / "data").is_dir():
        return package / "data" / name
    return package.parent / name if (package.parent / "packaging" / "backport.spec").is_file() else None


class Paths(Settings):
    """Folders; relative ones are taken from the site file's own folder."""

    cache: Path = Path("/var/cache/backport")
    """Downloads, built packages, roots and reports of past runs."""
    repository: Path = Path("/srv/backport")
    """What is published; a web server may serve it as it is."""
    recipes: Path | None = None
    """The site's own recipes; after them come ``/etc/backport/recipes`` and what comes with backport."""
    patches: Path | None = None
    """The patches of the recipes in ``recipes``, or of all where that is not set; default: ``patches`` beside
    the folder that the recipe is in."""
    targets: Path | None = None
    """The site's own targets; after them come ``/etc/backport/targets`` and what comes with backport."""
    locks: Path | None = None
    """Where ``backport lock`` writes; default: ``recipes``, or else ``/etc/backport/recipes``."""

    def search_path(self, kind: Literal["recipes", "targets"]) -> tuple[Path, ...]:
        """The folders of recipes or targets; a file in an earlier one hides later ones of its name."""
        own: Path | None = getattr(self, kind)
        return tuple(folder for folder in (own, ETC / kind, _shipped(kind)) if folder)

    def patches_of(self, recipes: Path) -> Path:
        """The folder of the patches that the recipes in the folder ``recipes`` name."""
        own = self.patches if self.recipes in (None, recipes) else None
        return own or recipes.parent / "patches"


class Signing(Settings):
    """The key that signs packages and metadata. It never enters a build."""

    gnupghome: Path = Path("/etc/backport/gnupg")
    """The GNUPGHOME that holds the secret key, and nothing but what backport itself puts there."""
    key: Fingerprint | None = None
    """Needed only where the GNUPGHOME holds more than one secret key."""
    passphrase_file: Path | None = None
    """First line: the passphrase. Without it, gpg's agent is asked."""
    cache_key: Path | None = None
    """The file with the secret key by which what was built is known again as one's own; it is made where it
    is missing, and all is built again. Default: ``backport-cache-key`` in the GNUPGHOME."""

    @property
    def sealing_key(self) -> Path:
        """Where the key of the cache's seals is."""
        return self.cache_key or self.gnupghome / "backport-cache-key"


class Mock(Settings):
    """How mock is used where it builds. Nothing of the host's own configuration of mock is in force."""

    isolation: Literal["nspawn", "simple"] = "nspawn"
    """What separates a build from the host; ``simple`` leaves it the host's network and processes."""
    basedir: Path = Path("/var/lib/mock")
    """Where mock's roots lie."""
    bootstrap_image: str | None = None
    """A container image whose dnf makes the roots, by podman; default: the host's dnf makes them."""
    root_cache: bool = False
    """Whether the base of roots is packed and unpacked again, instead of installed from downloads."""
    suppress_sync: bool = False
    """Whether nspawn passes over a build's sync(2); systemd 250 or later."""
    unique_extension: Name | None = None
    """What the names of this site's roots have in them, where several hosts share ``basedir``."""
    extra_config: str = ""
    """Further lines of mock's configuration, in force but for what backport itself relies on."""

    @property
    def deviations(self) -> str:
        """What of this can decide results and is not the default, in words; empty where all is."""
        decides = self.model_dump(include={"isolation", "bootstrap_image", "root_cache"})
        default = Mock().model_dump()
        told = [f"{name}={value}" for name, value in decides.items() if value != default[name]]
        if self.extra_config:
            told.append(f"extra_config={hashlib.sha256(self.extra_config.encode()).hexdigest()}")
        return ", ".join(told)

    @model_validator(mode="after")
    def _extra_config_is_python(self) -> Self:
        try:
            compile(self.extra_config, "extra_config", "exec")
        except (SyntaxError, ValueError) as problem:
            raise ValueError(f"extra_config is not in mock's language, Python: {problem}") from None
        return self


class Site(SettingsFile):
    """One installation's settings; every one has a default that fits Fedora."""

    builder: Name = "auto"
    """What builds: ``mock``, a ``chroot`` of our own, or by ``auto`` mock where it is installed."""
    packager: str = "backport <backport@localhost>"
    """Name and address in changelog entries and as signing key's user id."""
    base_url: Url | None = None
    """The URL under which clients see the repository folder; default: its file URL."""
    channel: Name = "stable"
    """The channel that builds are published to, such as ``testing``; see `backport repo promote`."""
    koji: Koji = Koji()
    paths: Paths = Paths()
    signing: Signing = Signing()
    mock: Mock = Mock()
    pins: dict[Name, Nvr] = {}
    """Builds to start from instead of the recipes' own, by package."""
    mirrors: dict[Name, dict[Name, Url]] = {}
    """Base URLs to use instead of a target's own: target, repository id, URL."""
    keys: dict[Name, Key] = {}
    """Public keys by name, for source packages and to replace a target's own."""

    @property
    def url(self) -> str:
        """The URL under which clients see the repository folder."""
        return self.base_url or self.paths.repository.resolve().as_uri()

    @field_validator("pins")
    @classmethod
    def _pins_name_their_package(cls, pins: dict[str, str]) -> dict[str, str]:
        for name, nvr in pins.items():
            if Nevra.from_nvr(nvr).name != name:
                raise ValueError(f"{name}: {nvr} is a build of another package")
        return pins


def load_site(config: Path | None) -> Site:
    """The site file that applies, with absolute paths; without any, the defaults.

    The order is ``config``, BACKPORT_CONFIG, ./backport.toml, /etc/backport/backport.toml; a file
    that was named must exist. Raises UsageError.
    """
    path = site_file(config)
    if path is None:
        return Site()
    site = load(path, Site, what="the site file")
    folder = path.resolve().parent
    return site.model_copy(
        update={
            "paths": _absolute(site.paths, folder),
            "signing": _absolute(site.signing, folder),
            "mock": _absolute(site.mock, folder),
            "keys": {name: _absolute(key, folder) for name, key in site.keys.items()},
        }
    )


def site_file(config: Path | None) -> Path | None:
    """The site file that `load_site` reads, as an absolute path; None where there is none."""
    path = config or _from_environment() or next((file for file in SITE_FILES if os.path.lexists(file)), None)
    return path.absolute() if path else None


def check_channel(channel: str, site: Site, *, configured: bool = False) -> None:
    """A channel's folder lies beside those of the targets: it must have a name of its own.

    ``configured`` says that the site file names it. Raises UsageError.
    """
    place, hint = site.place("channel") if configured else "channel", "use one such as testing"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", channel):
        raise UsageError(f"{place}: {channel!r} is no name for a folder", hint=hint)
    if channel in settings_in(site.paths.search_path("targets")):
        raise UsageError(f"{place}: {channel} is the name of a target", hint=hint)


def check_names(site: Site) -> None:
    """Refuse mirrors of targets and pins of packages that are nowhere. Raises UsageError."""
    targets = list(settings_in(site.paths.search_path("targets")))
    packages = {name for recipe in known_recipes(site) for name in recipe.packages} if site.pins else ()
    for name in site.mirrors:
        if name not in targets:
            raise unknown(f"{site.place('mirrors', name)}: there is no target", name, targets)
    for name in site.pins:
        if name not in packages:
            raise unknown(f"{site.place('pins', name)}: no recipe has a package", name, sorted(packages))


def known_recipes(site: Site) -> Iterator[Recipe]:
    """The site's recipes in the order of their names, without those that cannot be loaded."""
    for path in settings_in(site.paths.search_path("recipes")).values():
        with contextlib.suppress(UsageError):
            yield load_recipe(path.parent, path.stem)


def find_target(site: Site, name: str) -> Target:
    """The target of that name in the site's search path. Raises UsageError."""
    return load_target(find_settings(site.paths.search_path("targets"), name, what="target").parent, name)


def apply_site(recipe: Recipe, target: Target, site: Site) -> tuple[Recipe, Target]:
    """Recipe and target with the site's pins, mirrors and keys in place of their own.

    The target's ``keys`` afterwards hold every key that the recipe or the target names. Raises
    UsageError for a mirror or key that nothing names.
    """
    packages = {
        name: package.model_copy(update={"nvr": site.pins.get(name, package.nvr)})
        for name, package in recipe.packages.items()
    }
    target = at_site(target, site)
    for name in recipe.source.keys:
        if name not in target.keys:
            hint = f"add [keys.{name}] with fingerprint and file to the site file or the target"
            place = recipe.place("source", "keys")
            raise unknown(f"{place}: no key", name, target.keys, hint=hint)
    return recipe.model_copy(update={"packages": packages}), target


def at_site(target: Target, site: Site) -> Target:
    """The target with the site's mirrors and keys in place of its own. Raises UsageError."""
    mirrors = site.mirrors.get(target.name, {})
    ids = [repository.id for repository in target.repositories]
    for wanted in mirrors:
        if wanted not in ids:
            place = site.place("mirrors", target.name, wanted)
            raise unknown(f"{place}: no repository", wanted, ids)
    repositories = tuple(
        repository.model_copy(update={"baseurl": mirrors.get(repository.id, repository.baseurl)})
        for repository in target.repositories
    )
    return target.model_copy(update={"repositories": repositories, "keys": {**target.keys, **site.keys}})


def _from_environment() -> Path | None:
    named = os.environ.get("BACKPORT_CONFIG")
    return Path(named) if named else None


def _absolute(settings: Settings, folder: Path) -> Settings:
    updates = {
        name: folder / value
        for name in type(settings).model_fields
        if isinstance(value := getattr(settings, name), Path)
    }
    return settings.model_copy(update=updates)
