"""A job: one recipe for one target at one site, loaded and validated before anything is touched."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from backport import builders, gates
from backport.artifacts import PatchedSrpm, Rpm
from backport.errors import UsageError
from backport.files import digest_of
from backport.recipe import Recipe, find_settings, load_recipe
from backport.settings import Key, Settings, did_you_mean
from backport.site import ETC, Site, apply_site, check_channel, check_names, find_target, load_site
from backport.sources import Source, choose_source
from backport.target import Target

BUILDING = ("builders/", "roots/", "templates/dnf.conf", "templates/mock.cfg", "templates/repositories")
"""How the names of those files begin whose code decides what comes of a patched source package."""
_TELLING = (
    "__main__", "__init__", "commands/", "data/", "doctor", "maillog/", "plan", "rehearsal",
    "repository/page", "repository/overview", "templates/index", "templates/repository", "templates/style",
)  # fmt: skip
"""And those that decide no result: they show one, or begin something."""


class Stage(StrEnum):
    """The stages of a run, in their order."""

    RESOLVE = "resolve"
    FETCH = "fetch"
    PATCH = "patch"
    BUILD = "build"
    SIGN = "sign"
    SELF_TEST = "self-test"
    GATES = "gates"
    PUBLISH = "publish"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What one run is about, with the site's pins, mirrors and keys already in place."""

    name: str
    recipe: Recipe
    recipes: Path
    """The folder that the recipe was found in."""
    target: Target
    site: Site

    @property
    def source_keys(self) -> tuple[Key, ...]:
        """The pinned keys of which one must have signed every source package."""
        return tuple(self.target.keys[name] for name in self.recipe.source.keys)

    @property
    def source(self) -> Source:
        """Where the source packages come from."""
        return choose_source(self.recipe, self.site)

    @property
    def lock_file(self) -> Path:
        """Where ``backport lock`` pins what was resolved: never in files that were installed."""
        paths = self.site.paths
        return (paths.locks or paths.recipes or ETC / "recipes") / f"{self.name}.lock"

    @property
    def lock_in_force(self) -> Path:
        """The site's lock, or else the one that lies beside the recipe, if there is any."""
        own = self.lock_file
        return own if os.path.lexists(own) else self.recipes / own.name

    @property
    def patches(self) -> Path:
        """The folder that the recipe's patches are below."""
        return self.site.paths.patches_of(self.recipes)

    @property
    def base_url(self) -> str:
        """The URL under which clients see the repository folder."""
        return self.site.url


def load_job(
    name: str,
    target_name: str | None,
    config: Path | None,
    *,
    builder: str | None = None,
    channel: str | None = None,
) -> Job:
    """Load and validate recipe, target and site together. Raises UsageError.

    Without a target's name it is the recipe's only one.
    """
    site = load_site(config)
    check_names(site)
    wishes = {"builder": builder, "channel": channel}
    site = site.model_copy(update={name: value for name, value in wishes.items() if value})
    recipes = find_settings(site.paths.search_path("recipes"), name, what="recipe").parent
    recipe = load_recipe(recipes, name)
    target_name = target_name or _only_target(name, recipe)
    target = find_target(site, target_name)
    if target_name not in recipe.targets:
        guess = did_you_mean(target_name, recipe.targets)
        raise UsageError(
            f"recipe {name!r} was not made for target {target_name!r}{guess}",
            hint=f"it is for: {', '.join(recipe.targets)}",
        )
    check_channel(site.channel, site, configured=channel is None)
    builders.check_name(site, configured=builder is None)
    gates.check_names(recipe)
    choose_source(recipe, site)
    recipe, target = apply_site(recipe, target, site)
    job = Job(name=name, recipe=recipe, recipes=recipes, target=target, site=site)
    _require_patches(name, recipe, job.patches)
    return job


def settings_inputs(job: Job, *, builder: str, signing_key: str) -> dict[str, str]:
    """Everything but the sources that decides a run's result, by a name that people understand.

    Addresses do not count: the same package from another mirror is the same package.
    """
    inputs = {
        "backport": code_digest(),
        "builder": builder,
        "signing key": signing_key,
        "target": target_digest(job.target),
        "source keys": ", ".join(sorted({key.fingerprint for key in job.source_keys})),
        "self-test": _digest(job.recipe.self_test),
        "gates": _digest(job.recipe.gates),
        "advisory": _digest(job.recipe.advisory),
    }
    for name, package in job.recipe.packages.items():
        inputs[f"{name} recipe"] = _digest(package)
        for patch in package.patches:
            inputs[f"{name} patch {patch.file}"] = digest_of(job.patches / patch.file)
    return inputs


def package_inputs(
    patched: PatchedSrpm,
    target: Target,
    *,
    builder: str,
    candidates: Iterable[Rpm],
    published: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Everything that decides the result of building one package.

    ``published`` is what its root takes of other recipes' packages, with their contents.
    """
    taken = {"published": repr(sorted(published.items()))} if published else {}
    return {
        **taken,
        "backport": code_digest(BUILDING),
        "builder": builder,
        "source": patched.sha256,
        "options": repr(patched.options),
        "target": target_digest(target),
        "candidates": ",".join(sorted(rpm.sha256 for rpm in candidates)),
    }


@functools.cache
def code_digest(parts: tuple[str, ...] = ()) -> str:
    """The digest over the tool's code in files whose names begin so, or over all that decides a result.

    A version would stay the same while the code changes, and change while the code does not.
    """
    digest = hashlib.sha256()
    for path, content in _code(resources.files("backport")):
        if path.startswith(parts) if parts else not path.startswith(_TELLING):
            digest.update(f"{path} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _code(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """The modules and templates below a folder of the package, with their paths."""
    for one in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if one.is_dir():
            yield from _code(one, f"{prefix}{one.name}/")
        elif one.name.endswith((".py", ".j2")):
            yield f"{prefix}{one.name}", one.read_bytes()


def target_digest(target: Target) -> str:
    """The digest of what a target is, without where its mirrors and key files happen to be."""
    repositories = [(repository.id, repository.keys) for repository in target.repositories]
    fingerprints = sorted((name, key.fingerprint) for name, key in target.keys.items())
    plain = target.model_dump_json(exclude={"repositories", "keys"})
    return hashlib.sha256(repr((plain, repositories, fingerprints)).encode()).hexdigest()


def _digest(settings: Settings) -> str:
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


def _only_target(name: str, recipe: Recipe) -> str:
    if len(recipe.targets) > 1:
        raise UsageError(
            f"recipe {name!r} is for several targets: {', '.join(recipe.targets)}", hint="choose by --target"
        )
    return recipe.targets[0]


def _require_patches(name: str, recipe: Recipe, folder: Path) -> None:
    for package_name, package in recipe.packages.items():
        for patch in package.patches:
            if not (folder / patch.file).is_file():
                known = [str(path.relative_to(folder)) for path in folder.glob("*/*.patch")]
                raise UsageError(
                    f"recipe {name!r}: packages.{package_name}.patches: {folder / patch.file} does not exist"
                    + did_you_mean(patch.file, known)
                )
