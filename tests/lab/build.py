"""The whole lab: built once, keyed by its inputs, put in its place by one rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from backport.errors import as_kind
from backport.files import locked, remove_tree
from backport.settings import Key
from tests.lab.compile import build_stock, older_release
from tests.lab.debs import Apt, Release, running_release
from tests.lab.fedora import make_fedora
from tests.lab.keys import Keyring
from tests.lab.layout import OLD_DIST, Lab, LabError
from tests.lab.rpms import PACKAGES, build_specs, create_repository
from tests.lab.sources import make_koji

Progress = Callable[[str], None]

LOCK_TIMEOUT = 1800.0
"""How long another builder of the same lab is waited for, in seconds."""
_INPUTS = ("build", "compile", "debs", "fedora", "keys", "layout", "repackage", "rpms", "sources")
"""The modules that decide what a lab holds; the others only use it."""


def cache_folder() -> Path:
    """Where labs are kept: ``BACKPORT_LAB_CACHE``, or the user's cache folder."""
    named = os.environ.get("BACKPORT_LAB_CACHE")
    parent = Path(named or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    return parent / "backport-lab"


def lab_key(release: Release) -> str:
    """What a lab is known by: a digest of the Debian release and of every file that it is made from.

    The versions of Debian's packages are no part of it: a lab that is there needs no network.
    """
    digest = hashlib.sha256(f"debian {release.number}\n".encode())
    folder = Path(__file__).parent
    files = [folder / f"{name}.py" for name in _INPUTS]
    for path in files + sorted(path for path in PACKAGES.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def whole_lab() -> Lab | None:
    """The lab for this checkout and this host, when it has been built."""
    path = cache_folder() / lab_key(running_release())
    return Lab(path=path) if path.is_dir() else None


@as_kind(LabError)
def ensure(progress: Progress) -> Lab:
    """The lab, built now unless it is there. ``progress`` gets one line for each step.

    A folder appears under its final name only when it is whole. Raises LabError.
    """
    release = running_release()
    cache, key = cache_folder(), lab_key(release)
    with locked(cache / f"{key}.lock", timeout=LOCK_TIMEOUT, what="building the lab"):
        lab = Lab(path=cache / key)
        if not lab.path.is_dir():
            building = cache / f"{key}.building"
            remove_tree(building)
            _Build(building, release, progress).run()
            building.rename(lab.path)
        return lab


def clean() -> None:
    """Remove every lab of this user, whole or not."""
    remove_tree(cache_folder())


class _Build:
    """One lab in the making, in a folder of its own; after a failure it stays for its logs."""

    def __init__(self, folder: Path, release: Release, progress: Progress) -> None:
        self._folder, self._release, self._progress = folder, release, progress
        self._scratch, self._logs = folder / "scratch", folder / "logs"
        self._fedora, self._updates = folder / "repos/fedora", folder / "repos/updates"
        self._seconds: dict[str, float] = {}
        self._started = time.monotonic()

    def run(self) -> None:
        """Make everything, and leave nothing behind that a finished lab does not need."""
        self._updates.mkdir(parents=True)
        with ThreadPoolExecutor(max_workers=2) as pool:
            keyring, debs, nvrs = self._make(pool)
        fingerprints = dict(keyring.fingerprints)
        info = {
            "debian": self._release.number,
            "debian_packages": debs,
            "fingerprints": fingerprints,
            "builds": nvrs,
            "stock": sorted(path.name for path in self._updates.glob("*.rpm")),
            "seconds": {name: round(seconds, 1) for name, seconds in self._seconds.items()},
        }
        remove_tree(self._scratch)
        (self._folder / "info.json").write_text(json.dumps(info, indent=1))
        self._progress(f"{time.monotonic() - self._started:5.0f} s  the lab is whole")

    def _make(self, pool: ThreadPoolExecutor) -> tuple[Keyring, list[str], list[str]]:
        keys: Future[Keyring] = pool.submit(self._make_keys)
        with self._step("Debian's package lists and sources"):
            apt = Apt(self._scratch / "apt", release=self._release, log=self._logs / "apt.log")
            apt.update()
            openssl = self._tarball(apt, "openssl", "openssl", prefix="1.1.1")
            exim = self._tarball(apt, "exim4", "exim", prefix="4.96")
        with self._step("the repository fedora, from Debian's packages"):
            debs = make_fedora(apt, self._fedora, self._scratch / "fedora", logs=self._logs)
        keyring = keys.result()
        with self._step("the repository fedora, signed"):
            keyring.sign("fedora-28", sorted(self._fedora.glob("*.rpm")))
            create_repository(self._fedora, log=self._logs / "createrepo.log")
        koji = pool.submit(
            make_koji,
            self._folder / "koji",
            self._scratch / "koji",
            [openssl],
            keyring,
            log=self._logs / "koji.log",
        )
        with self._step("the repository updates: stock OpenSSL, and Exim against it"):
            self._make_updates(keyring, openssl, exim)
        nvrs = koji.result()
        with self._step("the repository updates, signed"):
            keyring.sign("fedora-28", sorted(self._updates.glob("*.rpm")))
            create_repository(self._updates, log=self._logs / "createrepo.log")
        keyring.close()
        return keyring, debs, nvrs

    def _make_keys(self) -> Keyring:
        keyring = Keyring(self._folder / "private/gnupg", log=self._logs / "keys.log")
        keyring.export(self._folder / "keys")
        return keyring

    def _tarball(self, apt: Apt, source: str, name: str, *, prefix: str = "") -> Path:
        """Upstream's tarball under the name that upstream gave it."""
        path = apt.download_source(source, prefix=prefix)
        version, _, compression = path.name.removeprefix(f"{source}_").partition(".orig.")
        return path.rename(path.with_name(f"{name}-{version}.{compression}"))

    def _make_updates(self, keyring: Keyring, openssl: Path, exim: Path) -> None:
        specs = [PACKAGES / "crypto-policies-stock" / "crypto-policies.spec"]
        build_specs(
            specs, self._updates, self._scratch / "noarch", dist=OLD_DIST, log=self._logs / "noarch.log"
        )
        create_repository(self._updates, log=self._logs / "createrepo.log")
        key = Key(fingerprint=keyring.fingerprints["fedora-28"], file=self._folder / "keys" / "fedora-28.asc")
        build_stock(
            older_release(self._fedora, key),
            self._updates,
            self._scratch / "stock",
            openssl=openssl,
            exim=exim,
            log=self._logs / "stock.log",
        )

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        now = time.monotonic()
        self._seconds[name] = now - started
        self._progress(f"{now - self._started:5.0f} s  {name} ({now - started:.0f} s)")
