"""The published folder's bookkeeping, and publishing with a signer that signs nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backport.artifacts import Check, GatedRpms, Nevra, PublishedRepo, Rpm, SignedRpms, TestedRpms, Verdict
from backport.errors import PublishError
from backport.files import digest_of
from backport.repository import check, clients, generations, release
from backport.repository.clients import SiteKeys
from backport.repository.generations import Generation, TargetFolder, generation_id
from backport.repository.place import Place
from backport.repository.proof import Prover
from backport.repository.publish import Run, publish
from backport.signing.key import KeyInfo
from backport.site import Signing
from backport.target import Target, load_target
from tests.unit import rpmfile

FINGERPRINT = "A" * 40
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
RECORD = Generation(
    id="20260102T030405Z-abababababab",
    time=NOW,
    previous=None,
    compression="gz",
    fingerprint=FINGERPRINT,
    run="run",
    inputs={"openssl": "digest"},
    signers={FINGERPRINT: 3},
    added=1,
    metadata={"x86_64": "00"},
    superseded={"x86_64/repodata/old.xml.gz": NOW},
)


@pytest.fixture
def folder(tmp_path: Path) -> TargetFolder:
    folder = TargetFolder(path=tmp_path / "repository/f28")
    folder.create()
    folder.remove_leftovers(Signing())
    return folder


def put(folder: TargetFolder, record: Generation = RECORD) -> Generation:
    place = folder.generations / record.id
    place.mkdir()
    (place / "generation.json").write_text(record.to_json())
    return record


def test_a_record_survives_its_file() -> None:
    assert Generation.from_json(RECORD.to_json()) == RECORD


def test_nothing_published_is_no_generation(folder: TargetFolder) -> None:
    assert folder.current_generation() is None
    assert folder.history() == ()


def test_a_switch_is_seen_and_remembered(folder: TargetFolder) -> None:
    record = put(folder)
    folder.switch(record.id, action="publish", signing=Signing())
    assert folder.current_generation() == record
    assert os.readlink(folder.current) == f"generations/{record.id}"  # noqa: PTH115  # the link's own text
    assert not folder.is_proven(record.id)
    folder.mark_proven(record.id, Signing())
    assert folder.is_proven(record.id)
    folder.switch(None, action="rollback", signing=Signing())
    assert folder.current_id() is None
    assert [(event.action, event.generation, event.before) for event in folder.history()] == [
        ("publish", record.id, None),
        ("proof", record.id, None),
        ("rollback", None, record.id),
    ]


@pytest.mark.parametrize(
    "wrong",
    [('"added": 1', '"added": "1"'), ('"run":', '"ran":'), ("2026-01", "2026-31"), ('": 3', '": 3.5')],
)
def test_a_record_is_of_the_types_that_it_says(wrong: tuple[str, str]) -> None:
    text = RECORD.to_json().replace(*wrong)
    assert text != RECORD.to_json()
    with pytest.raises(ValueError, match=r"added|run|ran|time|superseded|signers"):
        Generation.from_json(text)


def test_a_record_of_an_earlier_version_is_read() -> None:
    early = {
        "id": RECORD.id, "time": "2026-01-02T03:04:05.678901+00:00", "previous": None, "compression": "gz",
        "fingerprint": FINGERPRINT, "run": "run", "inputs": {"openssl": "digest"},
        "signers": {FINGERPRINT: 3}, "added": 1, "metadata": {"x86_64": "00"},
        "superseded": {"x86_64/repodata/old.xml.gz": "2026-01-02T03:04:05.678901+00:00"},
    }  # fmt: skip
    assert Generation.from_json(json.dumps(early)) == RECORD


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": 1}', RECORD.to_json().replace("gz", "gz\x00")])
def test_a_damaged_record_is_told(folder: TargetFolder, text: str) -> None:
    put(folder)
    (folder.generations / RECORD.id / "generation.json").write_text(text)
    with pytest.raises(PublishError, match="is damaged"):
        folder.load(RECORD.id)


def test_a_record_of_another_generation_is_told(folder: TargetFolder) -> None:
    put(folder)
    (folder.generations / RECORD.id).rename(folder.generations / "20260102T030405Z-000000000000")
    with pytest.raises(PublishError, match="is the record of"):
        folder.load("20260102T030405Z-000000000000")
    with pytest.raises(PublishError, match="there is no generation"):
        folder.load(RECORD.id)


@pytest.mark.parametrize("place", ["/etc", "..", "generations/..", "generations/x", "elsewhere/" + RECORD.id])
def test_a_link_that_leads_elsewhere_is_refused(folder: TargetFolder, place: str) -> None:
    folder.current.symlink_to(place)
    with pytest.raises(PublishError, match="which is no generation"):
        folder.current_id()


def test_leftovers_go_and_everything_that_readers_saw_stays(folder: TargetFolder) -> None:
    old = put(folder, replace(RECORD, id="20250102T030405Z-abababababab"))
    seen, current = put(folder), put(folder, replace(RECORD, id="20260102T030406Z-abababababab"))
    folder.switch(seen.id, action="publish", signing=Signing())
    folder.switch(current.id, action="publish", signing=Signing())
    later = datetime.now(UTC) + timedelta(seconds=10)
    unseen = put(folder, replace(RECORD, id=generation_id(later, "cd" * 32, folder.generations)))
    (folder.generations / ".new-123").mkdir()
    (folder.path / ".backport.repo.123").write_text("")
    (folder.path / ".current.1").symlink_to("x")
    for foreign in (
        folder.generations / "README",
        folder.generations / ".htaccess",
        folder.path / ".htaccess",
    ):
        foreign.write_text("somebody's own")
    folder.remove_leftovers(Signing())
    ids = {old.id, seen.id, current.id, unseen.id}
    assert {path.name for path in folder.generations.iterdir()} == {*ids, "README", ".htaccess"}
    assert {path.name for path in folder.path.iterdir()} == {
        "current", "generations", "history.jsonl", ".htaccess"
    }  # fmt: skip
    assert folder.unknown() == (old.id, unseen.id)


def test_a_switch_that_was_not_remembered_is_remembered_later(folder: TargetFolder) -> None:
    record = put(folder)
    folder.current.symlink_to(f"generations/{record.id}")
    folder.remove_leftovers(Signing())
    assert [event.generation for event in folder.history()] == [record.id]
    assert folder.current_generation() == record


def test_without_its_history_no_generation_is_removed(folder: TargetFolder) -> None:
    put(folder)
    folder.remove_leftovers(Signing())
    assert folder.load(RECORD.id) == RECORD


def test_a_damaged_history_is_told(folder: TargetFolder) -> None:
    (folder.path / "history.jsonl").write_text("{}\n")
    with pytest.raises(PublishError, match=r"history\.jsonl: is damaged"):
        folder.remove_leftovers(Signing())


def test_ids_of_one_second_are_in_the_order_in_which_they_were_made(folder: TargetFolder) -> None:
    made = []
    for content in ("ff", "ab", "ab", "00"):
        made.append(generation_id(NOW, content * 32, folder.generations))
        (folder.generations / made[-1]).mkdir(parents=True)
    assert folder.ids() == tuple(made)


# Publishing, with createrepo_c's bindings and a signer that signs nothing.


class NoSigner:
    key = KeyInfo(fingerprint=FINGERPRINT, user_id="", created=NOW, expires=None, public_key="key")

    def sign_file(self, path: Path) -> Path:
        signature = path.with_name(f"{path.name}.asc")
        signature.write_text("signature")
        return signature

    def signature(self, content: bytes) -> bytes:
        return b"-----BEGIN PGP SIGNATURE-----\n\nAQID\n=abcd\n-----END PGP SIGNATURE-----\n"

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        return signature == b"\1\2\3"


@pytest.fixture
def f28() -> Target:
    return load_target(Path(__file__).parents[2] / "mock-configs", "f28")


@pytest.fixture(autouse=True)
def _unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def open_key(_signing: Signing, *, digest: str = "sha256") -> Iterator[NoSigner]:
        assert digest == "sha256"
        yield NoSigner()

    monkeypatch.setattr(release, "open_key", open_key)
    monkeypatch.setattr(generations, "open_key", open_key)
    keys = SiteKeys(signs=FINGERPRINT, announced=frozenset(), known={FINGERPRINT: "key"})
    monkeypatch.setattr(clients, "site_keys", lambda _signing: keys)
    monkeypatch.setattr(check, "verify_file", lambda *_arguments, **_options: None)


def packages(folder: Path, *names: str) -> TestedRpms:
    folder.mkdir(exist_ok=True)
    rpms = []
    for name in names:
        nevra = Nevra(name=name, version="1", release="1.fc28.bp1", arch="noarch")
        path = folder / nevra.filename
        path.write_bytes(rpmfile.Package(files=[], name=name, source=False).to_bytes())
        rpms.append(Rpm(nevra=nevra, path=path, sha256=digest_of(path)))
    public_key = folder / "key.asc"
    public_key.write_text("key")
    signed = SignedRpms(built=(), srpms=(), rpms=tuple(rpms), fingerprint=FINGERPRINT, public_key=public_key)
    return TestedRpms(signed=signed, checks=(Check(id="a", title="A", verdict=Verdict.PASS),))


PASSED = (Check(id="p", title="P", verdict=Verdict.PASS),)


def publish_it(
    what: TestedRpms, repository: Path, target: Target, *, prove: Prover = lambda _exhibit: PASSED
) -> PublishedRepo:
    passed = (Check(id="gate", title="It may", verdict=Verdict.PASS),)
    place = Place(repository=repository, target=target, base_url="http://x", signing=Signing())
    return publish(Run(gated=GatedRpms(tested=what, checks=passed)), place, prove=prove)


def test_packages_go_to_the_repository_of_their_kind(tmp_path: Path, f28: Target) -> None:
    names = ("a", "a-debuginfo", "a-debugsource", "a-debuginfo-tools")
    published = publish_it(packages(tmp_path / "rpms", *names), tmp_path / "repository", f28)
    current = published.folder / "current"
    assert sorted(str(path.relative_to(current)) for path in current.rglob("*.rpm")) == [
        "debug/x86_64/a-debuginfo-1-1.fc28.bp1.noarch.rpm",
        "debug/x86_64/a-debugsource-1-1.fc28.bp1.noarch.rpm",
        "x86_64/a-1-1.fc28.bp1.noarch.rpm",
        "x86_64/a-debuginfo-tools-1-1.fc28.bp1.noarch.rpm",
    ]


def test_a_package_twice_in_one_run_is_refused(tmp_path: Path, f28: Target) -> None:
    what = packages(tmp_path / "rpms", "a", "a")
    with pytest.raises(PublishError, match="is among the packages twice"):
        publish_it(what, tmp_path / "repository", f28)


def test_a_proof_is_remembered_once(tmp_path: Path, f28: Target) -> None:
    what, repository = packages(tmp_path / "rpms", "a"), tmp_path / "repository"
    for _ in range(2):
        assert publish_it(what, repository, f28).checks == PASSED
    folder = TargetFolder(path=repository / "f28")
    assert [event.action for event in folder.history()] == ["proof", "publish"]
    assert folder.is_proven(folder.current_id() or "")


def test_after_a_failed_proof_readers_see_the_generation_before(tmp_path: Path, f28: Target) -> None:
    repository = tmp_path / "repository"
    first = publish_it(packages(tmp_path / "one", "a"), repository, f28)
    fails = (Check(id="p", title="It installs", verdict=Verdict.FAIL, found="not so", advice="look"),)
    with pytest.raises(PublishError, match="It installs: not so") as told:
        publish_it(packages(tmp_path / "two", "b"), repository, f28, prove=lambda _exhibit: fails)
    assert told.value.hint == "look"
    state = TargetFolder(path=repository / "f28").published()
    assert state is not None
    assert state.id == first.generation
