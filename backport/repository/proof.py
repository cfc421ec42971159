"""The proof that a client can install what is to be published: by HTTP, with both signature checks on."""

from __future__ import annotations

import configparser
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import rpm as rpm_bindings

from backport.artifacts import Check, Finding, Rpm
from backport.errors import PublishError, ToolError, as_kind
from backport.progress import Progress, Silent
from backport.repository.clients import MIRRORLIST, mirrorlist
from backport.repository.contents import basearch, path_of
from backport.repository.generations import Generation, TargetFolder
from backport.repository.page import PROOF
from backport.roots.dnf import expand_url
from backport.roots.root import ExtraRepository, Root, clean_root
from backport.settings import Key
from backport.target import Target
from backport.trust import fingerprints_in, nevra_of, read_header
from backport.web import Limits, get

REPOSITORY_ID = "backport"
_LIMITS = Limits(timeout=30.0, retries=0, total_timeout=60.0, size=1024**2)


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A generation that is shown to a client."""

    folder: TargetFolder
    record: Generation
    content: Path
    """The generation's own folder; until it is proven it has not its own name."""
    url: str
    """The URL of the channel's folder as clients see it."""
    packages: tuple[Rpm, ...]
    """What the client is to install, as it was tested; without any it only updates what it has."""
    provided: tuple[str, ...] = ()
    """Capabilities that something must provide, in the generation or in the target's repositories."""


Prover = Callable[[Exhibit], tuple[Check, ...]]


@as_kind(PublishError)
def prove(
    exhibit: Exhibit, *, target: Target, cache: Path, workspace: Path, progress: Progress | None = None
) -> tuple[Check, ...]:
    """Install from a generation in a clean root as a client would, and look at what came of it.

    The client's files are those that are published, asked for by HTTP; only the host and port in
    their URLs are those of a server on loopback, and what the link `current` would lead to is the
    generation under its own URL, so that no other client need see it yet.
    The first check that fails is the last: without installed packages there is nothing to look at.

    Raises BuildRootError when no clean root can be made. ``workspace/proof.log`` tells what dnf did.
    """
    (progress or Silent()).note("installing from the new generation over HTTP")
    own = f"/{target.name}/generations/{exhibit.record.id}/"
    with served(exhibit.folder.path.parent, {own: exhibit.content}) as url:
        settings = _Client(url=f"{url}/{target.name}", exhibit=exhibit, target=target, folder=workspace)
        checks = [settings.check_files()]
        if checks[-1].stops:
            return tuple(checks)
        with clean_root(target, cache=cache, workspace=workspace) as root:
            checks.append(settings.check_installation(root))
            if not checks[-1].stops and exhibit.packages:
                checks.append(settings.check_packages(root))
            if not checks[-1].stops and exhibit.provided:
                checks.append(settings.check_provided(root))
    return tuple(checks)


@contextlib.contextmanager
def served(folder: Path, others: Mapping[str, Path] | None = None) -> Iterator[str]:
    """The URL of a folder that a web server on loopback serves while the block lasts.

    ``others`` are folders by the paths, with a slash at either end, under which they are seen in it.
    """
    handler = functools.partial(_Quiet, directory=str(folder), others=others or {})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="published repository")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def __init__(self, *arguments: Any, others: Mapping[str, Path], **options: Any) -> None:
        self.others = others
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        """The file that a URL's path names."""
        folder = self.directory
        for place, other in self.others.items():
            if path.startswith(place):
                path, self.directory = path[len(place) - 1 :], str(other)
        try:
            return super().translate_path(path)
        finally:
            self.directory = folder

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's own name
        """Say nothing."""


class _Client:
    """A client of the repository, with what it fetched from the server on loopback."""

    def __init__(self, *, url: str, exhibit: Exhibit, target: Target, folder: Path) -> None:
        self.url = url
        self.exhibit = exhibit
        self.target = target
        self.folder = folder
        self.repository: ExtraRepository | None = None

    def check_files(self) -> Check:
        """The .repo file and the key that it names, as a client gets them."""
        check_id = "publish.client-files"
        expected = "both signature checks are on, the key is the signing key, `current` leads to the packages"
        try:
            self.repository = self._fetch_settings()
        except (configparser.Error, ToolError, LookupError, ValueError) as problem:
            advice = "look at the .repo file and the key in the repository's folder"
            return _proof(
                check_id, Finding.unless([str(problem)], expected=expected, found="", advice=advice)
            )
        found = f"{self.exhibit.folder.repo_file.name} leads to {self.repository.baseurl}"
        return _proof(check_id, Finding.passed(found, expected=expected))

    def check_installation(self, root: Root) -> Check:
        """Install by name, as dnf on a client does."""
        assert self.repository is not None  # noqa: S101  # check_files passed
        log = self.folder / "proof.log"
        names = [f"{rpm.nevra.name}-{rpm.nevra.evr}.{rpm.nevra.arch}" for rpm in self.exhibit.packages]
        packages = f"{len(names)} packages"
        try:
            change = root.install if names else root.update
            change(names, extra=(self.repository,), log=log)
        except ToolError as problem:
            advice = "mend what dnf names, then publish again"
            return _proof("publish.install", Finding.of_problem(problem, expected=packages, advice=advice))
        return _proof("publish.install", Finding.passed(packages, expected=packages, evidence=str(log)))

    def check_packages(self, root: Root) -> Check:
        """Compare what is installed with what was tested, and its signature with the published one's."""
        packages = self.exhibit.packages
        files = {rpm.nevra: self.exhibit.content / path_of(rpm, self.target) for rpm in packages}
        installed = {_identity_of(header) for header in root.headers()}
        missing = [
            f"{rpm.nevra} does not"
            for rpm in packages
            if _identity(files[rpm.nevra]) not in installed
            or _identity(files[rpm.nevra])[:2] != _identity(rpm.path)[:2]
        ]
        return _proof("publish.installed", Finding.unless(
            missing, advice="another repository's package won over the published one",
            expected="every package has the header that was tested, and the signature that was published",
            found=f"{len(packages)} packages do",
        ))  # fmt: skip

    def check_provided(self, root: Root) -> Check:
        """Ask dnf for what nothing provides."""
        assert self.repository is not None  # noqa: S101  # check_files passed
        wanted = self.exhibit.provided
        missing = root.dnf.without_provider(wanted, extra=(self.repository,))
        finding = Finding.judged(
            good=not missing, expected=", ".join(wanted), evidence="\n".join(missing), advice="",
            found=f"nothing provides {', '.join(missing)}" if missing else "something provides all of it",
        )  # fmt: skip
        return Check.of("publish.provided", "What other packages require is still there", finding)

    def _fetch_settings(self) -> ExtraRepository:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(self._get(f"{self.url}/{self.exhibit.folder.repo_file.name}"))
        section = parser[REPOSITORY_ID]
        for option in ("enabled", "gpgcheck", "repo_gpgcheck"):
            if not section.getboolean(option):
                raise ValueError(f"{option} is not on")
        keys = [self._fetch_key(number, url) for number, url in enumerate(section["gpgkey"].split())]
        signer = self.exhibit.record.fingerprint
        if keys[0].fingerprint != signer:
            raise ValueError(f"the first key is {keys[0].fingerprint}, not {signer}")
        return ExtraRepository(
            id=REPOSITORY_ID,
            baseurl=self._here(self._mirror(section["mirrorlist"])),
            keys=tuple(keys),
            repo_gpgcheck=True,
        )

    def _mirror(self, url: str) -> str:
        """What the mirror list names, which a client gets through `current`."""
        name = basearch(self.target)
        public = f"{self.exhibit.url.rstrip('/')}/{self.target.name}"
        if expand_url(url, self.target) != f"{public}/current/{name}/{MIRRORLIST}":
            raise ValueError(f"{url} is not the mirror list below {public}/current/")
        own = f"{public}/generations/{self.exhibit.record.id}"
        told = self._get(self._here(f"{own}/{name}/{MIRRORLIST}"))
        if told != mirrorlist(own, name):
            raise ValueError(f"the mirror list names {told.strip()}, not {own}/{name}/")
        return told.strip()

    def _fetch_key(self, number: int, url: str) -> Key:
        file = self.folder / f"published-key-{number}.asc"
        file.write_text(self._get(self._here(url)), encoding="ascii")
        (fingerprint,) = fingerprints_in(file)
        return Key(fingerprint=fingerprint, file=file)

    def _here(self, url: str) -> str:
        """A published URL with the host of the server on loopback."""
        public = f"{self.exhibit.url.rstrip('/')}/{self.target.name}/"
        if not url.startswith(public):
            raise ValueError(f"{url} does not begin with {public}")
        return f"{self.url}/{url.removeprefix(public)}"

    @staticmethod
    def _get(url: str) -> str:
        hint = "is the folder of the repository whole?"
        return get(url, limits=_LIMITS, hint=hint, environment=False).decode()


def _proof(check_id: str, finding: Finding) -> Check:
    return Check.of(check_id, PROOF[check_id], finding)


def _identity(path: Path) -> tuple[str, str, bytes]:
    return _identity_of(read_header(path))


def _identity_of(header: Any) -> tuple[str, str, bytes]:
    """NEVRA, the header's digest (over everything but signatures), and the header's signature."""
    digest = header[rpm_bindings.RPMTAG_SHA256HEADER] or ""
    return str(nevra_of(header)), str(digest), bytes(header[rpm_bindings.RPMTAG_RSAHEADER] or b"")
