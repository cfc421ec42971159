"""The published folder of one target: immutable generations, and one link that readers follow.

::

    <repository>/<target>/
        current -> generations/<id>     switched by one rename(2), which is atomic (POSIX)
        generations/<id>/               never changed once its name is there
            <basearch>/  debug/<basearch>/  source/
            generation.json  generation.json.asc
        history.jsonl                   every switch and every proof, in order
        backport.repo  RPM-GPG-KEY-backport

That is the channel ``stable``. Every other channel has a repository folder of its own inside of the
first, with the same layout: ``<repository>/<channel>/<target>/``.

Whatever begins with a dot is work in progress, or was when its process was killed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from backport.errors import PublishError
from backport.files import locked, remove_tree, sync, write_atomically

RECORD = "generation.json"
STABLE = "stable"
"""The channel that lies in the repository folder itself; the others have folders of their own in it."""
Action = Literal["publish", "proof", "rollback", "promote"]
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}(\.\d+)?")
_LISTED = "`backport repo list` names those that are there"
_DAMAGED = "restore it from a copy, or point `current` at an earlier generation"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one generation is and where it came from, as ``generation.json`` keeps it.

    Which packages it holds is told by its metadata, and by that alone (`backport.repository.contents`): the
    record has the digests of ``repomd.xml``, which has those of the files that name every package's digest.
    """

    id: str
    time: datetime
    previous: str | None
    """The generation that this one was made from."""
    compression: Literal["gz", "zstd"]
    fingerprint: str
    """The key that signed the metadata."""
    run: str
    """The run that made it."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """For each recipe whose packages are here, the digest over everything that they were made from."""
    signers: Mapping[str, int] = field(default_factory=dict)
    """How many of the packages each key signed, by its fingerprint."""
    added: int = 0
    """How many packages the generation before did not have."""
    superseded: Mapping[str, datetime] = field(default_factory=dict)
    """Metadata files of earlier generations that are still here, and since when nothing names them."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """For each of its repositories, the SHA-256 digest of ``repomd.xml``."""
    builds: str = ""
    """The digest over what its page tells of its builds; see `backport.repository.builds`."""

    @property
    def packages(self) -> int:
        """How many packages there are, in all of its repositories."""
        return sum(self.signers.values())

    def to_json(self) -> str:
        """The record's text."""
        return json.dumps(vars(self), indent=2, sort_keys=True, default=_plain) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Generation:
        """The record that ``text`` holds. Raises ValueError, KeyError or TypeError."""
        data: dict[str, Any] = json.loads(text)
        data["time"] = datetime.fromisoformat(data["time"])
        data["superseded"] = {
            name: datetime.fromisoformat(since) for name, since in data["superseded"].items()
        }
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of what readers see, or the proof of what they see."""

    time: datetime
    action: Action
    generation: str | None
    """What readers see since; None when nothing was left to see."""
    before: str | None = None
    held: tuple[str, ...] = ()
    """The inputs (see `Generation.inputs`) whose packages were rolled back, so that since this event they
    are not published again until somebody wants it."""


@dataclass(frozen=True, kw_only=True)
class TargetFolder:
    """The published folder of one target. Only its lock's holder may change it."""

    path: Path
    channel: str = STABLE

    @classmethod
    def of(cls, repository: Path, target: str, channel: str = STABLE) -> TargetFolder:
        """The folder of a target's channel in a repository."""
        place = repository if channel == STABLE else repository / channel
        return cls(path=place / target, channel=channel)

    @property
    def repository(self) -> Path:
        """The repository folder, which holds all channels."""
        return self.path.parent if self.channel == STABLE else self.path.parent.parent

    @property
    def current(self) -> Path:
        """The link that every base URL goes through."""
        return self.path / "current"

    @property
    def generations(self) -> Path:
        """The folder of all generations."""
        return self.path / "generations"

    def folder_of(self, generation: str) -> Path:
        """The folder of a generation, by its id."""
        return self.generations / generation

    @property
    def repo_file(self) -> Path:
        """The configuration of dnf for clients."""
        return self.path / "backport.repo"

    @property
    def public_key(self) -> Path:
        """The key that verifies packages and metadata."""
        return self.path / "RPM-GPG-KEY-backport"

    @property
    def _history_file(self) -> Path:
        return self.path / "history.jsonl"

    def create(self) -> None:
        """Make the folder where it is missing.

        The parent of the repository folder must exist: a file system that is not mounted must not
        be taken for an empty repository. Raises PublishError, OSError.
        """
        if not self.repository.parent.is_dir():
            raise PublishError(
                f"{self.repository}: its parent folder does not exist",
                hint="create it, mount it, or correct `paths.repository` in the site file",
            )
        for folder in (self.repository, self.path.parent, self.path, self.generations):
            folder.mkdir(exist_ok=True)

    @contextmanager
    def locked(self, *, timeout: float) -> Iterator[None]:
        """Hold the right to change this folder. Raises PublishError after ``timeout`` seconds."""
        what = f"{self.path} is being published to"
        with locked(self.path / ".lock", timeout=timeout, error=PublishError, what=what):
            yield

    def current_id(self) -> str | None:
        """The id that readers are led to; None when nothing is published. Raises PublishError."""
        if not self.current.is_symlink():
            if self.current.exists():
                raise PublishError(
                    f"{self.current}: is not a link", hint="move away what was put in its place"
                )
            return None
        leads_to = self.current.readlink()
        if leads_to.parent != Path("generations") or not _ID.fullmatch(leads_to.name):
            raise PublishError(f"{self.current}: leads to {leads_to}, which is no generation", hint=_DAMAGED)
        return leads_to.name

    def current_generation(self) -> Generation | None:
        """What readers see; None when nothing is published. Raises PublishError."""
        generation = self.current_id()
        return None if generation is None else self.load(generation)

    def load(self, generation: str) -> Generation:
        """The record of a generation. Raises PublishError when there is none, or a damaged one."""
        if not _ID.fullmatch(generation):
            raise PublishError(f"{generation!r} is not the id of a generation", hint=_LISTED)
        path = self.folder_of(generation) / RECORD
        if not path.parent.is_dir():
            raise PublishError(f"{self.path}: there is no generation {generation}", hint=_LISTED)
        try:
            record = Generation.from_json(path.read_text(encoding="utf-8"))
        except OSError as problem:
            raise PublishError(f"{path}: cannot be read: {problem.strerror}", hint=_DAMAGED) from None
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise PublishError(f"{path}: is damaged: {problem}", hint=_DAMAGED) from None
        if record.id != generation:
            raise PublishError(f"{path}: is the record of {record.id}", hint=_DAMAGED)
        return record

    def switch(
        self,
        generation: str | None,
        *,
        action: Action,
        hold: Collection[str] = (),
        release: Collection[str] = (),
    ) -> None:
        """Let readers see a generation from now on, by one rename; None: nothing.

        What they saw before stands until then, and stays in its folder. The inputs ``hold`` are held back
        from now on, those in ``release`` no more. Raises PublishError, OSError.
        """
        held = tuple(sorted((self.held() | set(hold)) - set(release)))
        before = self.current_id()
        if generation is None:
            self.current.unlink(missing_ok=True)
        else:
            beside = self.path / f".current.{os.getpid()}"
            beside.unlink(missing_ok=True)
            beside.symlink_to(Path("generations", generation))
            beside.replace(self.current)
        sync(self.path)
        self._remember(
            Event(time=datetime.now(UTC), action=action, generation=generation, before=before, held=held)
        )

    def mark_proven(self, generation: str) -> None:
        """Remember that a client could install from a generation. Raises OSError."""
        held = tuple(sorted(self.held()))
        self._remember(Event(time=datetime.now(UTC), action="proof", generation=generation, held=held))

    def held(self) -> frozenset[str]:
        """The inputs that were rolled back and are not to be published again. Raises PublishError."""
        history = self.history()
        return frozenset(history[-1].held) if history else frozenset()

    def ids(self) -> tuple[str, ...]:
        """The ids of all generations that are there, the oldest first. Raises OSError."""
        if not self.generations.is_dir():
            return ()
        return tuple(sorted(path.name for path in self.generations.iterdir() if _ID.fullmatch(path.name)))

    def is_proven(self, generation: str) -> bool:
        """Whether a client could install from a generation. Raises PublishError."""
        return any(event.action == "proof" and event.generation == generation for event in self.history())

    def history(self) -> tuple[Event, ...]:
        """Every switch and proof, the oldest first. Raises PublishError when the file is damaged."""
        path = self._history_file
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            entries = [json.loads(line) for line in lines]
            return tuple(_event(entry) for entry in entries)
        except (ValueError, KeyError, TypeError) as problem:
            raise PublishError(f"{path}: is damaged: {problem}", hint="restore it from a copy") from None

    def remove_leftovers(self) -> tuple[str, ...]:
        """Remove what killed processes left: generations that are half made or half removed, and whole
        ones that no reader ever saw. For the lock's holder alone. Gives what was removed, relative to this
        folder. Raises PublishError, OSError."""
        removed = [file for file in self.path.glob(".*") if _is_leftover(file)]
        removed += self.generations.glob(".*")
        if not self._history_file.exists() and not self.ids():
            write_atomically(self._history_file, "")
        history = self.history()
        current = self.current_id()
        if current and current != _seen_last(history):
            self._remember_lost_switch(current, history)
        if self._history_file.exists():
            removed += self._unseen(history)
        for path in removed:
            remove_tree(path)
        return tuple(sorted(path.relative_to(self.path).as_posix() for path in removed))

    def remove(self, generation: str) -> None:
        """Remove a generation; it is gone by one rename, its files follow. For the lock's holder alone.

        Raises OSError.
        """
        aside = self.generations / f".old-{generation}"
        self.folder_of(generation).rename(aside)
        sync(self.generations)
        remove_tree(aside)

    def _remember_lost_switch(self, current: str, history: tuple[Event, ...]) -> None:
        """A process was killed between its switch and its note of that. Where readers were led back from a
        generation that had passed its proof, somebody wanted that: its inputs are held."""
        before, held = _seen_last(history), self.held()
        known = current in {event.generation for event in history}
        if known and before in self.ids() and self.is_proven(before):
            held |= set(self.load(before).inputs.values()) - set(self.load(current).inputs.values())
        self._remember(
            Event(
                time=datetime.now(UTC), action="rollback" if known else "publish", generation=current,
                before=before, held=tuple(sorted(held)),
            )
        )  # fmt: skip

    def _unseen(self, history: tuple[Event, ...]) -> list[Path]:
        """Only what is younger than the last switch can be the work of a process that was killed."""
        seen = {event.generation for event in history} | {self.current_id()}
        last = history[-1].time.replace(microsecond=0) if history else datetime.min.replace(tzinfo=UTC)
        return [self.folder_of(one) for one in self.ids() if one not in seen and _time_of(one) >= last]

    def _remember(self, event: Event) -> None:
        path = self._history_file
        old = path.read_bytes() if path.exists() else b""
        line = json.dumps(asdict(event), sort_keys=True, default=datetime.isoformat)
        write_atomically(path, old + line.encode() + b"\n")


def generation_id(time: datetime, content: str, taken: Path) -> str:
    """The name of a new generation in the folder ``taken``: when it was made (UTC), and what it holds.

    >>> generation_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "ab" * 32, Path("/nonexistent"))
    '20260102T030405Z-abababababab'
    """
    name = f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}-{content[:12]}"
    number = 1
    while (taken / (name if number == 1 else f"{name}.{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}.{number}"


def _plain(value: datetime | Mapping[str, object]) -> object:
    return value.isoformat() if isinstance(value, datetime) else dict(value)


def _is_leftover(file: Path) -> bool:
    return file.is_symlink() or (file.is_file() and file.name != ".lock")


def _event(entry: dict[str, Any]) -> Event:
    time, held = datetime.fromisoformat(entry["time"]), tuple(entry.get("held", ()))
    return Event(**{**entry, "time": time, "held": held})


def _seen_last(history: tuple[Event, ...]) -> str | None:
    """What the last switch led readers to."""
    return next((event.generation for event in reversed(history) if event.action != "proof"), None)


def _time_of(generation: str) -> datetime:
    return datetime.strptime(generation.split("-", maxsplit=1)[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
