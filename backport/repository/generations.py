"""The published folder of one target: immutable generations, and one link that clients follow.

::

    <repository>/<target>/
        current -> generations/<id>     switched by one rename(2), which is atomic (POSIX)
        generations/<id>/               never changed once its name is there
            <basearch>/  debug/<basearch>/  source/
            generation.json  generation.json.asc
        history.jsonl                   every switch and every proof, in order, signed
        backport.repo  RPM-GPG-KEY-backport

That is the channel ``stable``. Every other channel has a repository folder of its own inside of the
first, with the same layout: ``<repository>/<channel>/<target>/``.

Whatever begins with a dot is work in progress, or was when its process was killed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from backport.errors import BackportError, PublishError, as_kind
from backport.files import locked, read_regular, remove_tree, sync
from backport.repository import history
from backport.repository.history import SWITCHES, Action, Event, History
from backport.signing.key import open_key
from backport.site import Signing

RECORD = "generation.json"
RECORD_BYTES = 64 * 1024 * 1024
STABLE = "stable"
"""The channel that lies in the repository folder itself; the others have folders of their own in it."""
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}(\.\d+)?")
_BESIDE = re.compile(
    r"\.(current|history\.jsonl|backport\.repo|mirrorlist[^.]*|index\.html|RPM-GPG-KEY-backport[^.]*)\."
)
_INSIDE = (".new-", ".old-", ".making-")
"""How what is not whole is called in the folder of generations."""
_LISTED = "`backport repo list` names those that are there"
_DAMAGED = "restore it from a copy, or point `current` at an earlier generation"


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one generation is and where it came from, as ``generation.json`` keeps it.

    Which packages it holds is told by its metadata, and by that alone (`backport.repository.contents`): the
    record has the digests of ``repomd.xml``, which has those of the files that name every package's digest.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

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
    sources: Mapping[str, str] = field(default_factory=dict)
    """For each source package that was built here, by its file name, the digest over what it was packed from;
    nothing is known of those that earlier versions published."""
    signers: Mapping[str, int] = field(default_factory=dict)
    """How many of the packages each key signed, by its fingerprint."""
    added: int = 0
    """How many packages the generation before did not have."""
    superseded: Mapping[str, datetime] = field(default_factory=dict)
    """Metadata files of earlier generations that are still here, and since when nothing names them."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """For each of its repositories, the SHA-256 digest of ``repomd.xml``."""
    target: str = ""
    channel: str = ""
    history: str = ""
    """The digest over the record of its folder (see `backport.repository.history`) when it was made; empty
    for one that an earlier version made."""
    evidence: str = ""
    """The digest over its evidence; see `backport.evidence.store.digest_over`. Empty as `history` is."""
    builds: str = ""
    """The digest over the names of the files in ``builds/``, where earlier versions kept rows of the page."""

    @property
    def packages(self) -> int:
        """How many packages there are, in all of its repositories."""
        return sum(self.signers.values())

    def to_json(self) -> str:
        """The record's text."""
        data = _RECORD.dump_python(self, mode="json")
        return json.dumps(data, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Generation:
        """The record that ``text`` holds. Raises ValueError."""
        try:
            return _RECORD.validate_json(text, strict=True)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


_RECORD = TypeAdapter(Generation)


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
    def _next(self) -> Path:
        """The link that takes the place of `current`; while it is there, a switch is under way."""
        return self.path / ".current.next"

    @property
    def history_file(self) -> Path:
        """The record of every switch and proof; see `backport.repository.history`."""
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
        with as_kind(PublishError), locked(self.path / ".lock", timeout=timeout, what=what):
            yield

    def current_id(self) -> str | None:
        """The id that clients are led to; None when nothing is published. Raises PublishError."""
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
        """What clients see; None when nothing is published. Raises PublishError."""
        generation = self.current_id()
        return None if generation is None else self.load(generation)

    def published(self) -> Generation | None:
        """What clients see; None where nothing was ever published. Raises PublishError, also when something
        was, and the link is gone."""
        record = self.current_generation()
        if record is None and (last_switch(self.history()) or self.unknown()):
            raise PublishError(
                f"{self.current}: is missing: clients find nothing",
                hint="lead them to one by `backport repo rollback ID`; `backport repo list` names them",
            )
        return record

    def load(self, generation: str) -> Generation:
        """The record of a generation. Raises PublishError when there is none, or a damaged one."""
        if not _ID.fullmatch(generation):
            raise PublishError(f"{generation!r} is not the id of a generation", hint=_LISTED)
        path = self.folder_of(generation) / RECORD
        if not path.parent.is_dir():
            raise PublishError(f"{self.path}: there is no generation {generation}", hint=_LISTED)
        try:
            record = Generation.from_json(read_regular(path, limit=RECORD_BYTES).decode())
        except OSError as problem:
            raise PublishError(f"{path}: cannot be read: {problem.strerror}", hint=_DAMAGED) from None
        except ValueError as problem:
            raise PublishError(f"{path}: is damaged: {problem}", hint=_DAMAGED) from None
        if record.id != generation:
            raise PublishError(f"{path}: is the record of {record.id}", hint=_DAMAGED)
        return record

    def switch(
        self,
        generation: str | None,
        *,
        action: Action,
        signing: Signing,
        hold: Collection[str] = (),
        release: Collection[str] = (),
    ) -> None:
        """Let clients see a generation from now on, by one rename; None: nothing.

        What they saw before stands until then, and stays in its folder. The record comes first; what is
        raised is raised before the rename. What is in ``hold`` is held back from now on, what is in
        ``release`` no more. Raises PublishError, SignError, OSError.
        """
        held = (self.held() | set(hold)) - set(release)
        before = self.current_id()
        # All that takes room comes first: the rename itself needs none.
        if generation is not None:
            self._next.unlink(missing_ok=True)
            self._next.symlink_to(Path("generations", generation))
        try:
            self.remember(action, generation, signing, before=before, held=held)
            sync(self.path)
            self._let_see(generation)
        except BaseException:
            with suppress(OSError, BackportError):
                self._take_word_back(generation, before, signing)
            raise
        # Clients see it: whether that is on the disk, too, changes nothing for them.
        with suppress(OSError):
            sync(self.path)

    def _let_see(self, generation: str | None) -> None:
        if generation is None:
            self.current.unlink(missing_ok=True)
        else:
            self._next.replace(self.current)

    def _take_word_back(self, generation: str | None, before: str | None, signing: Signing) -> None:
        """The switch was perhaps recorded, and did not come: what clients see is recorded in its place."""
        self._next.unlink(missing_ok=True)
        if last_switch(self.history()) != before:
            self.remember("rollback", before, signing, before=generation)

    def complete_switch(self, signing: Signing) -> None:
        """Finish what a process began that was killed once it had recorded its switch, or that its generation
        is proven. For the lock's holder alone. Raises PublishError, SignError, OSError."""
        known, current = self.history(), self.current_id()
        if self._next.is_symlink():
            wanted = self._next.readlink().name
            if last_switch(known) == wanted != current and self.folder_of(wanted).is_dir():
                self._next.replace(self.current)
                sync(self.path)
                return
        last = known[-1] if known else None
        if last is None or last.action != "proof" or last.generation in (None, current):
            return
        if self._follows(str(last.generation), current):
            self.switch(last.generation, action="publish", signing=signing)

    def _follows(self, generation: str, current: str | None) -> bool:
        """Whether a generation is there, whole as far as can be seen, that was made from the present one."""
        try:
            return self.load(generation).previous == current
        except PublishError:
            return False

    def mark_proven(self, generation: str, signing: Signing, *, hold: Collection[str] = ()) -> None:
        """Remember that a client could install from a generation; what is in ``hold`` is held from now on.

        Raises PublishError, SignError, OSError.
        """
        self.remember("proof", generation, signing, held=self.held() | set(hold))

    def held(self) -> frozenset[str]:
        """What was rolled back and is not to be published again, in the words of `backport.repository.holds`.

        Raises PublishError."""
        events = self.history()
        return frozenset(events[-1].held) if events else frozenset()

    def ids(self) -> tuple[str, ...]:
        """The ids of all generations that are there, the oldest first. Raises OSError."""
        if not self.generations.is_dir():
            return ()
        return tuple(sorted(path.name for path in self.generations.iterdir() if _ID.fullmatch(path.name)))

    def unknown(self) -> tuple[str, ...]:
        """The ids of generations that the record does not name: it was cut, or is older than the folder.

        Raises PublishError, OSError."""
        named = {name for one in self.history() for name in (one.generation, one.before, *one.generations)}
        return tuple(one for one in self.ids() if one not in named)

    def is_proven(self, generation: str) -> bool:
        """Whether a client could install from a generation. Raises PublishError.

        A line that nobody signed says so of generations of an earlier version alone.
        """
        return generation in self.proven((generation,))

    def proven(self, generations: Collection[str] | None = None) -> frozenset[str]:
        """Those of some generations (default: of all that are there) that a client could install from.

        Raises PublishError."""
        proofs = [one for one in self.history() if one.action == "proof"]
        signed = {one.generation for one in proofs if one.key}
        told = {one.generation for one in proofs}
        there = self.ids() if generations is None else generations
        return frozenset(one for one in there if one in signed or (one in told and self._is_early(one)))

    def _is_early(self, generation: str) -> bool:
        """Whether an earlier version made it, which signed no line of the record."""
        try:
            return not self.load(generation).history
        except PublishError:
            return False

    def seen(self) -> frozenset[str]:
        """The generations that clients were led to, now or before. Raises PublishError."""
        return frozenset(
            event.generation for event in self.history() if event.action in SWITCHES and event.generation
        )

    def history(self) -> tuple[Event, ...]:
        """Every switch and proof, the oldest first. Raises PublishError when the file is damaged."""
        return self.read_history().events

    def read_history(self) -> History:
        """The record of this folder; see `backport.repository.history`. Raises PublishError."""
        return history.read(self.history_file, self._place)

    def remember(
        self,
        action: Action,
        generation: str | None,
        signing: Signing,
        *,
        before: str | None = None,
        held: Collection[str] | None = None,
        generations: Collection[str] = (),
    ) -> None:
        """Add a line to the record; what is held stays so unless ``held`` says otherwise.

        For the lock's holder alone. Raises PublishError when what was recorded before is damaged or not
        signed by a key of this site, SignError, OSError.
        """
        known = self.read_history()
        if held is None:
            held = known.events[-1].held if known.events else ()
        event = Event(
            time=datetime.now(UTC), action=action, generation=generation, before=before,
            held=tuple(sorted(held)), generations=tuple(generations),
        )  # fmt: skip
        with open_key(signing) as signer:
            history.append(known, event, self._place, signer)

    def anchor(self, signing: Signing) -> tuple[str, ...]:
        """Record the folder as it is, whatever the record says: somebody looked at it. What was held and can
        still be read stays so. Gives the ids of the generations. Raises PublishError, SignError, OSError."""
        ids = self.ids()
        with open_key(signing) as signer:
            known = history.salvage(self.history_file, self._place)
            event = Event(
                time=datetime.now(UTC), action="anchor", generation=self.current_id(), generations=ids,
                held=known.events[-1].held if known.events else (),
            )  # fmt: skip
            history.write_line(known, event, self._place, signer)
        return ids

    def remove_leftovers(self, signing: Signing) -> tuple[str, ...]:
        """Remove what killed processes left half made or half removed. For the lock's holder alone.

        A whole generation is never removed here, also when the record does not know it: the record may have
        come from a backup. Gives what was removed, relative to this folder. Raises PublishError, SignError,
        OSError.
        """
        self.complete_switch(signing)
        removed = [file for file in self.path.glob(".*") if _is_leftover(file)]
        removed += [path for path in self.generations.glob(".*") if path.name.startswith(_INSIDE)]
        known = self.history()
        current = self.current_id()
        if current and current != last_switch(known):
            self._remember_lost_switch(current, known, signing)
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

    def _remember_lost_switch(self, current: str, known: tuple[Event, ...], signing: Signing) -> None:
        """A process was killed between its switch and its note of that. Where clients were led back from a
        generation that had passed its proof, somebody wanted that: its inputs are held."""
        before, held = last_switch(known), self.held()
        seen = current in {event.generation for event in known if event.action in SWITCHES}
        if seen and before in self.ids() and self.is_proven(before):
            held |= set(self.load(before).inputs.values()) - set(self.load(current).inputs.values())
        self.remember("rollback" if seen else "publish", current, signing, before=before, held=held)

    @property
    def _place(self) -> str:
        """Whose record this folder's is: one that was put here from elsewhere does not fit."""
        return f"{self.channel}/{self.path.name}"


def generation_id(time: datetime, content: str, taken: Path) -> str:
    """The name of a new generation in the folder ``taken``: when it was made (UTC), and what it holds.

    No two have the same second, so that the order of the names is that in which they were made.

    >>> generation_id(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "ab" * 32, Path("/nonexistent"))
    '20260102T030405Z-abababababab'
    """
    moment = time.astimezone(UTC)
    while any(taken.glob(f"{moment:%Y%m%dT%H%M%SZ}-*")):
        moment += timedelta(seconds=1)
    return f"{moment:%Y%m%dT%H%M%SZ}-{content[:12]}"


def _is_leftover(file: Path) -> bool:
    """Whether a process that was killed left it: what is to be renamed begins with its later name."""
    return (file.is_symlink() or file.is_file()) and bool(_BESIDE.match(file.name))


def last_switch(known: tuple[Event, ...]) -> str | None:
    """What the last switch led clients to, as the record tells; an anchor tells where they were led then."""
    telling = SWITCHES | {"anchor"}
    return next((event.generation for event in reversed(known) if event.action in telling), None)
