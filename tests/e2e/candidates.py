"""Candidate repositories as a run makes them before its self-test: signed packages, signed metadata."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backport import sign
from backport.artifacts import BuiltRpms, SignedRpms
from backport.recipe import Recipe, load_recipe
from backport.repodata import write_repodata
from backport.site import Signing, Site, apply_site
from backport.target import Target, load_target
from tests.lab.layout import KEY_NAMES, NEW_DIST, Lab

CHECKOUT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Signed packages and the repository that holds them."""

    signed: SignedRpms
    folder: Path


def lab_settings(lab: Lab, name: str = "openssl") -> tuple[Recipe, Target]:
    """A recipe and the target, with the lab's builds, repositories and keys."""
    mirrors = {"f28": {name: (lab.repositories / name).as_uri() for name in ("fedora", "updates")}}
    keys = {name: {"fingerprint": lab.fingerprint(name), "file": lab.key_file(name)} for name in KEY_NAMES}
    builds = [nvr for nvr in lab.info["builds"] if nvr.endswith(NEW_DIST)]
    pins = {nvr.rsplit("-", 2)[0]: nvr for nvr in builds}
    site = Site.model_validate({"mirrors": mirrors, "keys": keys, "pins": pins})
    recipe = load_recipe(CHECKOUT / "specs", name)
    return apply_site(recipe, load_target(CHECKOUT / "mock-configs", "f28"), site)


def make_candidate(
    built: Sequence[BuiltRpms], *, signing: Signing, target: Target, folder: Path
) -> Candidate:
    """Sign packages below ``folder`` and describe them as a repository with signed metadata."""
    if not signing.gnupghome.exists():
        sign.init_key(signing, "backport <backport@example.org>")
    signed = sign.sign(built, signing=signing, target=target, workspace=folder)
    repository = folder / "candidate"
    repository.mkdir()
    for rpm in signed.rpms:
        shutil.copy(rpm.path, repository)
    describe(repository, signing=signing)
    return Candidate(signed=signed, folder=repository)


def describe(repository: Path, *, signing: Signing) -> None:
    """Make a folder of packages a repository whose metadata is signed."""
    write_repodata(repository, compression="gz")
    sign.sign_file(repository / "repodata" / "repomd.xml", signing)
