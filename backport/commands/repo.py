"""Commands about what is published: repo …, and verify-provenance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands.options import ConfigOption, JsonOption, TargetOption, print_json

if TYPE_CHECKING:
    from backport.generations import Generation, TargetFolder

app = typer.Typer()
repo_app = typer.Typer(no_args_is_help=True, help="The published repository and its generations.")
app.add_typer(repo_app, name="repo")

GenerationArgument = Annotated[
    str | None, typer.Argument(metavar="[ID]", help="A generation; default: the one that readers see.")
]


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
    diff: Annotated[bool, typer.Option(help="With --why: show the change itself.")] = True,
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
    from dataclasses import asdict

    from backport.diffs import readable
    from backport.why import to_text
    from backport.why import why as explain

    folder, record = _published(target, generation, config)
    if why is not None:
        explanations = explain(folder.generations / record.id, why)
        if as_json:
            print_json([asdict(one) for one in explanations])
            return
        for number, one in enumerate(explanations):
            # The change is that of the source package: once is enough.
            with_diff = diff and one.source not in {other.source for other in explanations[:number]}
            text = "\n".join(to_text(one, with_diff=with_diff))
            typer.echo("\n" * bool(number) + readable(text.encode("utf-8", "surrogateescape")))
    elif as_json:
        print_json(asdict(record))
    else:
        _show_generation(folder, record)


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
    from dataclasses import asdict

    from backport import evidence
    from backport.terminal import checks_table, output

    keys = key or [evidence.key_beside(folder)]
    checks = evidence.verify_provenance(folder, keys)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        console = output()
        console.print(checks_table(checks))
        for check in checks:
            if check.stops:
                console.print(check.evidence, markup=False)
    raise typer.Exit(8 if any(check.stops for check in checks) else 0)


def _published(
    target_name: str, generation: str | None, config: Path | None
) -> tuple[TargetFolder, Generation]:
    """A target's folder and one of its generations. Raises UsageError, PublishError."""
    from backport.errors import PublishError
    from backport.generations import TargetFolder
    from backport.site import load_site
    from backport.target import load_target

    site = load_site(config)
    folder = TargetFolder(path=site.paths.repository / load_target(site.paths.targets, target_name).name)
    if generation is not None and Path(generation).name != generation:
        raise PublishError(f"{generation!r} is not the id of a generation")
    record = folder.load(generation) if generation else folder.current_generation()
    if record is None:
        raise PublishError(
            f"{folder.path}: nothing is published for {target_name}",
            hint=f"`backport build RECIPE --target {target_name}` publishes",
        )
    return folder, record


def _show_generation(folder: TargetFolder, record: Generation) -> None:
    from backport.terminal import output, rows_table

    current = ", which readers see now" if record.id == folder.current_id() else ""
    typer.echo(f"generation {record.id}{current}")
    typer.echo(f"made {record.time:%Y-%m-%d %H:%M:%S} UTC by the run {record.run or '(unknown)'}")
    typer.echo(f"after {record.previous or 'none'}; signed by {record.fingerprint}")
    rows = [(rpm.nevra, rpm.path.rpartition("/")[0], rpm.sha256) for rpm in record.rpms]
    output().print(rows_table(("package", "repository", "sha256"), rows))
