from pathlib import Path

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.files import digest_of
from backport.runs.results import ResultStore, key_of


def rpm(folder: Path, name: str, content: bytes, arch: str = "x86_64") -> Rpm:
    nevra = Nevra(name=name, epoch=1, version="1.0", release="1.fc28.bp1", arch=arch)
    path = folder / nevra.filename
    path.write_bytes(content)
    return Rpm(nevra=nevra, path=path, sha256=digest_of(path))


def built(folder: Path) -> BuiltRpms:
    folder.mkdir()
    source = SourceRpm(
        rpm=rpm(folder, "original", b"o", "src"),
        build_id=1,
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


def test_a_kept_build_is_found_again_whole(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    kept = store.keep("key", original)
    assert store.find("key", original.patched) == kept
    assert [item.nevra for item in kept.rpms] == [item.nevra for item in original.rpms]
    assert kept.rpms[0].path.read_bytes() == b"one"
    assert kept.logs[0].read_text() == "built\n"
    assert kept.srpm.path != original.srpm.path


def test_another_key_finds_nothing(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    store.keep("key", original)
    assert store.find("other", original.patched) is None


def test_a_changed_file_is_not_taken_for_what_was_built(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    kept = store.keep("key", original)
    kept.rpms[1].path.write_bytes(b"tw0")
    assert store.find("key", original.patched) is None
    assert not kept.rpms[1].path.exists()


def test_a_missing_file_is_not_passed_over(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    store.keep("key", original).srpm.path.unlink()
    assert store.find("key", original.patched) is None


def test_a_broken_manifest_is_no_result(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    store.keep("key", original)
    (tmp_path / "store" / "key" / "result.json").write_text("{")
    assert store.find("key", original.patched) is None


def test_keeping_again_replaces(tmp_path: Path) -> None:
    store, original = ResultStore(tmp_path / "store"), built(tmp_path / "work")
    store.keep("key", original)
    assert store.keep("key", original) == store.find("key", original.patched)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["key"]


def test_keys_depend_on_names_and_values_alone() -> None:
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})
    assert key_of({"a": "1", "b": "2"}) != key_of({"a": "2", "b": "1"})
