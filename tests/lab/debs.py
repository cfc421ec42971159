"""Debian packages of the running release, fetched by a private apt that knows nothing of this host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from backport.run import Command, network_environment, run
from tests.lab.layout import LabError

APT_FOLDER = Path("/etc/apt")
SOURCE_SUITES = ("bullseye", "bookworm")
"""The Debian releases whose sources are compiled, whichever is running: bullseye's OpenSSL is 1.1.1, with
the sonames of Fedora 28's and 29's; bookworm's Exim 4.96 is the last that leaves the lowest protocol version
to OpenSSL's policy, as Fedora 28's does."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A Debian release: its number and its code name."""

    number: str
    codename: str


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One source of packages, as apt knows it: options hold ``Signed-By`` and the like."""

    uri: str
    suite: str
    options: dict[str, str]


def running_release(os_release: Path = Path("/etc/os-release")) -> Release:
    """The release of this host. Raises LabError where it is not Debian 12 or 13."""
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    number, codename = (fields.get(name, "").strip('"') for name in ("VERSION_ID", "VERSION_CODENAME"))
    if fields.get("ID") != "debian" or number not in {"12", "13"}:
        raise LabError("the lab is made from the packages of Debian 12 or 13, and this host is neither")
    return Release(number=number, codename=codename)


def debian_archives(release: Release, apt_folder: Path = APT_FOLDER) -> list[Archive]:
    """This host's own sources of the release's main component, from both of apt's formats.

    Other vendors' sources are left out: they may not be reachable. Raises LabError when none is left.
    """
    suites = {release.codename, f"{release.codename}-updates", f"{release.codename}-security"}
    lists = [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*.list"))]
    found = [archive for path in lists if path.is_file() for archive in _one_line_entries(path.read_text())]
    for path in sorted((apt_folder / "sources.list.d").glob("*.sources")):
        found += _deb822_entries(path.read_text())
    archives = [archive for archive in found if archive.suite in suites]
    if not any(archive.suite == release.codename for archive in archives):
        raise LabError(f"no source of Debian {release.codename} main in {apt_folder}")
    return archives


def _one_line_entries(text: str) -> Iterator[Archive]:
    """``deb [option=value …] URI SUITE COMPONENT …``: sources.list(5)."""
    for line in text.splitlines():
        entry = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
        if entry and "main" in entry[4].split():
            options = dict(word.split("=", 1) for word in (entry[1] or "").split() if "=" in word)
            named = {"signed-by": "Signed-By", "trusted": "Trusted"}
            kept = {named[key]: value for key, value in options.items() if key in named}
            yield Archive(uri=entry[2], suite=entry[3], options=kept)


def _deb822_entries(text: str) -> Iterator[Archive]:
    """Stanzas of ``Types``, ``URIs``, ``Suites``, ``Components``: sources.list(5)."""
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", without_comments):
        fields = {
            key: value.strip() for key, value in re.findall(r"(?m)^(\S+):((?:.*)(?:\n[ \t].*)*)", stanza)
        }
        if "deb" not in fields.get("Types", "").split() or "main" not in fields.get("Components", "").split():
            continue
        if fields.get("Enabled", "yes").lower() in {"no", "false"}:
            continue
        options = {key: fields[key] for key in ("Signed-By", "Trusted") if key in fields}
        for uri in fields["URIs"].split():
            for suite in fields["Suites"].split():
                yield Archive(uri=uri, suite=suite, options=options)


class Apt:
    """An apt of its own: its sources, state and cache lie in one folder, and nothing is installed.

    What it fetches therefore depends on the archive alone, whatever the host has.
    """

    def __init__(self, folder: Path, *, release: Release, log: Path) -> None:
        self.folder, self.release, self.log = folder, release, log
        for name in ("state/lists/partial", "cache/archives/partial", "etc", "sources"):
            (folder / name).mkdir(parents=True)
        (folder / "state/status").touch()
        (folder / "etc/debian.sources").write_text(self._sources())
        (folder / "apt.conf").write_text(self._host_acquire() + self._configuration())

    def update(self) -> None:
        """Fetch the lists of packages."""
        self._run("apt-get", "update", "-q", "--error-on=any", what="the lists of Debian's packages")

    def download_closure(self, names: Sequence[str]) -> list[Path]:
        """The named packages with everything that they need, as .deb files."""
        self._run("apt-get", "install", "-q", "-y", "--download-only", *names, what="Debian's packages")
        return sorted((self.folder / "cache/archives").glob("*.deb"))

    def download_source(self, name: str, *, prefix: str = "") -> Path:
        """The upstream tarball of a source package: its newest version that starts with ``prefix``."""
        self._run(
            "apt-get",
            "source",
            "-q",
            "--download-only",
            "--tar-only",
            f"{name}={self._source_version(name, prefix)}",
            what=f"Debian's source of {name}",
            cwd=self.folder / "sources",
        )
        tarballs = [*(self.folder / "sources").glob(f"{name}_*.orig.tar.[gx]z")]
        if len(tarballs) != 1:
            raise LabError(f"Debian's source of {name} holds {len(tarballs)} upstream tarballs, not one")
        return tarballs[0]

    def _source_version(self, name: str, prefix: str) -> str:
        shown = run(Command(["apt-cache", "showsrc", name], timeout=60, env=self._environment())).text
        versions = re.findall(rf"(?m)^Package: {re.escape(name)}\n(?:.+\n)*?Version: (\S+)$", shown)
        fitting = [version for version in versions if version.startswith(prefix)]
        if not fitting:
            raise LabError(
                f"Debian's archive has no source of {name} {prefix} (it has {', '.join(versions)})"
            )
        return str(fitting[0])

    def _run(self, *argv: str, what: str, cwd: Path | None = None) -> None:
        run(
            Command(
                argv, timeout=900, env=self._environment(), log=self.log, cwd=cwd, what=f"fetching {what}"
            )
        )

    def _environment(self) -> dict[str, str]:
        return {"APT_CONFIG": str(self.folder / "apt.conf"), **network_environment()}

    def _sources(self) -> str:
        archives = debian_archives(self.release)
        main = next(archive for archive in archives if archive.suite == self.release.codename)
        sources = [Archive(uri=main.uri, suite=suite, options=main.options) for suite in SOURCE_SUITES]
        return "\n".join(
            [_stanza("deb", archive) for archive in archives]
            + [_stanza("deb-src", archive) for archive in sources]
        )

    def _host_acquire(self) -> str:
        """How this host reaches its mirror: proxies, certificates, retries; none of its other settings."""
        dumped = run(Command(["apt-config", "dump"], timeout=60)).text
        return "".join(f"{line}\n" for line in dumped.splitlines() if line.startswith("Acquire::"))

    def _configuration(self) -> str:
        folder = self.folder
        return f"""
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/etc/debian.sources";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Acquire::Languages "none";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
"""


def _stanza(kind: str, archive: Archive) -> str:
    fields = {
        "Types": kind,
        "URIs": archive.uri,
        "Suites": archive.suite,
        "Components": "main",
        **archive.options,
    }
    return "".join(f"{key}: {value}\n" for key, value in fields.items())
