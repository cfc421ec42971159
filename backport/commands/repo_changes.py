"""Commands that change what is published without building: rollback, withdraw, promote, prune and gc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands.options import (
    ConfigOption,
    Place,
    Result,
    TargetOption,
    complete_generation,
    place_of,
)

if TYPE_CHECKING:
    from backport.artifacts import Check
    from backport.repository.generations import TargetFolder
    from backport.repository.rollback import Moved

app = typer.Typer()

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


@app.command()
def rollback(
    place: Place,
    generation: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="A generation; default: the last before the present one.",
            autocompletion=complete_generation,
        ),
    ] = None,
    dry_run: DryRunOption = False,
) -> Result:
    """Let clients see another generation again, by one rename.

    The packages that clients then have no more are held: `backport build` does not publish them again
    before a source, a patch or a bump makes others of them, or --force is given. The way forward again is
    the same command with the later generation's id.

    \b
    Examples:
        backport repo rollback --target f28
        backport repo rollback --target f28 20261124T041000Z-0123456789ab
        backport repo rollback --target f28 --dry-run
    """
    from backport.repository.rollback import rollback as roll_back

    moved = roll_back(place.to_change(), place.id_of(generation) if generation else None, dry_run=dry_run)
    _tell_unknown(place.folder)
    until = "is not published again until its source, patches or bump change, or with --force"
    return Result(moved, [_moved(moved), *(f"{name} {until}" for name in moved.held)])


@app.command()
def withdraw(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="A source package, or any package that was built from it."),
    ],
    place: Place,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; it is told in the advisory and on the page.")
    ] = "",
    dry_run: DryRunOption = False,
) -> Result:
    """Let clients see the newest build of a package no more, or an earlier build in its place.

    All that was built from the same source package goes; everything else stays. What other packages require
    must still be provided. The new generation is proven like any other, and what was withdrawn is held.
    Hosts that have it already keep it until they do what the command prints and the advisory says.

    \b
    Examples:
        backport repo withdraw nginx --target f28 --reason 'crashes on start'
        backport repo withdraw openssl-libs --target f28 --dry-run
    """
    from backport.commands.terminal import TerminalProgress
    from backport.files import remove_tree
    from backport.repository import proof
    from backport.repository.withdraw import withdraw as withdraw_package
    from backport.site import at_site

    cache, loaded = place.site.paths.cache, at_site(place.target, place.site)
    with TerminalProgress() as progress:

        def prove(exhibit: proof.Exhibit) -> tuple[Check, ...]:
            workspace = cache / "withdraw" / exhibit.record.id
            workspace.mkdir(parents=True)
            checks = proof.prove(exhibit, target=loaded, cache=cache, workspace=workspace, progress=progress)
            if not any(check.stops for check in checks):
                remove_tree(workspace)
            return checks

        done = withdraw_package(
            replace(place.to_change(progress), target=loaded), name, prove=prove,
            publisher=place.site.packager, reason=reason, dry_run=dry_run,
        )  # fmt: skip
    lines = [f"{'would be withdrawn' if dry_run else 'withdrawn'}: {one}" for one in done.packages]
    lines += [f"the newest then: {one}" for one in done.instead]
    lines += [f"something else must provide it: {one}" for one in done.required if dry_run]
    if done.generation:
        lines += [
            f"clients of {done.folder} see {done.generation} now, before: {done.before}",
            f"on hosts that have it: {done.advice}",
        ]
    return Result(done, lines)


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
    config: ConfigOption = None,
) -> Result:
    """Let clients of a channel see what those of another see: the same files, nothing is built again.

    \b
    Examples:
        backport repo promote testing stable --target f28
        backport repo promote testing stable --target f28 --dry-run
        backport repo promote stable testing --target f28 --create
    """
    from backport.commands.terminal import TerminalProgress
    from backport.repository.promote import promote as promote_generation
    from backport.site import check_channel

    place = place_of(target, source, config)
    check_channel(destination, place.site)
    with TerminalProgress() as progress:
        giving = place.to_change(progress)
        taking = giving.other(destination)
        moved = promote_generation(giving, taking, force=force, create=create, dry_run=dry_run)
    return Result(moved, [_moved(moved)])


@app.command()
def prune(
    place: Place,
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="How many of the newest stay.")],
    dry_run: DryRunOption = False,
) -> Result:
    """Remove old generations; never what clients see or saw during the last three days, nor the newest build
    of a package.

    \b
    Examples:
        backport repo prune --target f28 --keep 10
        backport repo prune --target f28 --keep 10 --dry-run
    """
    from backport.repository.prune import prune as prune_generations

    gone = prune_generations(place.to_change(), keep, dry_run=dry_run)
    _tell_unknown(place.folder)
    return _removed(gone, "would be removed:" if dry_run else "removed")


@app.command()
def gc(place: Place) -> Result:
    """Remove what killed processes left behind, as the next `backport build` does, and what --keep-root kept.

    Beside generations that are half made these are folders of runs without a report, temporary keyrings, and
    gpg's agent of the signing key where nobody uses it.

    \b
    Example:
        backport repo gc --target f28
    """
    from backport.repository.prune import collect_garbage
    from backport.roots.root import remove_kept
    from backport.runs.history import remove_leftovers

    gone = remove_leftovers(place.site) + remove_kept(place.site.paths.cache, place.target.name)
    if place.folder.path.exists() or not gone:
        gone += collect_garbage(place.to_change())
        _tell_unknown(place.folder)
    return _removed(gone, "removed")


@app.command()
def anchor(place: Place) -> Result:
    """Record the generations as they are now, where the record is lost, damaged or older than the folder.

    Look at `backport repo verify` first. From then on the record vouches for what is there; what was rolled
    back, and which generations a client installed, it knows only as far as it can still be read.

    \b
    Example:
        backport repo anchor --target f28
    """
    from backport.repository.prune import anchor as accept_folder

    known = accept_folder(place.to_change())
    return Result(known, [f"recorded {name}" for name in known])


def _moved(moved: Moved) -> str:
    see = f"would see {moved.generation}" if moved.dry_run else f"see {moved.generation} now"
    return f"clients of {moved.folder} {see}, before: {moved.before or 'nothing'}"


def _tell_unknown(folder: TargetFolder) -> None:
    for name in folder.unknown():
        typer.echo(f"{name}: kept; the record does not know it: see `backport repo verify`", err=True)


def _removed(names: Sequence[str], done: str) -> Result:
    return Result(names, [f"{done} {name}" for name in names] or ["nothing to remove"])
