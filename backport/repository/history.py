"""The record of one target's folder: every switch of its clients and every proof, a line of JSON each.

A line holds the digest over all that is before it in the file and is signed by the site's key, signature and
all in the line itself, so that one more is one rename. The last signature so vouches for the whole file; who
appends a line verifies the one before. Lines of earlier versions have neither: the first signed line vouches
for them. What the record does not say is never taken for a fact: it may have been cut, or come from a backup.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from backport.errors import PublishError, as_kind
from backport.files import read_regular, write_atomically
from backport.settings import Key
from backport.signing.detached import dearmored, signer_of
from backport.signing.key import KeyInfo

Action = Literal["publish", "proof", "rollback", "promote", "withdraw", "prune", "anchor"]
"""``prune``: generations were removed; ``anchor``: somebody looked and accepted the folder as it was."""
SWITCHES = frozenset({"publish", "rollback", "promote", "withdraw"})
"""The actions by which clients see something else."""
MAX_BYTES = 64 * 1024 * 1024
_MEND = "restore it from a copy, or accept the folder as it is by `backport repo anchor`"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of what clients see, the proof of what they see, or a change of the folder."""

    time: datetime
    action: Action
    generation: str | None
    """What it is about: for a switch what clients see since; None when nothing was left to see."""
    before: str | None = None
    held: tuple[str, ...] = ()
    """What clients were led back from, so that since this event it is not published again until somebody
    wants it; see `backport.repository.holds`."""
    generations: tuple[str, ...] = ()
    """Those that ``prune`` removed, or that ``anchor`` found."""
    key: str = ""
    """The fingerprint of the key that signed it; empty for a line of an earlier version."""


class LineSigner(Protocol):
    """What signs a line, and knows what was signed here before; see `backport.signing.key.Signer`."""

    @property
    def key(self) -> KeyInfo:
        """The key that signs."""

    def signature(self, content: bytes) -> bytes:
        """A detached, armored signature. Raises SignError."""

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Whether a detached signature (without armor) is a good one by a key of the GNUPGHOME."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The record as it was read: each line in its place, none changed; not yet who signed it."""

    path: Path
    content: bytes = b""
    events: tuple[Event, ...] = ()
    prefixes: frozenset[str] = field(default_factory=lambda: frozenset({_digest(b"")}))
    """The digests over the file up to each of its lines, by which `Generation.history` is found again."""
    signed: bytes = b""
    """What the last line's signature is over; empty where the last line has none."""
    signature: bytes = b""

    @property
    def digest(self) -> str:
        """The digest over the whole file."""
        return _digest(self.content)

    @as_kind(PublishError)
    def check_signature(self, keys: Sequence[Key]) -> str:
        """Why no key of these made the last signature, which vouches for the whole; empty when one did."""
        if not self.content:
            return ""
        if not self.signature:
            return "is not signed: an earlier version wrote it; the next change of what clients see signs it"
        if signer_of(self.signed, self.signature, keys):
            return ""
        return f"its last line is not signed by a key of this repository: {self.events[-1].key} is named"


def read(path: Path, place: str) -> History:
    """The record in a file, which is of the folder ``place``; an empty one where there is no file.

    Raises PublishError when it is damaged: a line cannot be read, or is not what was there when the next was
    written.
    """
    try:
        content = read_regular(path, limit=MAX_BYTES)
    except FileNotFoundError:
        return History(path=path)
    except OSError as problem:
        raise PublishError(f"{path}: cannot be read: {problem.strerror}", hint=_MEND) from None
    found, fault = _parse(content, path, place)
    if fault:
        raise PublishError(f"{path}: is damaged: {fault}", hint=_MEND)
    return found


def salvage(path: Path, place: str) -> History:
    """What can still be read of a damaged record. Raises PublishError when no plain file is there."""
    try:
        return _parse(read_regular(path, limit=MAX_BYTES), path, place)[0]
    except FileNotFoundError:
        return History(path=path)
    except OSError as problem:
        raise PublishError(f"{path}: cannot be read: {problem.strerror}", hint="move it away") from None


def _parse(content: bytes, path: Path, place: str) -> tuple[History, str]:
    """The record in ``content``, and what is wrong with it."""
    before, prefixes, fault = hashlib.sha256(), {_digest(b"")}, ""
    events: list[Event] = []
    entry: dict[str, Any] = {}
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        entry = {}
        try:
            entry = _entry(line, before.hexdigest(), place, signed=bool(events and events[-1].key))
            events.append(_event(entry))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            fault = fault or f"line {number}: {problem}"
        else:
            fault = fault if events[-1].action != "anchor" or not events[-1].key else ""
        before.update(line)
        prefixes.add(before.hexdigest())
    found = History(
        path=path, content=content, events=tuple(events), prefixes=frozenset(prefixes),
        signed=_message(entry) if entry.get("signature") else b"",
        signature=base64.b64decode(entry.get("signature", "")),
    )  # fmt: skip
    return found, fault


def append(history: History, event: Event, place: str, signer: LineSigner) -> None:
    """Add a line to the record, whose last signature must be good.

    Raises PublishError, SignError, OSError.
    """
    if history.signature and not signer.has_signed(history.signed, history.signature):
        raise PublishError(
            f"{history.path}: its last line is not signed by a key of this site; it names the key "
            f"{history.events[-1].key}",
            hint=_MEND,
        )
    write_line(history, event, place, signer)


def write_line(history: History, event: Event, place: str, signer: LineSigner) -> None:
    """Add a line to the record, whatever was there. Raises SignError, OSError."""
    content = history.content if history.content.endswith(b"\n") else history.content + b"\n"
    content = content if history.content else b""
    entry: dict[str, Any] = {name: value for name, value in vars(event).items() if value not in ((), "")}
    entry |= {"time": event.time.isoformat(), "place": place, "chain": _digest(content)}
    entry["key"] = signer.key.fingerprint
    entry["signature"] = base64.b64encode(dearmored(signer.signature(_message(entry)))).decode()
    write_atomically(history.path, content + _text(entry) + b"\n")


def _entry(line: bytes, chain: str, place: str, *, signed: bool) -> dict[str, Any]:
    """A line's content. Raises ValueError when it is not what belongs here."""
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("is no object")  # noqa: TRY004  # the callers' kind for whatever is wrong with a line
    if not entry.get("signature"):
        if signed:
            raise ValueError("is not signed, the line before is")
        return entry
    if entry["chain"] != chain:
        raise ValueError("what is before it is not what was there when it was written")
    if entry["place"] != place:
        raise ValueError(f"is of the record of {entry['place']}, not of {place}")
    if _text(entry) + b"\n" != line:
        raise ValueError("was not written here")
    try:
        base64.b64decode(entry["signature"], validate=True)
    except binascii.Error:
        raise ValueError("its signature cannot be read") from None
    return entry


def _event(entry: dict[str, Any]) -> Event:
    names = (entry["generation"], entry.get("before"), *entry.get("generations", ()), *entry.get("held", ()))
    if not all(name is None or isinstance(name, str) for name in (*names, entry["action"])):
        raise ValueError("names what is no text")
    return Event(
        time=datetime.fromisoformat(entry["time"]),
        action=entry["action"],
        generation=entry["generation"],
        before=entry.get("before"),
        held=tuple(entry.get("held", ())),
        generations=tuple(entry.get("generations", ())),
        key=entry["key"] if entry.get("signature") else "",
    )


def _message(entry: dict[str, Any]) -> bytes:
    return _text({name: value for name, value in entry.items() if name != "signature"})


def _text(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
