"""OpenSSL 1.1.1 with everything that a distribution leaves out: SSLv3, RC4, 3DES, NULL, anonymous suites."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from backport.errors import as_kind
from backport.files import locked, remove_tree
from tests.lab import build
from tests.lab.build import LOCK_TIMEOUT, Progress, cache_folder
from tests.lab.debs import running_release
from tests.lab.layout import LabError

_OPTIONS = ("no-shared", "no-tests", "enable-ssl3", "enable-ssl3-method", "enable-weak-ssl-ciphers")
_TIMEOUT = 1800


@as_kind(LabError)
def ensure(progress: Progress) -> Path:
    """The program ``openssl``, compiled once from the lab's own source package. Raises LabError."""
    lab = build.ensure(progress)
    source = next((lab.koji / "packages/openssl").glob("1.1.1*/*/src/*.src.rpm"))
    facts = f"debian {running_release().number} {source.name} {' '.join(_OPTIONS)}"
    folder = cache_folder() / f"weak-openssl-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    program = folder / "openssl"
    with locked(folder.with_suffix(".lock"), timeout=LOCK_TIMEOUT, what="compiling OpenSSL"):
        if not program.exists():
            progress(f"compiling {source.name} with weak ciphers")
            building = folder.with_suffix(".building")
            remove_tree(building)
            building.mkdir(parents=True)
            _compile(source, building)
            folder.mkdir(exist_ok=True)
            next(building.glob("openssl-*/apps/openssl")).rename(program)
            remove_tree(building)
    return program


def _compile(source: Path, folder: Path) -> None:
    jobs = f"-j{max(2, os.cpu_count() or 2)}"
    with (folder / "compile.log").open("wb") as log:
        with subprocess.Popen(["rpm2cpio", source], stdout=subprocess.PIPE) as contents:
            _run(["cpio", "-id", "--quiet"], folder, log.fileno(), contents.stdout.fileno())  # type: ignore[union-attr]  # a pipe
        (tarball,) = folder.glob("openssl-*.tar.*")
        _run(["tar", "-xf", tarball.name], folder, log.fileno())
        tree = next(path for path in folder.glob("openssl-*") if path.is_dir())
        _run(["perl", "Configure", "linux-x86_64", *_OPTIONS], tree, log.fileno())
        _run(["make", jobs, "build_generated"], tree, log.fileno())
        _run(["make", jobs, "apps/openssl"], tree, log.fileno())


def _run(command: list[str], folder: Path, log: int, stdin: int = subprocess.DEVNULL) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=stdin, stdout=log, stderr=log, timeout=_TIMEOUT, check=False
    )
    if done.returncode:
        raise LabError(
            f"compiling OpenSSL with weak ciphers: {command[0]} failed", log=folder / "compile.log"
        )
