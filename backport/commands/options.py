"""What the commands share: their common arguments with completion, and where their results go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer

from backport.errors import BackportError, UsageError


def _known(folder: str) -> list[str]:
    """Names for completion; a broken site file completes nothing."""
    from backport.site import load_site

    try:
        return sorted(path.stem for path in getattr(load_site(None).paths, folder).glob("*.toml"))
    except BackportError:
        return []


def _complete_recipe(incomplete: str) -> list[str]:
    return [name for name in _known("recipes") if name.startswith(incomplete)]


def _complete_target(incomplete: str) -> list[str]:
    return [name for name in _known("targets") if name.startswith(incomplete)]


def complete_generation(ctx: typer.Context, incomplete: str) -> list[str]:
    """Ids of what the folder that was named before holds, and ``latest``."""
    from backport.commands.published import place_of
    from backport.repository.changes import list_generations

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
    from backport.settings import did_you_mean

    fitting = [name for name in known if name == word] or [name for name in known if name.startswith(word)]
    if word == "latest" and not fitting:
        fitting = list(known[:1])
    if len(fitting) == 1 and word:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"{word!r} begins {len(fitting)} of the {what}s", hint=f"among them: {', '.join(fitting[:3])}"
        )
    raise UsageError(f"no {what} {word!r}{did_you_mean(word, known)}", hint=f"`{listed}` lists them")


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
    sys.stdout.write(json.dumps(data, indent=2, default=_as_text) + "\n")


def _as_text(value: object) -> str:
    """What JSON has no kind of its own for; a time as RFC 3339 has it, with its offset."""
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


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
