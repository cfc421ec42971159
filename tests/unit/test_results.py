import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.errors import HostError
from backport.files import digest_of
from backport.runs.results import ResultStore, key_of
from backport.seals import Sealer


def rpm(folder: Path, name: str, content: bytes, arch: str = "x86_64") -> Rpm:
    nevra = Nevra(name=name, epoch=1, version="1.0", release="1.fc28.bp1", arch=arch)
    path = folder / nevra.filename
    path.write_bytes(content)
    return Rpm(nevra=nevra, path=path, sha256=digest_of(path))


def built(folder: Path) -> BuiltRpms:
    folder.mkdir()
    source = SourceRpm(
        rpm=rpm(folder, "original", b"o", "src"),
        url="http://hub/original",
        signing_key="A" * 40,
        build_requires=(),
        changelog_time=0,
    )
    patched = PatchedSrpm(
        source=source, spec=folder / "x.spec", sources=folder, sha256="0", diff="", options=BuildOptions()
    )
    log = folder / "build.log"
    log.write_text("built\n")
    return BuiltRpms(
        patched=patched,
        srpm=rpm(folder, "hello", b"s", "src"),
        rpms=(rpm(folder, "hello", b"one"), rpm(folder, "hello-libs", b"two")),
        logs=(log,),
        builder="chroot (rpm 4)",
    )


def store_in(folder: Path, *, notes: list[str] | None = None) -> ResultStore:
    note = print if notes is None else notes.append
    return ResultStore(folder / "store", key=folder / "keys" / "cache-key", note=note)


def test_a_kept_build_is_found_again_whole(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    kept = store.keep("key", original)
    assert store.find("key", original.patched) == kept
    assert [item.nevra for item in kept.rpms] == [item.nevra for item in original.rpms]
    assert kept.rpms[0].path.read_bytes() == b"one"
    assert kept.logs[0].read_text() == "built\n"
    assert kept.srpm.path != original.srpm.path


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original)
    assert store.find("other", original.patched) is None


def test_a_changed_file_is_not_taken_for_what_was_built(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    kept = store.keep("key", original)
    kept.rpms[1].path.write_bytes(b"tw0")
    assert store.find("key", original.patched) is None
    assert not kept.rpms[1].path.exists()


def test_a_missing_file_is_not_passed_over(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original).srpm.path.unlink()
    assert store.find("key", original.patched) is None


def test_a_broken_manifest_is_no_result(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original)
    (tmp_path / "store" / "key" / "result.json").write_text("{")
    assert store.find("key", original.patched) is None


def forged(store: Path) -> None:
    """Another package in the place of one, and the manifest's digest with it."""
    package = next(store.glob("key/hello-libs-*.rpm"))
    before = digest_of(package)
    package.write_bytes(b"evil")
    manifest = store / "key" / "result.json"
    manifest.write_text(manifest.read_text().replace(before, digest_of(package)))


def unsealed(store: Path) -> None:
    (store / "key" / "seal").unlink()


def sealed_by_another(store: Path) -> None:
    forged(store)
    manifest = (store / "key" / "result.json").read_text()
    (store / "key" / "seal").write_text(Sealer(key=b"0" * 32).seal("built", "key", manifest))


def moved(store: Path) -> None:
    (store / "key").rename(store / "moved")
    (store / "moved").rename(store / "key")
    for path in (store / "older").iterdir():
        (store / "key" / path.name).write_bytes(path.read_bytes())


def nested(store: Path) -> None:
    (store / "key" / "result.json").write_text("[" * 100_000)


def pipe(store: Path) -> None:
    (store / "key" / "result.json").unlink()
    os.mkfifo(store / "key" / "result.json")


def other_log(store: Path) -> None:
    (store / "key" / "build.log").write_text("all is well\n")


def linked(store: Path) -> None:
    package = next(store.glob("key/hello-libs-*.rpm"))
    package.rename(store / "elsewhere")
    package.symlink_to(store / "elsewhere")


def writable(store: Path) -> None:
    next(store.glob("key/hello-libs-*.rpm")).chmod(0o666)


TAMPERING = (forged, unsealed, sealed_by_another, moved, nested, pipe, other_log, linked, writable)


@pytest.mark.parametrize("tamper", TAMPERING)
def test_what_was_not_built_here_is_not_used_and_told(
    tmp_path: Path, tamper: Callable[[Path], object]
) -> None:
    notes: list[str] = []
    store, original = store_in(tmp_path, notes=notes), built(tmp_path / "work")
    store.keep("older", original)
    store.keep("key", replace(original, builder="chroot (rpm 5)"))
    tamper(tmp_path / "store")
    assert store.find("key", original.patched) is None
    assert len(notes) == 1
    entry = tmp_path / "store" / "key"
    assert notes[0].startswith(f"original: what lies in {entry} is not what was built here")
    assert not (tmp_path / "store" / "key").exists()
    assert store.find("older", original.patched) is not None


def test_what_another_key_sealed_is_built_again(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original)
    assert store_in(tmp_path).find("key", original.patched) is not None
    (tmp_path / "keys" / "cache-key").unlink()
    assert store_in(tmp_path).find("key", original.patched) is None


def test_folders_that_others_can_write_to_are_refused(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original)
    (tmp_path / "store" / "key").chmod(0o777)
    with pytest.raises(HostError, match=f"^{tmp_path / 'store' / 'key'}: others can write"):
        store.find("key", original.patched)
    (tmp_path / "store").chmod(0o770)
    with pytest.raises(HostError, match=f"^{tmp_path / 'store'}: others can write"):
        store_in(tmp_path)


def test_keeping_again_replaces(tmp_path: Path) -> None:
    store, original = store_in(tmp_path), built(tmp_path / "work")
    store.keep("key", original)
    assert store.keep("key", original) == store.find("key", original.patched)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["key"]


def test_keys_depend_on_names_and_values_alone() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    assert key_of({"a": "1", "b": "2"}) != key_of({"a": "2", "b": "1"})
