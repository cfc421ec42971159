"""The real parts that end-to-end tests share: the lab, built once, its servers, and the older release."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backport.site import Signing, at_site, find_target, load_site
from backport.target import Target
from tests.e2e.examined import Parts, make_parts
from tests.e2e.shelf import Publisher, Shelf, small_key
from tests.lab.build import ensure
from tests.lab.layout import Lab
from tests.lab.serve import Served, served


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The offline lab; it takes some minutes where it has not been built yet."""
    if os.geteuid():
        pytest.fail("end-to-end tests make roots, which needs root")
    return ensure(lambda line: print(line, file=sys.stderr, flush=True))


@pytest.fixture(scope="session")
def services(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The lab's repositories and Koji on loopback, with a site file for them."""
    with served(lab, tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture(scope="session")
def f28(services: Served) -> Target:
    """The target f28 as the lab's site file makes it: the lab's repositories and keys."""
    site = load_site(services.site)
    return at_site(find_target(site, "f28"), site)


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    """A small key that a module's tests share."""
    signing = Signing(gnupghome=tmp_path_factory.mktemp("gnupg"))
    small_key(signing)
    return signing


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, signing: Signing, f28: Target) -> Shelf:
    """Tiny packages for the target, signed by that key, made once."""
    return Shelf(tmp_path_factory.mktemp("shelf"), signing, f28)


@pytest.fixture
def publisher(tmp_path: Path, signing: Signing, f28: Target) -> Publisher:
    """A repository of a test's own, to which that key publishes."""
    return Publisher(repository=tmp_path / "repository", signing=signing, target=f28, notes=[])


@pytest.fixture(scope="session")
def root_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that the tests' roots share, so that base roots are made once."""
    return tmp_path_factory.mktemp("roots")


@pytest.fixture(scope="session")
def parts(lab: Lab, f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The backported OpenSSL as a signed candidate, with all that an examination of it takes."""
    return make_parts(lab, f28, cache=root_cache, folder=tmp_path_factory.mktemp("candidate"))
