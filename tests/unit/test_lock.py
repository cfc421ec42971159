from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from backport.artifacts import Nevra, Rpm, SourceRpm
from backport.errors import FetchError, UsageError
from backport.site import Koji
from backport.sources.koji.copies import KojiCopy
from backport.sources.lock import Lock, check_lock, load_lock, write_lock
from backport.sources.offers import Offer

KEY = "5A03B4DD8254ECA02FDA1637A20AA56B429476B4"
NVR = "crypto-policies-20181026-1.gitd42aaa6.fc29"


@pytest.fixture
def source(tmp_path: Path) -> SourceRpm:
    path = tmp_path / f"{NVR}.src.rpm"
    path.write_bytes(b"package")
    return SourceRpm(
        rpm=Rpm(nevra=Nevra.from_nvr(NVR), path=path, sha256="a" * 64),
        url="https://files.example/",
        signing_key=KEY,
        build_requires=(),
        changelog_time=0,
    )


@pytest.fixture
def lock(source: SourceRpm, tmp_path: Path) -> Lock:
    path = tmp_path / "lock.toml"
    write_lock(path, [source])
    lock = load_lock(path)
    assert lock is not None
    return lock


def build(nvr: str = NVR, *, sha256: str = "a" * 64, sigkey: str = "429476b4") -> Offer:
    nevra = Nevra.from_nvr(nvr)
    copy = KojiCopy(koji=Koji(), nevra=nevra, size=7, key=sigkey, sha256=sha256)
    return Offer(nevra=nevra, identity=nvr, size=7, copies=(copy,), told_by="hub", origin={})


def test_lock_holds_what_was_resolved(lock: Lock) -> None:
    package = lock.packages["crypto-policies"]
    assert package.nvr == NVR
    assert (package.file, package.size, package.sha256, package.key) == (f"{NVR}.src.rpm", 7, "a" * 64, KEY)


def test_missing_lock_is_none_and_a_broken_one_an_error(tmp_path: Path) -> None:
    assert load_lock(tmp_path / "none.toml") is None
    broken = tmp_path / "broken.toml"
    broken.write_text('format = 1\n[packages.openssl]\nnvr = "openssl-1-1"\n')
    with pytest.raises(UsageError, match=r"broken\.toml:\d+: packages\.openssl"):
        load_lock(broken)


def test_same_package_passes(lock: Lock, source: SourceRpm) -> None:
    check_lock(lock, source, path=Path("lock.toml"))
    check_lock(lock, build(), path=Path("lock.toml"))
    check_lock(lock, build(sha256="b" * 64, sigkey="12345678"), path=Path("lock.toml"))


@pytest.mark.parametrize(
    ("found", "locked", "is_"),
    [
        (build("crypto-policies-20181122-1.fc29"), NVR, "crypto-policies-20181122-1.fc29"),
        (build(sha256="b" * 64), "a" * 64, "b" * 64),
    ],
    ids=["nvr", "digest"],
)
def test_another_build_is_refused_before_the_download(
    lock: Lock, found: Offer, locked: str, is_: str
) -> None:
    with pytest.raises(FetchError, match=f"locked to {locked}, but is {is_}"):
        check_lock(lock, found, path=Path("lock.toml"))


def test_another_file_or_key_is_refused(lock: Lock, source: SourceRpm) -> None:
    other_file = dataclasses.replace(source, rpm=dataclasses.replace(source.rpm, sha256="c" * 64))
    with pytest.raises(FetchError, match=r"SHA-256 is locked to a{64}, but is c{64}"):
        check_lock(lock, other_file, path=Path("lock.toml"))
    with pytest.raises(FetchError, match=f"signing key is locked to {KEY}"):
        check_lock(lock, dataclasses.replace(source, signing_key="B" * 40), path=Path("lock.toml"))


def test_package_that_is_not_locked_is_refused(lock: Lock) -> None:
    with pytest.raises(FetchError, match=r"lock\.toml: holds no openssl"):
        check_lock(lock, build("openssl-1.1.1a-1.fc29"), path=Path("lock.toml"))
