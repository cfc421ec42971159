"""A recipe: which source packages to carry over, with which changes, and what proves the result."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from backport.artifacts import BuildOptions, Nevra
from backport.errors import UsageError
from backport.settings import Name, Settings, SettingsFile, Url, load, unknown


def _nvr(value: str) -> str:
    Nevra.from_nvr(value)
    return value


def _inside(value: str) -> str:
    if not value or value.startswith("/") or ".." in Path(value).parts:
        raise ValueError("must be a path inside the patches folder")
    return value


Nvr = Annotated[str, AfterValidator(_nvr)]
"""A build's name-version-release as Koji writes it."""

MacroName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{2,}$")]
"""The name of an rpm macro, without the %."""

CheckId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$")]
"""A check's stable name: lower-case words joined by hyphens or dots."""


class Patch(Settings):
    """A patch file below the patches folder, and how many leading path parts ``patch`` strips."""

    file: Annotated[str, AfterValidator(_inside)]
    """Path below the patches folder, such as ``openssl/f28-security-policy.patch``."""
    strip: int = Field(default=1, ge=0, le=9)
    """How many leading path parts ``patch -p`` strips."""


class SpecEdit(Settings):
    """A change to the spec's text at an anchor, which must match exactly once."""

    action: Literal["insert_before", "insert_after", "replace", "delete"]
    """What is done at the anchor."""
    anchor: str = Field(min_length=1)
    """Whole or partial line, or several lines, just as they stand in the spec."""
    text: str = ""
    """What is inserted, or takes the anchor's place; ``delete`` takes none."""

    @model_validator(mode="after")
    def _text_fits_action(self) -> SpecEdit:
        if (self.action == "delete") != (self.text == ""):
            raise ValueError("every action but delete needs a text, and delete takes none")
        return self


class Build(Settings):
    """How one package is built."""

    with_: tuple[Name, ...] = Field(default=(), alias="with")
    """Build conditions to switch on (``--with``)."""
    without: tuple[Name, ...] = ()
    """Build conditions to switch off (``--without``)."""
    macros: dict[MacroName, str] = {}
    """Macros to define."""
    undefine: tuple[MacroName, ...] = ()
    """Macros of the target's rpm to unset, by ``%undefine`` on the spec's first lines; of several
    definitions of one macro that is the last. What the spec itself defines is changed by ``edits``."""
    check: bool = True
    """Whether %check runs."""
    timeout: int = Field(default=4 * 3600, ge=1, le=7 * 24 * 3600)
    """Deadline of the build in seconds."""
    processes: int | None = Field(default=None, ge=64, le=4_000_000)
    """How many processes the build may have at a time, threads among them. Default: 4096, or 256 for each
    core where that is more."""
    memory: int | None = Field(default=None, ge=64)
    """How much memory the build may use, in MiB. Default: nine tenths of the host's."""
    files: int | None = Field(default=None, ge=256, le=1024 * 1024)
    """How many files each of its processes may have open. Default: 16384."""

    @model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Build:
        if both := sorted(set(self.macros) & set(self.undefine)):
            raise ValueError(f"macros and undefine both name {', '.join(both)}")
        return self

    def options(self) -> BuildOptions:
        """The same as the artifact that builders take."""
        return BuildOptions(**self.model_dump(exclude={"undefine"}))


class Package(Settings):
    """One source package of the recipe."""

    nvr: Nvr
    """The build in Koji to start from."""
    bump: int = Field(default=1, ge=1, le=9999)
    """The N of ``.bpN`` in the release: raise it for every change to an already published package."""
    patches: tuple[Patch, ...] = ()
    """Patches to add, in the order in which they apply."""
    edits: tuple[SpecEdit, ...] = ()
    """Changes to the spec's text, made before the patches are added."""
    stock: tuple[str, ...] = ()
    """Names of which the target's own packages will do, so that this package's build does not wait for
    the recipe's: what breaks a circle."""
    changelog: tuple[str, ...] = ()
    """Lines of the new changelog entry; without any, one is written from the patches' names."""
    build: Build = Build()

    @field_validator("patches", mode="before")
    @classmethod
    def _plain_names(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            return [{"file": item} if isinstance(item, str) else item for item in value]
        return value


class Source(Settings):
    """Where the source packages come from."""

    kind: Name = "koji"
    """The kind of source, of those in `backport.sources.SOURCES`."""
    tag: Name
    """The Koji tag that every build must carry, itself or by one that it inherits from. ``backport search``
    looks in it; where the hub has no such build as a package's ``nvr``, the tag's latest is suggested."""
    keys: tuple[Name, ...] = Field(min_length=1)
    """Names of the keys of which one must have signed every source package."""


Protocol = Literal["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]


class Handshake(Settings):
    """What a STARTTLS handshake negotiates."""

    protocol: Protocol
    """The protocol version."""
    cipher: str | None = None
    """The suite's OpenSSL name; none where any will do."""


class Starttls(Settings):
    """The proof by STARTTLS: a real Exim, before and after the update."""

    library: Name = "openssl-libs"
    """The package that must own the libssl which the running daemon has mapped."""
    before: Handshake
    """The negative control: what the target's own packages negotiate."""
    after: Handshake
    """What a default client and the backported packages negotiate."""
    refused: tuple[Literal["TLSv1", "TLSv1.1", "TLSv1.2"], ...] = ("TLSv1",)
    """Old protocol versions that are tried, each alone. Those that the crypto policy in force forbids must
    be refused, and all of them where there is none; what it permits is a warning when it is accepted."""


def _pattern(value: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, Warning, OverflowError, RecursionError) as problem:
        raise ValueError(f"not a regular expression: {problem}") from None
    return value


def _absolute(value: str) -> str:
    if not value.startswith("/") or ".." in Path(value).parts or not value.isprintable():
        raise ValueError("must be a whole path inside the root, such as /etc/nginx/nginx.conf")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression, as Python's ``re`` has them."""

CheckPart = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
"""A part of a check's name: lower-case words joined by hyphens."""


class Answer(Settings):
    """What a service must answer."""

    protocol: Protocol | None = None
    """The protocol version that a default client negotiates."""
    cipher: str | None = None
    """The suite's OpenSSL name; none where any will do."""
    banner: Pattern = ""
    """Regular expression that must be found in the first 4096 octets of what the service says, inside TLS
    where there is any; by ``starttls-smtp``, in the first line of its greeting."""

    @model_validator(mode="after")
    def _expects_something(self) -> Answer:
        if self.cipher and not self.protocol:
            raise ValueError("cipher needs a protocol")
        if not self.protocol and not self.banner:
            raise ValueError("needs a protocol or a banner: nothing would be asked")
        return self


class Service(Settings):
    """The proof by any daemon: it is started before and after the update, and asked on its port."""

    id: CheckPart
    """The service's name in reports: its checks are called ``service.ID.``."""
    run: tuple[str, ...] = Field(min_length=1)
    """The daemon's path inside the root, and its arguments: such that it stays in the foreground."""
    files: dict[Annotated[str, AfterValidator(_absolute)], str] = {}
    """Files that it finds, such as its configuration: whole paths inside the root, and the text of each."""
    port: int = Field(ge=1, le=65535)
    """The TCP port that it must listen on."""
    ask: Literal["plain", "tls", "starttls-smtp"] = "plain"
    """How it is asked: in clear, by TLS from the first octet on, or by SMTP with STARTTLS."""
    say: str = ""
    """What the client says first, such as ``"GET / HTTP/1.0\\r\\n\\r\\n"``; SMTP has its own words."""
    library: Name | None = None
    """The package of whose libraries the running daemon must have mapped one, as the candidate has it."""
    before: Answer | None = None
    """The negative control: what it answers with the target's own packages; without it, it is not started
    before the update."""
    after: Answer
    """What it answers after the update."""

    @model_validator(mode="after")
    def _can_be_asked(self) -> Service:
        answers = [one for one in (self.before, self.after) if one]
        if self.ask == "plain" and any(one.protocol for one in answers):
            raise ValueError('a protocol is negotiated with ask = "tls" or "starttls-smtp" alone')
        if self.ask != "plain" and not all(one.protocol for one in answers):
            raise ValueError(f'ask = "{self.ask}" needs a protocol in before and after')
        if self.ask == "starttls-smtp" and self.say:
            raise ValueError("say has no meaning with starttls-smtp")
        return self


class Command(Settings):
    """A program run inside the updated root, and what it must say."""

    id: CheckId
    """The check's name in reports: it becomes ``command.ID``."""
    run: tuple[str, ...] = Field(min_length=1)
    """The program's path inside the root, and its arguments; no shell reads them."""
    exit: int = 0
    """The exit code that is expected."""
    output: Pattern = ""
    """Regular expression that the output must contain."""


class SelfTest(Settings):
    """What must be shown in a clean root before anything is published."""

    install: tuple[Name, ...] = ()
    """The target's own packages that are installed first, before the update."""
    update: tuple[Name, ...] = ()
    """Packages that the update must bring in although nothing of them was installed. Where none is named and
    none of the recipe's packages was there, all of them are installed."""
    starttls: Starttls | None = None
    """The mail server's examination."""
    service: tuple[Service, ...] = ()
    """Daemons that must run and answer, before and after the update."""
    commands: tuple[Command, ...] = ()
    """Programs that must run after the update."""

    @model_validator(mode="after")
    def _proves_something(self) -> SelfTest:
        if not self.asked():
            raise ValueError(f"needs one of {', '.join(self.kinds())}: nothing untested is published")
        names = [one.id for one in self.service]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two services are called {', '.join(twice)}")
        return self

    @classmethod
    def kinds(cls) -> tuple[str, ...]:
        """The kinds of the self-test, in the order in which they are asked: each is a field."""
        return tuple(name for name in cls.model_fields if name not in ("install", "update"))

    def asked(self) -> dict[str, Any]:
        """What is asked for, by its kind."""
        return {kind: asked for kind in self.kinds() if (asked := getattr(self, kind))}


class Advisory(Settings):
    """What clients are told of the update (``dnf updateinfo``)."""

    type: Literal["security", "bugfix", "enhancement"] | None = None
    """Default: security where the changelogs' new entries name a CVE, else enhancement."""
    severity: Literal["Critical", "Important", "Moderate", "Low", "None"] | None = None
    """How urgent the update is, in the words of Red Hat's severity ratings."""
    title: str = Field(default="", max_length=200)
    """Default: the recipe's summary."""
    description: str = ""
    """What the update brings, in sentences; every CVE that it settles is named after them."""
    references: tuple[Url, ...] = ()
    """Pages where there is more to read, such as bugs or CVE records."""


class Gates(Settings):
    """What is asked of the packages after the self-test, before anything is published."""

    consumers: dict[Name, Annotated[tuple[str, ...], Field(min_length=1)]] = {}
    """Packages of the target that must still start after the update: for each a program with its
    arguments that ends with exit code 0 where all is well."""
    warn: dict[str, Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]] = {}
    """Gates of which a failure is only a warning, each with the reason: a gate's name without ``gate.``,
    such as ``abi``, or a part of it, such as ``"abi.openssl-libs"`` (in quotes: TOML splits at dots)."""

    def reason_to_warn(self, gate: str) -> str | None:
        """Why a failure of this gate is only a warning: the longest name that fits wins; None: it is none."""
        fitting = [name for name in self.warn if gate == name or gate.startswith(f"{name}.")]
        return self.warn[max(fitting, key=len)] if fitting else None


class Recipe(SettingsFile):
    """Everything that backport has to know about one backport."""

    summary: str = Field(min_length=1, max_length=200)
    """What the backport is for, in one line."""
    targets: tuple[Name, ...] = Field(min_length=1)
    """The targets that the changes were made for."""
    source: Source
    packages: dict[Name, Package] = Field(min_length=1)
    """The source packages, by name. Their build order follows from their dependencies."""
    self_test: SelfTest
    advisory: Advisory = Advisory()
    gates: Gates = Gates()

    @model_validator(mode="after")
    def _names_match(self) -> Recipe:
        for name, package in self.packages.items():
            if Nevra.from_nvr(package.nvr).name != name:
                raise ValueError(f"packages.{name}.nvr: {package.nvr} is a build of another package")
        return self


def load_recipe(folder: Path, name: str) -> Recipe:
    """The recipe ``name`` from ``folder``. Raises UsageError."""
    return load(find_settings((folder,), name, what="recipe"), Recipe, what="a recipe")


def settings_in(folders: Sequence[Path]) -> dict[str, Path]:
    """The settings files in the folders, by name in the order of names; of several the first folder's."""
    found = {path.stem: path for folder in reversed(folders) for path in folder.glob("*.toml")}
    return dict(sorted(found.items()))


def find_settings(folders: Sequence[Path], name: str, *, what: str) -> Path:
    """The first file ``name.toml`` in the folders. Raises UsageError: an unknown name is told with the
    nearest known one, and a file that leads out of its folder is refused."""
    known = settings_in(folders)
    if name not in known:
        nothing = f"there is none in {', '.join(map(str, folders))}"
        raise unknown(f"unknown {what}", name, known, hint=None if known else nothing)
    path = known[name]
    if not is_inside(path, path.parent):
        raise UsageError(
            f"{path}: leads out of its folder, to {os.path.realpath(path)}", hint="put the file itself there"
        )
    return path


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies below a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
