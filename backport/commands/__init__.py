"""The command line's commands.

What a command needs is imported when it runs, so that ``--help`` and completion answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from backport import __version__
from backport.commands import host, mail, repo, runs
from backport.commands.options import DebugOption
from backport.commands.options import debug as show_tracebacks
from backport.commands.parsing import complete

app = typer.Typer(
    name="backport",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
app.add_typer(runs.app)
app.add_typer(repo.app)
app.add_typer(mail.app)
app.add_typer(host.app)


def _show_version(value: bool) -> None:  # noqa: FBT001  # as typer calls it
    if value:
        typer.echo(f"backport {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=False)
def _global_options(
    *,
    debug: DebugOption = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Rebuild a newer release's packages for an older one: patched, signed, tested, published.

    \b
    The main job:
        backport doctor                       what this host lacks
        backport keys init                    make the signing key, once
        backport build openssl --target f28   fetch, patch, build, sign, self-test, publish

    Exit codes: 0 ok, 2 usage or recipe, 3 fetch, 4 patch, 5 build, 6 sign, 7 self-test, 8 publish,
    9 the host lacks something, 75 another run is busy, 130 interrupted.
    """
    if debug:
        show_tracebacks()


@app.command()
def version() -> None:
    """Show the version.

    \b
    Example:
        backport version
    """
    typer.echo(f"backport {__version__}")


complete(app)
