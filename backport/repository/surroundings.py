"""What lies beside the generations of a target's folder: link, record, keys, files for clients."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Check, Finding, Verdict
from backport.errors import BackportError, PublishError
from backport.files import read_regular
from backport.repository.clients import (
    MIRRORLIST,
    SiteKeys,
    client_files,
    generation_url,
    key_of,
    keys_named,
    mirrorlist,
    repo_file,
    site_keys,
)
from backport.repository.contents import repositories_of
from backport.repository.generations import Generation, TargetFolder, last_switch
from backport.repository.history import SWITCHES, History
from backport.repository.overview import PAGE, rendered_page
from backport.repository.tree import MAX_BYTES, difference, strange
from backport.settings import Key
from backport.site import Site, find_target
from backport.target import Target

_GC = "`backport repo gc` writes it anew"
_RESTORE = "restore what is missing from a copy, or accept what is there by `backport repo anchor`"


EXTRA = "is an extra file, which nothing names"


@dataclass(frozen=True, kw_only=True, order=True)
class Fault:
    """One thing that is not as it was published."""

    path: str
    """Relative to the target's folder."""
    detail: str

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}"


def surroundings(
    folder: TargetFolder, target: Target, keys: Sequence[Key], site: SiteKeys | None, base_url: str | None
) -> Iterator[Fault]:
    """What is wrong beside the generations. ``keys`` are those of which one must have signed."""
    record, wrong = _current(folder)
    if wrong:
        yield wrong
    yield from _about_entries(folder)
    yield from _about_record(folder, keys)
    known = {key.fingerprint for key in keys} | set(site.known if site else ())
    if record:
        yield from about_clients(folder, record, target, site, base_url)
        yield from _about_keys(folder, known)
        if record.fingerprint not in known:
            yield _fault(folder, folder.public_key, f"is not the key {record.fingerprint} that signs")


def keys_beside(folder: TargetFolder) -> list[Path]:
    """The key files that lie beside the generations. Raises PublishError when there is none."""
    found = sorted(folder.path.glob(f"{folder.public_key.name}*"))
    if not found:
        raise PublishError(f"{folder.public_key}: is missing", hint="name the key's file by --key")
    return found


def _current(folder: TargetFolder) -> tuple[Generation | None, Fault | None]:
    try:
        record = folder.current_generation()
    except PublishError as problem:
        return None, _fault(folder, folder.current, problem.message)
    hint = "`backport repo rollback ID` leads clients to a generation"
    return record, None if record else _fault(
        folder, folder.current, f"is missing: clients find nothing; {hint}"
    )


def _about_entries(folder: TargetFolder) -> Iterator[Fault]:
    """Files and folders with other names, kinds, owners or modes than they should have."""
    if folder.path.is_symlink():
        yield Fault(path=".", detail="is a symbolic link")
    for path in (folder.path, folder.generations):
        mode = path.lstat().st_mode
        # Somebody's group may publish; nobody else may.
        if not stat.S_ISDIR(mode) or mode & 0o5002 or mode & 0o555 != 0o555:
            yield _fault(folder, path, f"has the kind and mode {stat.filemode(mode)}")
    for path in sorted(folder.path.iterdir()):
        if path not in (folder.current, folder.generations) and (detail := _about_entry(folder, path)):
            yield _fault(folder, path, detail)
    ids = set(folder.ids())
    for path in sorted(folder.generations.iterdir()):
        if path.name not in ids:
            yield _fault(folder, path, "is no generation; see `backport repo gc`")


def _about_entry(folder: TargetFolder, path: Path) -> str:
    status, name = path.lstat(), path.name
    if name == ".lock":
        return "" if stat.S_ISREG(status.st_mode) else "is no plain file"
    plain = {folder.history_file.name, PAGE, folder.repo_file.name}
    if name not in plain and not name.startswith(folder.public_key.name):
        return EXTRA
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    return strange(status, folder.path.stat().st_uid)


def _about_record(folder: TargetFolder, keys: Sequence[Key]) -> Iterator[Fault]:
    """What the record and the folder say of each other, which both must bear out."""
    path, ids = folder.history_file, folder.ids()
    try:
        history, current = folder.read_history(), folder.current_id()
    except PublishError as problem:
        yield _fault(folder, path, f"{problem.message.removeprefix(f'{path}: ')}; {problem.hint}")
        return
    if not history.events:
        yield _fault(folder, path, f"is missing or empty, and there are {len(ids)} generations; {_RESTORE}")
        return
    if reason := history.check_signature(keys):
        yield _fault(folder, path, reason)
    if current != last_switch(history.events):
        yield _fault(
            folder, folder.current, f"leads to {current}, the record says {last_switch(history.events)}"
        )
    for one in folder.unknown():
        yield _fault(
            folder, folder.folder_of(one), f"the record does not know it: it was cut or is older; {_RESTORE}"
        )
    for one in sorted(_should_be_there(history) - set(ids)):
        yield _fault(
            folder, folder.folder_of(one), "is gone; it was published, and is not recorded as removed"
        )
    yield from _about_generations(folder, history, current)


def _about_generations(folder: TargetFolder, history: History, current: str | None) -> Iterator[Fault]:
    accepted = {name for event in history.events if event.action == "anchor" for name in event.generations}
    for one in folder.ids():
        try:
            record = folder.load(one)
        except PublishError:
            continue
        if record.history and record.history not in history.prefixes and one not in accepted:
            yield _fault(
                folder,
                history.path,
                f"does not hold what it held when {one} was made: it was cut or replaced; {_RESTORE}",
            )
        if one == current and record.history and not folder.is_proven(one):
            yield _fault(
                folder, folder.current, f"no client is recorded to have installed from {one}; build once more"
            )


def _should_be_there(history: History) -> set[str]:
    """What clients were led to since lines are signed, and nobody removed."""
    found: set[str] = set()
    for event in history.events:
        if event.action == "prune":
            found -= set(event.generations)
        elif event.action == "anchor":
            found = set(event.generations)
        elif event.action in SWITCHES and event.key and event.generation:
            found.add(event.generation)
    return found


def about_clients(
    folder: TargetFolder, record: Generation, target: Target, site: SiteKeys | None, base_url: str | None
) -> Iterator[Fault]:
    """The files for clients are a function of the site and of the generation. Where the site is not at hand,
    the .repo file is compared with what its own address and its own keys make it."""
    url = base_url or _own_url(folder, target)
    if site is None:
        if detail := _repo_file_alone(folder, target, url):
            yield _fault(folder, folder.repo_file, detail)
    else:
        for name, text in client_files(folder, [record], site, target=target, base_url=url).items():
            if detail := difference(folder.path / name, text):
                yield Fault(path=name, detail=f"{detail}; {_GC}")
    for name in repositories_of(target):
        path = folder.folder_of(record.id) / name / MIRRORLIST
        if detail := difference(path, mirrorlist(generation_url(url, target, record.id), name)):
            yield _fault(folder, path, f"{detail}; {_GC}")
    try:
        page = rendered_page(folder, record, target, url)
    except PublishError as problem:
        yield Fault(path=PAGE, detail=f"cannot be compared: {problem.message}")
        return
    if detail := difference(folder.path / PAGE, page):
        yield Fault(path=PAGE, detail=f"{detail}; {_GC}")


def check_clients(site: Site) -> tuple[Check, ...]:
    """For each target in the stable channel, whether what clients get beside packages is what the site says:
    the repository may have moved."""
    places = sorted(site.paths.repository.glob("*/current"))
    return tuple(_check_clients(site, place.parent.name) for place in places)


def _check_clients(site: Site, name: str) -> Check:
    folder = TargetFolder.of(site.paths.repository, name)
    try:
        target, record = find_target(site, name), folder.current_generation()
        found = about_clients(folder, record, target, site_keys(site.signing), site.url) if record else ()
        faults = [str(fault) for fault in found]
    except BackportError as problem:
        finding = Finding.of_problem(problem, advice="", verdict=Verdict.WARN)
    else:
        advice = f"backport repo gc --target {name}"
        finding = Finding.unless(faults, expected=site.url, found="it does", advice=advice)
    return Check.of(f"published.{name}", f"what is published for {name} leads to this site", finding)


def _repo_file_alone(folder: TargetFolder, target: Target, url: str) -> str:
    try:
        text = read_regular(folder.repo_file, limit=MAX_BYTES).decode()
        names = [key.rpartition("/")[2] for key in keys_named(text)]
        made = repo_file(target, url, names)
    except FileNotFoundError:
        return f"is missing; {_GC}"
    except Exception as problem:  # noqa: BLE001  # whatever a parser says of somebody else's text
        return f"cannot be read: {problem}"
    if text != made:
        return f"is not what {url or 'one address'} and the published generation make it; {_GC}"
    missing = [name for name in names if not (folder.path / name).is_file()]
    return f"names {missing[0]}, which is not there" if missing else ""


def _own_url(folder: TargetFolder, target: Target) -> str:
    """The address that a .repo file gives as its own; empty where it gives none."""
    try:
        text = read_regular(folder.repo_file, limit=MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    found = re.search(rf"^(?:baseurl|mirrorlist)=(\S+)/{re.escape(target.name)}/current/", text, re.MULTILINE)
    return found[1] if found else ""


def _about_keys(folder: TargetFolder, known: set[str]) -> Iterator[Fault]:
    """Each key file holds one key, which somebody vouches for, and has the name of that key."""
    for path in sorted(folder.path.glob(f"{folder.public_key.name}*")):
        try:
            fingerprint = key_of(path)
        except PublishError as problem:
            yield _fault(folder, path, problem.message.removeprefix(f"{path}: "))
            continue
        if fingerprint not in known:
            yield _fault(folder, path, f"holds the key {fingerprint}, which is not among those that may sign")
        elif path.name not in {folder.public_key.name, f"{folder.public_key.name}-{fingerprint[-16:]}"}:
            yield _fault(folder, path, f"has not the name of its key, {fingerprint}")
    if not folder.public_key.exists():
        yield _fault(folder, folder.public_key, f"is missing; {_GC}")


def _fault(folder: TargetFolder, path: Path, detail: str) -> Fault:
    return Fault(path=path.relative_to(folder.path).as_posix(), detail=detail)
