"""Commands that read what is published: repo list, show, diff, verify, add-to-host; verify-provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from backport.commands import repo_changes
from backport.commands.options import (
    Place,
    Result,
    complete_generation,
    is_verbose,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from backport.repository.generations import Generation

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
        help="A generation; default: the one that clients see.",
        autocompletion=complete_generation,
    ),
]


@repo_app.command("list")
def list_(place: Place) -> Result:
    """List the generations, the newest first; the one that clients see is marked.

    \b
    Examples:
        backport repo list --target f28
        backport repo list --target f28 --channel testing --json
    """
    from backport.commands.terminal import rows_table
    from backport.repository.listing import list_generations

    found = list_generations(place.folder)
    rows = [
        (
            "*" if one.current else "", one.id, str(one.packages), f"+{one.added}",
            one.note or ("proven" if one.proven else "not proven"), one.run,
        )
        for one in found
    ]  # fmt: skip
    table = rows_table(("now", "generation", "packages", "new", "a client installed it", "run"), rows)
    return Result(
        found, [table if found else f"nothing is published for {place.target.name} in this channel"]
    )


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
    place: Place,
) -> Result:
    """Show what generation B has that A has not, and the other way round.

    \b
    Example:
        backport repo diff 20261124T041000Z-0123456789ab current --target f28
    """
    from backport.repository.listing import compare

    records = [place.generation(None if one == "current" else one) for one in (first, second)]
    found = compare(place.folder, *records)
    signs = (("+", found.added), ("-", found.removed), ("~", found.changed))
    lines = [f"{sign} {name}" for sign, names in signs for name in names]
    lines += [f"inputs of {name} differ" for name in found.inputs]
    return Result(found, lines or ["no difference"])


@repo_app.command()
def verify(
    place: Place,
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
) -> Result:
    """Read everything that is published again: digests, signatures, metadata, links, the record.

    \b
    Examples:
        backport repo verify --target f28
        backport repo verify --target f28 --key RPM-GPG-KEY-backport --json
    """
    from backport.repository.verification import verify as read_again

    own = place.keys()
    found = read_again(
        place.folder, place.target, keys=key or (), ids=generation or (), site=own, base_url=place.url(own)
    )
    result = f"{len(found.faults)} faults" if found.faults else "all as it was published"
    summary = (
        f"{found.folder}: {len(found.generations)} generations, {found.files} files, "
        f"{found.bytes} bytes: {result}, by {found.trusted}"
    )
    return Result(found, [*map(str, found.faults), summary], exit_code=8 if found.faults else 0)


@repo_app.command("add-to-host")
def add_to_host(
    place: Place,
    tool: Annotated[
        Literal["curl", "dnf4", "dnf5"],
        typer.Option("--with", help="What the host has to get the .repo file."),
    ] = "curl",
) -> Result:
    """Print the lines by which an admin lets a host update from the repository.

    \b
    Examples:
        backport repo add-to-host --target f28
        backport repo add-to-host --target f28 --with dnf5
    """
    from backport.repository.clients import host_lines

    fingerprint = place.generation(None).fingerprint
    lines = host_lines(place.to_change(), tool)

    def shown() -> Iterator[str]:
        yield from lines
        typer.echo(f"the key's fingerprint: {fingerprint}", err=True)

    return Result({"lines": lines, "fingerprint": fingerprint}, shown())


@repo_app.command()
def show(
    place: Place,
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
) -> Result:
    """Show what a generation holds, or why a package is in it.

    \b
    Examples:
        backport repo show --target f28
        backport repo show --target f28 --why openssl-libs
        backport repo show --target f28 20261124T041000Z-0123456789ab --json
    """
    from backport.diffs import readable
    from backport.evidence.why import to_text
    from backport.evidence.why import why as explain
    from backport.repository.contents import packages_of

    record = place.generation(generation)
    if why is None:
        packages = packages_of(place.folder, record).values()
        listed = [{**vars(one), "nevra": str(one.nevra)} for one in packages]
        return Result({**vars(record), "packages": listed}, _shown(place, record, listed))
    explanations = explain(place.folder.folder_of(record.id), why)
    texts = []
    for number, one in enumerate(explanations):
        # The change is that of the source package: once is enough.
        again = one.source in {other.source for other in explanations[:number]}
        text = "\n".join(to_text(one, with_diff=with_diff and not again))
        texts.append("\n" * bool(number) + readable(text.encode("utf-8", "surrogateescape")))
    return Result(explanations, texts)


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
) -> Result:
    """Check offline that signed statements explain every package of a folder.

    \b
    Examples:
        backport verify-provenance /srv/backport/f28
        backport verify-provenance ./copy --key RPM-GPG-KEY-backport
    """
    from backport.commands.terminal import checks_table
    from backport.evidence import store as evidence

    checks = evidence.verify_provenance(folder, key or [evidence.key_beside(folder)])
    wrong = [check.evidence for check in checks if check.stops]
    return Result(checks, [checks_table(checks), *wrong], exit_code=8 if wrong else 0)


def _shown(
    place: Place, record: Generation, packages: Sequence[Mapping[str, Any]]
) -> Iterator[RenderableType]:
    """A generation for people; what is wrong with the files for its clients goes to standard error."""
    from backport.commands.terminal import rows_table
    from backport.repository.surroundings import about_clients

    is_current = record.id == place.folder.current_id()
    yield f"generation {record.id}{', which clients see now' if is_current else ''}"
    yield f"made {record.time:%Y-%m-%d %H:%M:%S} UTC by the run {record.run or '(unknown)'}"
    yield f"after {record.previous or 'none'}; signed by {record.fingerprint}"
    header = ("package", "repository", *(["sha256"] if is_verbose() else []))
    rows = [(one["nevra"], one["path"].rpartition("/")[0], one["sha256"]) for one in packages]
    yield rows_table(header, [row[: len(header)] for row in rows])
    own = place.keys()
    if is_current:
        for fault in about_clients(place.folder, record, place.target, own, place.url(own)):
            typer.echo(str(fault), err=True)
