"""How every command line is read: with --debug everywhere, and mistakes told in plain words."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from backport.commands.options import DebugOption, debug


def complete(app: typer.Typer) -> None:
    """Let every command of ``app`` and its groups take --debug, and tell mistakes in plain words."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_debug(command.callback)
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


def _with_debug(function: Callable[..., Any]) -> Any:
    """The command with an option more; typer reads options from the signature."""
    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=DebugOption)

    def call(**arguments: Any) -> Any:
        if arguments.pop("debug"):
            debug()
        return function(**arguments)

    command: Any = functools.wraps(function)(call)
    # What inspect reads instead of the function's own (PEP 362).
    command.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])
    return command


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
