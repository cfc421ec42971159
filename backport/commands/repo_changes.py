"""Commands that change what is published without building: rollback, promote, prune and gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands.options import ChannelOption, ConfigOption, JsonOption, TargetOption, print_json
from backport.commands.published import place_of

if TYPE_CHECKING:
    from backport.repository.generations import TargetFolder

app = typer.Typer()


@app.command()
def rollback(
    target: TargetOption,
    generation: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="A generation; default: the one before the present one."),
    ] = None,
    channel: ChannelOption = None,
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
    """
    from dataclasses import asdict

    from backport.repository.changes import lead_back

    place = place_of(target, channel, config)
    moved = lead_back(
        place.folder, generation, target=place.target, base_url=place.site.url, signing=place.site.signing
    )
    if as_json:
        print_json(asdict(moved))
        return
    typer.echo(f"readers of {moved.folder} see {moved.generation} now, before: {moved.before or 'nothing'}")
    _tell_unknown(place.folder)
    for name in moved.held:
        typer.echo(f"{name} is not published again until its source, patches or bump change, or with --force")


@app.command()
def promote(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The channel to take from.")],
    destination: Annotated[str, typer.Argument(metavar="TO", help="The channel to give to.")],
    target: TargetOption,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was rolled back from that channel.")
    ] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Let readers of a channel see what those of another see: the same files, nothing is built anew.

    \b
    Examples:
        backport repo promote testing stable --target f28
        backport repo promote stable testing --target f28
    """
    from dataclasses import asdict

    from backport.commands.terminal import TerminalProgress
    from backport.repository.changes import promote as promote_generation
    from backport.signing.key import other_keys

    place = place_of(target, source, config)
    with TerminalProgress() as progress:
        moved = promote_generation(
            place.folder, place.other(destination), target=place.target, base_url=place.site.url,
            signing=place.site.signing, others=other_keys(place.site.signing), force=force, progress=progress,
        )  # fmt: skip
    if as_json:
        print_json(asdict(moved))
        return
    typer.echo(f"readers of {moved.folder} see {moved.generation} now, before: {moved.before or 'nothing'}")


@app.command()
def prune(
    target: TargetOption,
    keep: Annotated[int, typer.Option("--keep", metavar="N", help="How many of the newest stay.")],
    channel: ChannelOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Remove old generations; never what readers see, nor the newest build of a package.

    \b
    Example:
        backport repo prune --target f28 --keep 10
    """
    from backport.repository.changes import prune as prune_generations

    place = place_of(target, channel, config)
    gone = prune_generations(
        place.folder, keep, target=place.target, base_url=place.site.url, signing=place.site.signing
    )
    _tell_removed(gone, as_json=as_json)
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
    from backport.repository.changes import accept_folder

    place = place_of(target, channel, config)
    known = accept_folder(place.folder, signing=place.site.signing)
    if as_json:
        print_json(list(known))
        return
    for name in known:
        typer.echo(f"recorded {name}")


def _tell_unknown(folder: TargetFolder) -> None:
    for name in folder.unknown():
        typer.echo(
            f"{name}: kept; the record does not know it: see `backport repo verify`",
            err=True,
        )


def _tell_removed(names: tuple[str, ...], *, as_json: bool) -> None:
    if as_json:
        print_json(list(names))
        return
    for name in names:
        typer.echo(f"removed {name}")
    if not names:
        typer.echo("nothing to remove")
