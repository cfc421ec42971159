"""The self-test alone, against a published repository as a client is given it; and what it came to."""

from __future__ import annotations

import configparser
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from backport import __version__
from backport.artifacts import Nevra
from backport.commands.documents import SelfTestDocument
from backport.commands.probe_view import advice_lines
from backport.commands.terminal import checks_table
from backport.errors import FetchError, UsageError, as_kind
from backport.files import locked, remove_tree, write_atomically
from backport.progress import Progress
from backport.repodata import metadata_files, nevra_of, read_packages
from backport.roots.dnf import expand_url, folder_of
from backport.roots.root import ExtraRepository
from backport.runs.job import Job
from backport.runs.report import junit_document, tally
from backport.selftest import Candidate, Examination, examine_candidate
from backport.settings import Key
from backport.trust import fingerprints_in, newest
from backport.web import Limits, get

REPO_FILE = "backport.repo"
SECTION = "backport"

_LIMIT = 256 * 1024 * 1024
_LIMITS = Limits(timeout=30.0, retries=2, total_timeout=600.0, size=_LIMIT)
_NOT_PUBLISHED = "`backport build` publishes; --repo names the folder of a target, which holds backport.repo"


@dataclass(frozen=True, kw_only=True)
class Examined:
    """One examination of a published repository."""

    recipe: str
    target: str
    repository: str
    """Where clients get the packages: the repository's base URL."""
    started: datetime
    seconds: float
    examination: Examination

    @property
    def passed(self) -> bool:
        """Whether no check failed, and each could be done or was skipped with a reason."""
        return not any(check.stops for check in self.examination.checks)

    def summary(self) -> str:
        """The result in one line."""
        stopped = [check.id for check in self.examination.checks if check.stops]
        bad = f"; not passed: {', '.join(stopped)}" if stopped else ""
        return f"{self.recipe} for {self.target}: {tally(self.examination.checks)}{bad}"


@as_kind(FetchError)
def run(job: Job, *, url: str | None, progress: Progress) -> Examined:
    """Examine what is published at ``url``, the folder of the target; default: the site's own.

    Raises FetchError where there is nothing to examine, HostError where this host cannot.
    """
    started, begin = datetime.now(UTC), time.monotonic()
    folder = job.site.paths.cache / "selftest"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock", timeout=0, what="another self-test is running"):
        workspace = folder / f"{job.name}-{job.target.name}"
        remove_tree(workspace)
        workspace.mkdir()
        candidate = published(job, url=url, workspace=workspace)
        examination = examine_candidate(
            candidate,
            job.recipe.self_test,
            job.target,
            cache=job.site.paths.cache,
            workspace=workspace,
            progress=progress,
        )
        write_atomically(workspace / "transcript.txt", examination.transcript)
    return Examined(
        recipe=job.name,
        target=job.target.name,
        repository=candidate.repository.baseurl,
        started=started,
        seconds=time.monotonic() - begin,
        examination=examination,
    )


def published(job: Job, *, url: str | None, workspace: Path) -> Candidate:
    """What clients are given at ``url``: its newest packages, with the keys that its .repo file names.

    Raises FetchError.
    """
    public = f"{job.base_url.rstrip('/')}/{job.target.name}"
    own = (job.site.paths.repository / job.target.name).resolve().as_uri()
    place = (url or own).rstrip("/")
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read_string(_get(f"{place}/{REPO_FILE}").decode("utf-8"))
        section = settings[SECTION]
        listed, keys = section.get("mirrorlist", ""), section["gpgkey"].split()
        baseurl = section["baseurl"] if not listed else ""
    except (configparser.Error, KeyError, UnicodeDecodeError) as problem:
        raise FetchError(f"{place}/{REPO_FILE} is no configuration of dnf: {problem}") from None
    if url is None:
        # This host publishes it: its files are here, whatever the URL is that clients see.
        baseurl, listed, *keys = (one.replace(public, own, 1) for one in (baseurl, listed, *keys))
    if listed:
        baseurl = _get(expand_url(listed, job.target)).decode("utf-8", "replace").strip()
        baseurl = baseurl.replace(public, own, 1) if url is None else baseurl
    baseurl = expand_url(baseurl, job.target)
    repository = ExtraRepository(
        id=SECTION,
        baseurl=baseurl,
        keys=tuple(_key(number, key, workspace) for number, key in enumerate(keys)),
        repo_gpgcheck=True,
    )
    return Candidate(packages=_packages(baseurl, workspace / "metadata"), repository=repository)


def shown(examined: Examined) -> Iterator[RenderableType]:
    """For people: the transcript, the table, the advice and, last, the summary."""
    yield examined.examination.transcript
    yield checks_table(examined.examination.checks)
    yield from advice_lines(examined.examination.checks)
    yield from examined.examination.headline
    yield Text(examined.summary(), style="bold green" if examined.passed else "bold red")


def as_document(examined: Examined) -> SelfTestDocument:
    """The JSON document."""
    return SelfTestDocument(
        tool=f"backport {__version__}",
        started=examined.started.replace(microsecond=0),
        seconds=round(examined.seconds, 3),
        passed=examined.passed,
        summary=examined.summary(),
        recipe=examined.recipe,
        target=examined.target,
        repository=examined.repository,
        headline=examined.examination.headline,
        checks=examined.examination.checks,
        transcript=tuple(examined.examination.transcript.splitlines()),
    )


def as_junit(examined: Examined) -> str:
    """JUnit XML, one test case a check."""
    name = f"backport selftest {examined.recipe} for {examined.target}"
    checks, started = examined.examination.checks, examined.started
    return junit_document(name, checks, started=started, seconds=examined.seconds)


def checked_url(url: str | None) -> str | None:
    """A repository's URL as it was given. Raises UsageError for what is none."""
    if url is not None and not url.startswith(("http://", "https://", "file:///")):
        raise UsageError(f"no URL: {url!r}", hint="it begins with https://, http:// or file:///")
    return url


def _packages(baseurl: str, folder: Path) -> tuple[Nevra, ...]:
    """The newest packages that the metadata describes; dnf verifies it when it installs from it."""
    base = baseurl.rstrip("/")
    (folder / "repodata").mkdir(parents=True)
    write_atomically(folder / "repodata" / "repomd.xml", _get(f"{base}/repodata/repomd.xml"))
    for name in metadata_files(folder):
        path = folder / "repodata" / Path(name).name
        if Path(name) != path.relative_to(folder):
            raise FetchError(f"{base}: its metadata names a file outside of repodata: {name!r}")
        write_atomically(path, _get(f"{base}/{name}"))
    return tuple(sorted(newest(map(nevra_of, read_packages(folder).values()))))


def _key(number: int, url: str, workspace: Path) -> Key:
    file = workspace / f"key-{number}.asc"
    write_atomically(file, _get(url))
    found = fingerprints_in(file)
    if len(found) != 1:
        raise FetchError(f"{url} holds {len(found)} keys, where a .repo file names one")
    return Key(fingerprint=found[0], file=file)


def _get(url: str) -> bytes:
    """A file of the repository, at most `_LIMIT` octets. Raises FetchError."""
    try:
        if folder := folder_of(url):
            with folder.open("rb") as stream:
                content = stream.read(_LIMIT + 1)
        else:
            content = get(url, limits=_LIMITS, hint=_NOT_PUBLISHED)
    except OSError as problem:
        raise FetchError(f"{url}: {problem.strerror}", hint=_NOT_PUBLISHED) from None
    if len(content) > _LIMIT:
        raise FetchError(f"{url} is larger than {_LIMIT} octets")
    return content
