"""What the commands share: their common arguments with completion, and JSON on standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from backport.errors import BackportError


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
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]


def print_json(data: object) -> None:
    """Print a result for machines."""
    sys.stdout.write(json.dumps(data, indent=2, default=str) + "\n")


def debugging() -> bool:
    """Whether errors are to be shown with how they came about."""
    return bool(os.environ.get(DEBUG_VARIABLE))


def debug() -> None:
    """Show errors with how they came about."""
    os.environ[DEBUG_VARIABLE] = "1"
