"""How every command line is read: with the options of all commands, and mistakes told in plain words."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from backport.commands.options import DebugOption, QuietOption, VerboseOption, debug, is_verbose, verbosity

_COMMON = {"debug": DebugOption, "quiet": QuietOption, "verbose": VerboseOption}
"""Options of every command."""


def complete(app: typer.Typer) -> None:
    """Let every command of ``app`` and its groups take --debug, --quiet and --verbose, and tell mistakes in
    plain words."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_common_options(command.callback)
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            complete(group.typer_instance)


class Command(TyperCommand):
    """A command whose wrong arguments are told as those of settings files are."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments. Raises typer's usage errors."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as problem:
            problem.message = _plainly(problem)
            raise


def _with_common_options(function: Callable[..., Any]) -> Any:
    """The command with the options that all have; typer reads options from the signature."""
    signature = inspect.signature(function, eval_str=True)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _COMMON.items()
    ]

    def call(**arguments: Any) -> Any:
        given = {name: arguments.pop(name) for name in _COMMON}
        if given["debug"]:
            debug()
        verbosity(quiet=given["quiet"], verbose=given["verbose"])
        if is_verbose() and "config" in arguments:
            _name_site_file(arguments["config"])
        return function(**arguments)

    command: Any = functools.wraps(function)(call)
    # What inspect reads instead of the function's own (PEP 362).
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *options])
    return command


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
