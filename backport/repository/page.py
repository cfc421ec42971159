"""The page that a target's folder shows to people: one file of HTML that needs neither script nor network.

All text is escaped (jinja2's autoescape): package names, test transcripts and advisories come from
elsewhere. The page forbids scripts and all loading by a policy of its own, too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import jinja2

from backport.artifacts import Check, Verdict
from backport.repository.advisories import Advisory
from backport.repository.builds import Build

PROOF = {
    "publish.client-files": "A client gets the .repo file and the key",
    "publish.install": "dnf installs the packages by HTTP with gpgcheck and repo_gpgcheck",
    "publish.installed": "What is installed is what was tested and published",
}
"""The checks of the proof (see `backport.repository.proof`), of which each passed where one is recorded."""
_GRAVEST = (Verdict.FAIL, Verdict.ERROR, Verdict.WARN, Verdict.SKIPPED)
_GROUPS = {"gate": "gates", "publish": "a client's proof"}
"""What groups of checks are called whose ids begin otherwise."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of what clients saw."""

    time: datetime
    action: str
    generation: str
    gone: bool = False
    """Whether the generation was removed since."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that whoever uses the repository is to know first."""

    time: datetime
    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Tests:
    """What was tested of one recipe's packages, and proven since."""

    recipe: str
    headline: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    tested: datetime | None = None
    transcript: str = ""

    @property
    def told(self) -> tuple[Check, ...]:
        """The checks that did not simply pass, the gravest first."""
        order = list(_GRAVEST)
        return tuple(
            sorted(
                (one for one in self.checks if one.verdict in order), key=lambda one: order.index(one.verdict)
            )
        )

    @property
    def passed(self) -> tuple[tuple[str, tuple[Check, ...]], ...]:
        """The checks that passed, by what they are about, which their ids begin with."""
        groups: dict[str, list[Check]] = {}
        for one in self.checks:
            if one.verdict is Verdict.PASS:
                groups.setdefault(one.id.partition(".")[0], []).append(one)
        return tuple((_GROUPS.get(name, name), tuple(group)) for name, group in groups.items())


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One target in one channel, in the list of all that a repository has."""

    target: str
    channel: str
    path: str
    """Of its folder, relative to the repository's."""
    changed: datetime
    packages: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything that the page tells. Paths are relative to the generation's folder."""

    target: str
    summary: str
    base_url: str
    """The URL of the target's folder."""
    fingerprint: str
    public_key: str
    """The name of the key's file."""
    generation: str
    made: datetime
    builds: tuple[Build, ...]
    notices: tuple[Notice, ...] = ()
    """The newest first."""
    tests: tuple[Tests, ...] = ()
    """One for each recipe whose packages are here."""
    advisories: tuple[Advisory, ...] = ()
    history: tuple[Event, ...] = ()
    """The newest first."""
    evidence: tuple[tuple[str, str], ...] = ()
    """Path and meaning of each file of evidence."""

    @property
    def packages(self) -> int:
        """How many binary packages there are, those for debugging left out."""
        return sum(len(build.packages) for build in self.builds)


def render_page(page: Page) -> str:
    """The page's HTML."""
    return _environment().get_template("index.html.j2").render(page=page)


def render_index(entries: Sequence[Entry]) -> str:
    """The HTML of the list of targets and channels."""
    return _environment().get_template("repository.html.j2").render(entries=entries)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("backport"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "day": _day,
        "moment": _moment,
        "grouped": _grouped,
        "tally": _tally,
    }
    environment.tests["link"] = _is_link
    return environment


def _day(time: datetime) -> str:
    return f"{time.astimezone(UTC).day} {time.astimezone(UTC):%B %Y}"


def _moment(time: datetime) -> str:
    return f"{_day(time)}, {time.astimezone(UTC):%H:%M} UTC"


def _grouped(fingerprint: str) -> str:
    """A fingerprint as gpg shows it to people: in groups of four digits."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


def _tally(checks: Sequence[Check]) -> str:
    """How many checks came to which verdict, in words."""
    count = Counter(check.verdict for check in checks)
    names = {
        Verdict.PASS: "passed",
        Verdict.FAIL: "failed",
        Verdict.WARN: "with a warning",
        Verdict.SKIPPED: "skipped",
        Verdict.ERROR: "without a result",
    }
    told = ", ".join(f"{count[verdict]} {name}" for verdict, name in names.items() if count[verdict])
    return f"{len(checks)} check{'s' * (len(checks) != 1)}: {told}."


def _is_link(url: str) -> bool:
    """Whether a browser may be sent there; ``javascript:`` and the like are only shown."""
    return url.startswith(("https://", "http://"))
