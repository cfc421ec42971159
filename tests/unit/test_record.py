"""The record of a folder: a chain of signed lines, what breaks it, and what is never done on its word."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backport.errors import PublishError
from backport.repository import generations
from backport.repository.generations import TargetFolder, last_switch
from backport.signing.key import KeyInfo
from backport.site import Signing
from tests.unit.test_publish import RECORD, put

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SIGNING = Signing()
FIRST, SECOND = "20260102T030405Z-abababababab", "20260103T030405Z-cdcdcdcdcdcd"
OLD = [
    {"time": NOW.isoformat(), "action": "publish", "generation": FIRST, "before": None, "held": ["x"]},
    {"time": NOW.isoformat(), "action": "proof", "generation": FIRST, "before": None, "held": ["x"]},
]


class DigestSigner:
    """Signs by a digest that takes a secret."""

    def __init__(self, secret: str = "secret") -> None:
        self.secret = secret
        self.key = KeyInfo(fingerprint="A" * 40, user_id="", created=NOW, expires=None, public_key="")

    def _signature(self, content: bytes) -> bytes:
        return hashlib.sha256(self.secret.encode() + content).digest()

    def signature(self, content: bytes) -> bytes:
        return b"-----BEGIN-----\n\n" + base64.b64encode(self._signature(content)) + b"\n-----END-----\n"

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        return signature == self._signature(content)


@pytest.fixture(autouse=True)
def signer(monkeypatch: pytest.MonkeyPatch) -> DigestSigner:
    made = DigestSigner()

    @contextlib.contextmanager
    def open_key(_signing: Signing) -> Iterator[DigestSigner]:
        yield made

    monkeypatch.setattr(generations, "open_key", open_key)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> TargetFolder:
    folder = TargetFolder(path=tmp_path / "f28")
    folder.generations.mkdir(parents=True)
    put(folder)
    folder.switch(FIRST, action="publish", signing=SIGNING)
    folder.mark_proven(FIRST, SIGNING)
    folder.switch(FIRST, action="rollback", signing=SIGNING, hold=["bad"])
    return folder


def lines(folder: TargetFolder) -> list[bytes]:
    return folder.history_file.read_bytes().splitlines(keepends=True)


def test_every_line_is_signed_over_all_before_it(folder: TargetFolder, signer: DigestSigner) -> None:
    assert [event.action for event in folder.history()] == ["publish", "proof", "rollback"]
    assert folder.held() == {"bad"}
    before = b""
    for line in lines(folder):
        entry = json.loads(line)
        assert entry["chain"] == hashlib.sha256(before).hexdigest()
        assert (entry["place"], entry["key"]) == ("stable/f28", signer.key.fingerprint)
        before += line
    found = folder.read_history()
    assert signer.has_signed(found.signed, found.signature)
    assert found.digest in found.prefixes
    assert len(found.prefixes) == 4


def edited(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(old, new, 1)


def without(number: int) -> Callable[[bytes], bytes]:
    return lambda content: b"".join(
        line for at, line in enumerate(content.splitlines(keepends=True)) if at != number
    )


def added(**entry: object) -> Callable[[bytes], bytes]:
    return lambda content: content + json.dumps({**OLD[1], **entry}).encode() + b"\n"


def swapped(content: bytes) -> bytes:
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join((second, first, *rest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edited(b'"publish"', b'"promote"'), "line 2: what is before it is not what was there"),
        (edited(b'"bad"', b'"b\\u0061d"'), "line 3: was not written here"),
        (without(0), "line 1: what is before it"),
        (without(1), "line 2: what is before it"),
        (swapped, "line 1: what is before it"),
        (lambda content: content * 2, "line 4: what is before it"),
        (added(), "line 4: is not signed, the line before is"),
        (added(signature="AQID", chain="00"), "line 4: what is before it"),
        (added(generation=1), "line 4: is not signed"),
        (lambda content: content + b"\n", "line 4: "),
        (lambda content: content[:-20], "line 3: "),
        (lambda content: content[:-1], "line 3: was not written here"),
        (lambda content: b"[" * 100_000 + b"\n" + content, "line 1: "),
        (lambda content: b"\xff\n" + content, "line 1: "),
        (lambda content: b"1\n" + content, "line 1: is no object"),
        (edited(b"stable/f28", b"stable/f29"), "line 1: is of the record of stable/f29"),
    ],
)
def test_a_changed_record_is_damaged(
    folder: TargetFolder, change: Callable[[bytes], bytes], told: str
) -> None:
    folder.history_file.write_bytes(change(folder.history_file.read_bytes()))
    with pytest.raises(PublishError, match="is damaged") as caught:
        folder.history()
    assert told in caught.value.message
    assert "repo anchor" in str(caught.value.hint)
    with pytest.raises(PublishError):
        folder.remove_leftovers(SIGNING)
    assert folder.ids() == (FIRST,)


def test_what_another_signed_is_not_gone_on_with(folder: TargetFolder, signer: DigestSigner) -> None:
    signer.secret = "another"
    with pytest.raises(PublishError, match="last line is not signed"):
        folder.mark_proven(FIRST, SIGNING)
    signer.secret = "secret"
    folder.mark_proven(FIRST, SIGNING)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "sparse"])
def test_what_is_no_plain_file_is_no_record(folder: TargetFolder, tmp_path: Path, kind: str) -> None:
    path = folder.history_file
    path.unlink()
    match kind:
        case "link":
            path.symlink_to("/dev/zero")
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.touch()
            os.truncate(path, 2**40)
    with pytest.raises(PublishError, match=r"history\.jsonl: cannot be read"):
        folder.history()


def test_a_record_of_an_earlier_version_is_gone_on_with(folder: TargetFolder, signer: DigestSigner) -> None:
    folder.history_file.write_text("".join(f"{json.dumps(line)}\n" for line in OLD))
    assert folder.read_history().signature == b""
    assert folder.is_proven(FIRST)
    assert folder.held() == {"x"}
    folder.mark_proven(FIRST, SIGNING)
    assert [event.key for event in folder.history()] == ["", "", signer.key.fingerprint]
    assert folder.held() == {"x"}
    folder.history_file.write_bytes(folder.history_file.read_bytes().replace(b'"x"', b'"y"', 1))
    with pytest.raises(PublishError, match="line 3: "):
        folder.history()


def test_a_proof_by_a_line_that_nobody_signed_counts_for_old_generations_alone(folder: TargetFolder) -> None:
    put(folder, replace(RECORD, id=SECOND, history="0" * 64))
    unsigned = [{**line, "generation": one} for one in (FIRST, SECOND) for line in OLD]
    folder.history_file.write_text("".join(f"{json.dumps(line)}\n" for line in unsigned))
    assert folder.is_proven(FIRST)
    assert not folder.is_proven(SECOND)


@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"{}\n"])
def test_the_folder_can_be_accepted_as_it_is(folder: TargetFolder, content: bytes | None) -> None:
    folder.history_file.unlink()
    if content is not None:
        folder.history_file.write_bytes(content)
    assert folder.anchor(SIGNING) == (FIRST,)
    (event,) = folder.history()
    assert (event.action, event.generation, event.generations) == ("anchor", FIRST, (FIRST,))
    assert folder.unknown() == ()
    assert last_switch(folder.history()) == FIRST
    assert not folder.is_proven(FIRST)
    folder.mark_proven(FIRST, SIGNING)
    assert len(folder.history()) == 2


def test_what_can_be_read_of_a_damaged_record_stays_when_the_folder_is_accepted(folder: TargetFolder) -> None:
    first, _, _ = lines(folder)
    folder.history_file.write_bytes(first + b"rubbish\n")
    folder.anchor(SIGNING)
    assert [event.action for event in folder.history()] == ["publish", "anchor"]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_no_generation_is_removed_on_the_word_of_a_cut_record(folder: TargetFolder, kept: int) -> None:
    put(folder, replace(RECORD, id=SECOND))
    folder.switch(SECOND, action="publish", signing=SIGNING)
    folder.switch(FIRST, action="rollback", signing=SIGNING)
    folder.history_file.write_bytes(b"".join(lines(folder)[:kept]))
    assert folder.remove_leftovers(SIGNING) == ()
    assert folder.ids() == (FIRST, SECOND)
    assert folder.unknown() == (SECOND,)
