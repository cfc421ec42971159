"""How every command is called: with the options that all have, its folder, and mistakes told in plain words;
and how what it gives is shown."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from backport.commands.options import (
    ChannelOption,
    ConfigOption,
    DebugOption,
    JsonOption,
    Place,
    QuietOption,
    Result,
    TargetOption,
    VerboseOption,
    debug,
    is_verbose,
    place_of,
    verbosity,
)
from backport.printable import harmless

_COMMON = {"debug": DebugOption, "quiet": QuietOption, "verbose": VerboseOption}
"""Options of every command."""
_PLACE = {"target": TargetOption, "channel": ChannelOption, "config": ConfigOption}
"""Options that name a published folder."""


def complete(app: typer.Typer, *words: str) -> None:
    """Let every command of ``app`` and its groups take --debug, --quiet and --verbose, where it gives a
    result --json, and where it is about a published folder the options that name it; and tell mistakes in
    plain words."""
    for command in app.registered_commands:
        if command.callback is not None:
            name = command.name or command.callback.__name__
            command.callback = _completed(command.callback, "-".join((*words, name)))
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            below = (*words, group.name) if isinstance(group.name, str) else words
            complete(group.typer_instance, *below)


class Command(TyperCommand):
    """A command whose wrong arguments are told as those of settings files are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises typer's usage errors."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as problem:
            problem.message = _plainly(problem)
            raise


def _completed(function: Callable[..., Any], name: str) -> Any:
    """The command with the options that it does not declare itself; typer reads them from the signature."""
    signature = inspect.signature(function, eval_str=True)
    gives = signature.return_annotation is Result
    place = next((one.name for one in signature.parameters.values() if one.annotation is Place), None)
    own = [one for one in signature.parameters.values() if one.name != place]
    options = [
        _option(option, hint, default=None) for option, hint in _PLACE.items() if place and option != "target"
    ]
    options += [_option("as_json", JsonOption, default=False)] if gives else []
    options += [_option(option, hint, default=False) for option, hint in _COMMON.items()]
    target = [_option("target", TargetOption)] if place else []

    def call(**arguments: Any) -> None:
        given = {option: arguments.pop(option) for option in _COMMON}
        if given["debug"]:
            debug()
        verbosity(quiet=given["quiet"], verbose=given["verbose"])
        if is_verbose() and "config" in arguments:
            _name_site_file(arguments["config"])
        as_json = arguments.pop("as_json", False)
        if place:
            arguments[place] = place_of(**{option: arguments.pop(option) for option in _PLACE})
        result = function(**arguments)
        if gives:
            _show(result, as_json=as_json, name=name)

    command: Any = functools.wraps(function)(call)
    # What inspect reads instead of the function's own (PEP 362).
    command.__signature__ = signature.replace(
        parameters=[one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*target, *own, *options)]
    )
    return command


def _option(name: str, hint: Any, *, default: object = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _show(result: Result, *, as_json: bool, name: str) -> None:
    """Print what a command gives. Raises Exit where its exit code is not 0."""
    from backport.commands.terminal import errors, output

    if as_json:
        from backport.commands.schemas import print_as

        print_as(name, result.data)
    else:
        for line in result.lines:
            if isinstance(line, str):
                typer.echo(harmless(line))
            else:
                output().print(line)
    for note in result.notes:
        errors().print(note)
    if result.exit_code:
        raise typer.Exit(result.exit_code)


def _name_site_file(config: Path | None) -> None:
    from rich.text import Text

    from backport.commands.terminal import errors
    from backport.site import SITE_FILES, site_file

    looked = " or ".join(map(str, SITE_FILES))
    errors().print(Text(f"site file: {site_file(config) or f'none at {looked}: the defaults'}"))


def _plainly(problem: typer.BadParameter) -> str:
    """What is wrong with an argument, without the words of the library that converts it."""
    from pydantic import ValidationError

    from backport.settings import did_you_mean, reason_of

    if not isinstance(problem.__cause__, ValidationError):
        return problem.message
    error = problem.__cause__.errors(include_url=False)[0]
    reason = reason_of(error)
    if choices := re.fullmatch(r"'(.*)' is not one of (.*)\.", reason, re.DOTALL):
        guess = did_you_mean(choices[1], re.findall(r"'([^']*)'", choices[2]))
        return f"'{choices[1]}' is not one of {choices[2]}{guess}"
    return reason
