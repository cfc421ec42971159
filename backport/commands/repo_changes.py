"""Commands that change what is published without building: rollback, withdraw, promote, prune and gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands.options import (
    ChannelOption,
    ConfigOption,
    JsonOption,
    TargetOption,
    complete_generation,
)
from backport.commands.published import place_of

if TYPE_CHECKING:
    from backport.artifacts import Check
    from backport.repository.changes import Moved
    from backport.repository.generations import TargetFolder

app = typer.Typer()

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


@app.command()
def rollback(
    target: TargetOption,
    generation: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="A generation; default: the last before the present one.",
            autocompletion=complete_generation,
        ),
    ] = None,
    channel: ChannelOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let readers see another generation again, by one rename.

    The packages that readers then have no more are held: `backport build` does not publish them again
    before a source, a patch or a bump makes others of them, or --force is given. The way forward again is
    the same command with the later generation's id.

    \b
    Examples:
        backport repo rollback --target f28
        backport repo rollback --target f28 20261124T041000Z-0123456789ab
        backport repo rollback --target f28 --dry-run
    """
    from backport.commands.schemas import print_as
    from backport.repository.changes import lead_back

    place = place_of(target, channel, config)
    moved = lead_back(
        place.folder,
        place.id_of(generation) if generation else None,
        target=place.target,
        base_url=place.site.url,
        signing=place.site.signing,
        dry_run=dry_run,
    )
    if as_json:
        print_as("repo-rollback", moved)
        return
    _tell_moved(moved)
    _tell_unknown(place.folder)
    for name in moved.held:
        typer.echo(f"{name} is not published again until its source, patches or bump change, or with --force")


@app.command()
def withdraw(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A source package, or any package that was built from it."),
    ],
    target: TargetOption,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is told in the advisory and on the page.")
    ] = "",
    channel: ChannelOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let readers see the newest build of a package no more, or an earlier build in its place.

    All that was built from the same source package goes; everything else stays. What other packages require
    must still be provided. The new generation is proven like any other, and what was withdrawn is held.
    Hosts that have it already keep it until they do what the command prints and the advisory says.

    \b
    Examples:
        backport repo withdraw nginx --target f28 --reason 'crashes on start'
        backport repo withdraw openssl-libs --target f28 --dry-run
    """
    from backport.commands.schemas import print_as
    from backport.commands.terminal import TerminalProgress
    from backport.files import remove_tree
    from backport.repository import proof
    from backport.repository.withdraw import withdraw as take_back
    from backport.site import at_site

    place = place_of(target, channel, config)
    cache, loaded = place.site.paths.cache, at_site(place.target, place.site)
    with TerminalProgress() as progress:

        def prove(exhibit: proof.Exhibit) -> tuple[Check, ...]:
            workspace = cache / "withdraw" / exhibit.generation
            workspace.mkdir(parents=True)
            checks = proof.examine(
                exhibit, target=loaded, cache=cache, workspace=workspace, progress=progress
            )
            if not any(check.stops for check in checks):
                remove_tree(workspace)
            return checks

        done = take_back(
            place.folder, name, target=loaded, base_url=place.site.url, signing=place.site.signing,
            prove=prove, reason=reason, publisher=place.site.packager, dry_run=dry_run, progress=progress,
        )  # fmt: skip
    if as_json:
        print_as("repo-withdraw", done)
        return
    for one in done.packages:
        typer.echo(f"{'would be withdrawn' if dry_run else 'withdrawn'}: {one}")
    for one in done.instead:
        typer.echo(f"the newest then: {one}")
    for one in done.required if dry_run else ():
        typer.echo(f"something else must provide it: {one}")
    if done.generation:
        typer.echo(f"readers of {done.folder} see {done.generation} now, before: {done.before}")
        typer.echo(f"on hosts that have it: {done.advice}")


@app.command()
def promote(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The channel to take from.")],
    destination: Annotated[str, typer.Argument(metavar="TO", help="The channel to give to.")],
    target: TargetOption,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was rolled back from that channel.")
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Begin the channel TO where there is none yet.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let readers of a channel see what those of another see: the same files, nothing is built anew.

    \b
    Examples:
        backport repo promote testing stable --target f28
        backport repo promote testing stable --target f28 --dry-run
        backport repo promote stable testing --target f28 --create
    """
    from backport.commands.schemas import print_as
    from backport.commands.terminal import TerminalProgress
    from backport.repository.changes import promote as promote_generation

    place = place_of(target, source, config)
    with TerminalProgress() as progress:
        moved = promote_generation(
            place.folder, place.other(destination), target=place.target, base_url=place.site.url,
            signing=place.site.signing, force=force, progress=progress, create=create, dry_run=dry_run,
        )  # fmt: skip
    if as_json:
        print_as("repo-promote", moved)
        return
    _tell_moved(moved)


@app.command()
def prune(
    target: TargetOption,
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="How many of the newest stay.")],
    channel: ChannelOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove old generations; never what readers see or saw during the last three days, nor the newest build
    of a package.

    \b
    Examples:
        backport repo prune --target f28 --keep 10
        backport repo prune --target f28 --keep 10 --dry-run
    """
    from backport.repository.changes import prune as prune_generations

    place = place_of(target, channel, config)
    gone = prune_generations(
        place.folder, keep, target=place.target, base_url=place.site.url, signing=place.site.signing,
        dry_run=dry_run,
    )  # fmt: skip
    _tell_removed(gone, as_json=as_json, dry_run=dry_run)
    _tell_unknown(place.folder)


@app.command()
def gc(
    target: TargetOption,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove what killed processes left behind, as the next `backport build` does, and what --keep-root kept.

    Beside generations that are half made these are folders of runs without a report, temporary keyrings, and
    gpg's agent of the signing key where nobody uses it.

    \b
    Example:
        backport repo gc --target f28
    """
    from backport.repository.changes import collect_garbage
    from backport.roots.root import remove_kept
    from backport.runs.leftovers import remove_leftovers

    place = place_of(target, channel, config)
    gone = remove_leftovers(place.site) + remove_kept(place.site.paths.cache, place.target.name)
    if gone and not place.folder.path.exists():
        _tell_removed(gone, as_json=as_json)
        return
    gone += collect_garbage(
        place.folder, target=place.target, base_url=place.site.url, signing=place.site.signing
    )
    _tell_removed(gone, as_json=as_json)
    _tell_unknown(place.folder)


@app.command()
def anchor(
    target: TargetOption,
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Record the generations as they are now, where the record is lost, damaged or older than the folder.

    Look at `backport repo verify` first. From then on the record vouches for what is there; what was rolled
    back, and which generations a client installed, it knows only as far as it can still be read.

    \b
    Example:
        backport repo anchor --target f28
    """
    from backport.commands.schemas import print_as
    from backport.repository.changes import accept_folder

    place = place_of(target, channel, config)
    known = accept_folder(place.folder, signing=place.site.signing)
    if as_json:
        print_as("repo-anchor", known)
        return
    for name in known:
        typer.echo(f"recorded {name}")


def _tell_moved(moved: Moved) -> None:
    see = "would see" if moved.dry_run else "see"
    now = "" if moved.dry_run else " now"
    typer.echo(
        f"readers of {moved.folder} {see} {moved.generation}{now}, before: {moved.before or 'nothing'}"
    )


def _tell_unknown(folder: TargetFolder) -> None:
    for name in folder.unknown():
        typer.echo(
            f"{name}: kept; the record does not know it: see `backport repo verify`",
            err=True,
        )


def _tell_removed(names: tuple[str, ...], *, as_json: bool, dry_run: bool = False) -> None:
    from backport.commands.schemas import print_as

    if as_json:
        print_as("repo-gc", names)
        return
    for name in names:
        typer.echo(f"would be removed: {name}" if dry_run else f"removed {name}")
    if not names:
        typer.echo("nothing to remove")
