"""Commands that read what is published: repo list, show, diff, verify, add-to-host; verify-provenance."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands import repo_changes
from backport.commands.options import (
    ChannelOption,
    ConfigOption,
    JsonOption,
    TargetOption,
    complete_generation,
    is_verbose,
)
from backport.commands.published import place_of

if TYPE_CHECKING:
    from backport.repository.generations import Generation, TargetFolder

app = typer.Typer()
repo_app = typer.Typer(
    no_args_is_help=True,
    help="""The published repository and its generations.

    \b
    Example:
        backport repo list --target f28
    """,
)
repo_app.add_typer(repo_changes.app)
app.add_typer(repo_app, name="repo")

GenerationArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]",
        help="A generation; default: the one that readers see.",
        autocompletion=complete_generation,
    ),
]


class HostTool(StrEnum):
    """How a host gets the .repo file."""

    CURL = "curl"
    DNF4 = "dnf4"
    DNF5 = "dnf5"


@repo_app.command("list")
def list_(
    target: TargetOption,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List the generations, the newest first; the one that readers see is marked.

    \b
    Examples:
        backport repo list --target f28
        backport repo list --target f28 --channel testing --json
    """
    from backport.commands.schemas import print_as
    from backport.commands.terminal import output, rows_table
    from backport.repository.changes import list_generations

    found = list_generations(place_of(target, channel, config).folder)
    if as_json:
        print_as("repo-list", found)
        return
    if not found:
        typer.echo(f"nothing is published for {target} in this channel")
        return
    rows = [
        (
            "*" if one.current else "", one.id, str(one.packages), f"+{one.added}",
            one.note or ("proven" if one.proven else "not proven"), one.run,
        )
        for one in found
    ]  # fmt: skip
    output().print(rows_table(("now", "generation", "packages", "new", "a client installed it", "run"), rows))


@repo_app.command()
def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="A generation, or `current`.", autocompletion=complete_generation),
    ],
    second: Annotated[
        str,
        typer.Argument(
            metavar="B", help="Another generation, or `current`.", autocompletion=complete_generation
        ),
    ],
    target: TargetOption,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what generation B has that A has not, and the other way round.

    \b
    Example:
        backport repo diff 20261124T041000Z-0123456789ab current --target f28
    """
    from backport.commands.schemas import print_as
    from backport.repository.changes import compare

    place = place_of(target, channel, config)
    records = [place.generation(None if one == "current" else one) for one in (first, second)]
    found = compare(place.folder, *records)
    if as_json:
        print_as("repo-diff", found)
        return
    for sign, names in (("+", found.added), ("-", found.removed), ("~", found.changed)):
        for name in names:
            typer.echo(f"{sign} {name}")
    for name in found.inputs:
        typer.echo(f"inputs of {name} differ")
    if not any(vars(found).values()):
        typer.echo("no difference")


@repo_app.command()
def verify(
    target: TargetOption,
    generation: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...", help="Generations; default: all of them.", autocompletion=complete_generation
        ),
    ] = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="The public key that must have signed; may be repeated. Default: those of the site's "
            "GNUPGHOME, or where there is none those beside the generations, which proves no more than that "
            "the folder fits together.",
        ),
    ] = None,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Read everything that is published again: digests, signatures, metadata, links, the record.

    \b
    Examples:
        backport repo verify --target f28
        backport repo verify --target f28 --key RPM-GPG-KEY-backport --json
    """
    from backport.commands.schemas import print_as
    from backport.repository.verification import verify as read_again

    place = place_of(target, channel, config)
    own = place.keys()
    found = read_again(
        place.folder, place.target, keys=key or (), ids=generation or (), site=own, base_url=place.url(own)
    )
    if as_json:
        print_as("repo-verify", found)
    else:
        for fault in found.faults:
            typer.echo(str(fault))
        result = f"{len(found.faults)} faults" if found.faults else "all as it was published"
        typer.echo(
            f"{found.folder}: {len(found.generations)} generations, {found.files} files, "
            f"{found.bytes} bytes: {result}, by {found.trusted}"
        )
    raise typer.Exit(8 if found.faults else 0)


@repo_app.command("add-to-host")
def add_to_host(
    target: TargetOption,
    tool: Annotated[
        HostTool, typer.Option("--with", help="What the host has to get the .repo file.")
    ] = HostTool.CURL,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print the lines by which an admin lets a host update from the repository.

    \b
    Examples:
        backport repo add-to-host --target f28
        backport repo add-to-host --target f28 --with dnf5
    """
    from backport.commands.schemas import print_as
    from backport.repository.clients import host_lines

    place = place_of(target, channel, config)
    record = place.generation(None)
    lines = host_lines(place.folder, tool=tool.value, target=place.target, base_url=place.site.url)
    if as_json:
        print_as("repo-add-to-host", {"lines": lines, "fingerprint": record.fingerprint})
        return
    typer.echo("\n".join(lines))
    typer.echo(f"the key's fingerprint: {record.fingerprint}", err=True)


@repo_app.command()
def show(
    target: TargetOption,
    generation: GenerationArgument = None,
    why: Annotated[
        str | None,
        typer.Option(
            "--why",
            metavar="PACKAGE",
            help="Say where a package (name, NEVRA or file name) comes from, what was changed, who "
            "signed what, and what was tested.",
        ),
    ] = None,
    with_diff: Annotated[
        bool, typer.Option("--diff/--no-diff", help="With --why: show the change itself.")
    ] = True,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Show what a generation holds, or why a package is in it.

    \b
    Examples:
        backport repo show --target f28
        backport repo show --target f28 --why openssl-libs
        backport repo show --target f28 20261124T041000Z-0123456789ab --json
    """
    from backport.commands.schemas import print_as
    from backport.diffs import readable
    from backport.evidence.why import to_text
    from backport.evidence.why import why as explain
    from backport.repository.contents import packages_of
    from backport.repository.surroundings import about_clients

    place = place_of(target, channel, config)
    folder, record = place.folder, place.generation(generation)
    if why is not None:
        explanations = explain(folder.folder_of(record.id), why)
        if as_json:
            print_as("repo-show", explanations)
            return
        for number, one in enumerate(explanations):
            # The change is that of the source package: once is enough.
            told = one.source in {other.source for other in explanations[:number]}
            text = "\n".join(to_text(one, with_diff=with_diff and not told))
            typer.echo("\n" * bool(number) + readable(text.encode("utf-8", "surrogateescape")))
    elif as_json:
        packages = packages_of(folder, record)
        listed = [{**vars(one), "nevra": str(one.nevra)} for one in packages.values()]
        print_as("repo-show", {**vars(record), "packages": listed})
    else:
        _show_generation(folder, record)
        own = place.keys()
        if record.id == folder.current_id():
            for fault in about_clients(folder, record, place.target, own, place.url(own)):
                typer.echo(str(fault), err=True)


@app.command("verify-provenance")
def verify_provenance(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a target or of one of its generations.")
    ],
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            help="The public key that must have signed; may be repeated. Default: the one beside the "
            "generations, which proves no more than that the folder fits together.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check offline that signed statements explain every package of a folder.

    \b
    Examples:
        backport verify-provenance /srv/backport/f28
        backport verify-provenance ./copy --key RPM-GPG-KEY-backport
    """
    from backport.commands.schemas import print_as
    from backport.commands.terminal import checks_table, output
    from backport.evidence import store as evidence

    keys = key or [evidence.key_beside(folder)]
    checks = evidence.verify_provenance(folder, keys)
    if as_json:
        print_as("verify-provenance", checks)
    else:
        console = output()
        console.print(checks_table(checks))
        for check in checks:
            if check.stops:
                console.print(check.evidence, markup=False)
    raise typer.Exit(8 if any(check.stops for check in checks) else 0)


def _show_generation(folder: TargetFolder, record: Generation) -> None:
    from backport.commands.terminal import output, rows_table
    from backport.repository.contents import packages_of

    current = ", which readers see now" if record.id == folder.current_id() else ""
    typer.echo(f"generation {record.id}{current}")
    typer.echo(f"made {record.time:%Y-%m-%d %H:%M:%S} UTC by the run {record.run or '(unknown)'}")
    typer.echo(f"after {record.previous or 'none'}; signed by {record.fingerprint}")
    packages = packages_of(folder, record).values()
    header = ("package", "repository", *(["sha256"] if is_verbose() else []))
    rows = [(str(rpm.nevra), rpm.path.rpartition("/")[0], rpm.sha256)[: len(header)] for rpm in packages]
    output().print(rows_table(header, rows))
