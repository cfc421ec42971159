"""What commands share: their arguments with completion, the folder that they are about, what they give."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backport.errors import BackportError, PublishError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from backport.progress import Progress
    from backport.repository import place as publishing
    from backport.repository.clients import SiteKeys
    from backport.repository.generations import Generation, TargetFolder
    from backport.site import Site
    from backport.target import Target


@dataclass(frozen=True)
class Result:
    """What a command gives, for machines and for people."""

    data: object
    """What --json prints: of the type that `backport.commands.schemas` has for the command."""
    lines: Iterable[RenderableType]
    """What people read; made while it is printed, and not at all with --json."""
    exit_code: int = 0
    notes: Iterable[RenderableType] = ()
    """What goes to standard error behind that, with --json, too."""


def _known(kind: Literal["recipes", "targets"]) -> list[str]:
    """Names for completion; a broken site file completes nothing."""
    from backport.recipe import settings_in
    from backport.site import load_site

    try:
        return list(settings_in(load_site(None).paths.search_path(kind)))
    except BackportError:
        return []


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in _known("recipes") if name.startswith(incomplete)]


def _complete_target(incomplete: str) -> list[str]:
    return [name for name in _known("targets") if name.startswith(incomplete)]


def complete_generation(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of what the folder that was named before holds, and ``latest``."""
    from backport.repository.listing import list_generations

    config = ctx.params.get("config")
    try:
        place = place_of(ctx.params.get("target") or "", ctx.params.get("channel"), config)
        known = [one.id for one in list_generations(place.folder)]
    except (BackportError, OSError):
        return []
    return [name for name in [*known, "latest"] if name.startswith(incomplete)]


def _writable(path: Path | None) -> Path | None:
    """A file that can be written, as far as can be told before; an examination takes its time."""
    if path is None:
        return None
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a folder")
    place = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if place != path and not place.is_dir():
        raise UsageError(f"{path} cannot be written: {place} is no folder")
    if not os.access(place, os.W_OK):
        raise UsageError(f"{path} cannot be written: no permission for {place}")
    return path


RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="Name of a recipe, such as openssl.", autocompletion=_complete_recipe
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        help="Name of the older release, such as f28.",
        autocompletion=_complete_target,
    ),
]
OnlyTargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        "-t",
        metavar="TARGET",
        help="Name of the older release; default: the recipe's only one.",
        autocompletion=_complete_target,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Site file; default: $BACKPORT_CONFIG, ./backport.toml, /etc/backport/backport.toml.",
    ),
]
ChannelOption = Annotated[
    str | None,
    typer.Option(
        "--channel", metavar="CHANNEL", help="Channel of the repository; default: the site's, or stable."
    ),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
DEBUG_VARIABLE = "BACKPORT_DEBUG"
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors, no progress.")]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show more: the site file in force, logs as they are written."),
]
_shown = {"quiet": False, "verbose": False}
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
JunitOption = Annotated[
    Path | None,
    typer.Option(
        "--junit", metavar="FILE", help="Write JUnit XML, one test case a check.", callback=_writable
    ),
]
TranscriptOption = Annotated[
    Path | None,
    typer.Option("--transcript", metavar="FILE", help="Write the transcript to a file.", callback=_writable),
]


def chosen(word: str, known: Sequence[str], *, what: str, listed: str) -> str:
    """The one of ``known``, the newest first, that is meant: by its name, a beginning of it, or ``latest``.

    Raises UsageError where that is none, or several; ``listed`` is the command that lists them.
    """
    from backport.settings import unknown

    fitting = [name for name in known if name == word] or [name for name in known if name.startswith(word)]
    if word == "latest" and not fitting:
        fitting = list(known[:1])
    if len(fitting) == 1 and word:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"{word!r} begins {len(fitting)} of the {what}s", hint=f"among them: {', '.join(fitting[:3])}"
        )
    raise unknown(f"no {what}", word, known, hint=f"`{listed}` lists them")


def write_result(path: Path, text: str) -> None:
    """Write a result to a file, or into what else is there, such as a pipe. Raises UsageError."""
    from backport.files import write_atomically

    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8")
        else:
            write_atomically(path, text)
    except OSError as problem:
        raise UsageError(f"{path} cannot be written: {problem.strerror}") from None


def print_json(data: object) -> None:
    """Print a result for machines."""
    json.dump(data, sys.stdout, indent=2)
    sys.stdout.write("\n")


def verbosity(*, quiet: bool, verbose: bool) -> None:
    """Say how much is to be shown beside results and errors. Raises UsageError for both at once."""
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other", hint="give one of them")
    _shown.update(quiet=quiet, verbose=verbose)


def is_quiet() -> bool:
    """Whether no progress is to be shown."""
    return _shown["quiet"]


def is_verbose() -> bool:
    """Whether more is to be shown, such as logs as they are written."""
    return _shown["verbose"]


def debugging() -> bool:
    """Whether errors are to be shown with how they came about."""
    return bool(os.environ.get(DEBUG_VARIABLE))


def debug() -> None:
    """Show errors with how they came about."""
    os.environ[DEBUG_VARIABLE] = "1"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A target's folder in one channel, with the settings that it belongs to."""

    site: Site
    target: Target
    folder: TargetFolder

    def to_change(self, progress: Progress | None = None) -> publishing.Place:
        """The folder with what every change of it takes."""
        from backport.progress import Silent
        from backport.repository.place import Place

        return Place(
            repository=self.site.paths.repository, target=self.target, base_url=self.site.url,
            signing=self.site.signing, channel=self.folder.channel, progress=progress or Silent(),
        )  # fmt: skip

    def id_of(self, generation: str) -> str:
        """The id of the generation that is meant: by it, a beginning of it, or ``latest``.

        Raises UsageError for none, or several.
        """
        from backport.repository.listing import list_generations

        known = [one.id for one in list_generations(self.folder)]
        listed = f"backport repo list --target {self.target.name}"
        return chosen(generation, known, what="generation", listed=listed)

    def url(self, keys: SiteKeys | None) -> str | None:
        """The URL of the channel's folder as clients see it; None on a host that neither publishes nor says
        it in its site file."""
        from backport.repository.place import channel_url

        return channel_url(self.site.url, self.folder.channel) if keys or self.site.base_url else None

    def keys(self) -> SiteKeys | None:
        """The keys of the site; None where this user or host has none. Raises SignError for unusable ones."""
        from backport.repository.clients import site_keys

        try:
            there = self.site.signing.gnupghome.is_dir()
        except OSError:
            there = False
        return site_keys(self.site.signing) if there else None

    def generation(self, generation: str | None) -> Generation:
        """A generation's record; default: of the one that clients see. Raises PublishError."""
        record = self.folder.load(self.id_of(generation)) if generation else self.folder.current_generation()
        if record is None:
            raise PublishError(
                f"{self.folder.path}: nothing is published for {self.target.name}",
                hint=f"`backport build RECIPE --target {self.target.name}` publishes",
            )
        return record


def place_of(target: str, channel: str | None, config: Path | None) -> Place:
    """The folder that the options name. Raises UsageError."""
    from backport.repository.generations import TargetFolder
    from backport.site import check_channel, find_target, load_site

    site = load_site(config)
    channel = channel or site.channel
    check_channel(channel, site)
    loaded = find_target(site, target)
    return Place(
        site=site, target=loaded, folder=TargetFolder.of(site.paths.repository, loaded.name, channel)
    )
