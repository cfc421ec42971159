"""Commands about the hub and this host: search, keys, mock-config, doctor and schema."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from backport.commands.options import (
    ConfigOption,
    OnlyTargetOption,
    RecipeArgument,
    Result,
    print_json,
)

app = typer.Typer()
keys_app = typer.Typer(
    no_args_is_help=True,
    help="""The key that signs packages and repository metadata.

    \b
    Example:
        backport keys show
    """,
)
app.add_typer(keys_app, name="keys")


SchemaName = Literal[
    "recipe", "target", "site", "build", "plan", "fetch", "log", "search", "keys-show", "doctor",
    "verify-provenance", "repo-list", "repo-diff", "repo-verify", "repo-add-to-host", "repo-show",
    "repo-rollback", "repo-promote", "repo-withdraw", "repo-prune", "repo-gc", "repo-anchor", "probe",
    "selftest", "maillog",
]  # fmt: skip
"""What has a schema: the settings files, and what commands print."""


@app.command()
def search(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Package name; * and ? match any text.")],
    tag: Annotated[
        list[str] | None,
        typer.Option(
            "--tag", metavar="TAG", help="Koji tag to look in, may be repeated; default: the recipes' tags."
        ),
    ] = None,
    config: ConfigOption = None,
) -> Result:
    """Find packages in Koji and their latest builds per tag.

    \b
    Examples:
        backport search 'openssl*'
        backport search openssl --tag f29-updates --tag f30-updates
    """
    from rich.text import Text

    from backport import sources
    from backport.commands.terminal import errors, rows_table
    from backport.site import load_site

    def tell(text: str) -> None:
        errors().print(Text(f"note: {text}"))

    found = sources.search(load_site(config), pattern, tag or (), tell=tell)
    rows = [(one.package, in_tag, nvr) for one in found for in_tag, nvr in (one.builds.items() or [("", "")])]
    table = rows_table(("package", "tag", "latest build"), rows)
    return Result(found, [table if found else f"nothing fits {pattern!r}"])


@keys_app.command("init")
def keys_init(config: ConfigOption = None) -> None:
    """Make the signing key: RSA, in a GNUPGHOME of its own.

    \b
    Example:
        backport keys init
    """
    from backport.signing import sign
    from backport.site import load_site

    site = load_site(config)
    key = sign.init_key(site.signing, site.packager)
    typer.echo(f"made key {key.fingerprint} ({key.user_id}) in {site.signing.gnupghome}")


@keys_app.command("rollover")
def keys_rollover(
    step: Annotated[
        Literal["begin", "switch", "finish"],
        typer.Argument(metavar="[begin|switch|finish]", help="Which step of the change."),
    ] = "begin",
    config: ConfigOption = None,
) -> None:
    """Change the signing key in three steps, with both keys published meanwhile.

    begin makes the new key and lets the old one certify it; the next publication names both to clients.
    switch signs with the new key from then on. finish ends the change: clients are given the old key as
    long as something that it signed is published.

    \b
    Examples:
        backport keys rollover
        backport keys rollover switch
        backport keys rollover finish
    """
    from backport.signing import rollover
    from backport.site import load_site

    site = load_site(config)
    if step == "begin":
        done = rollover.begin(site.signing, site.packager)
    else:
        done = rollover.switch(site.signing) if step == "switch" else rollover.finish(site.signing)
    typer.echo(f"signs: {done.signs}")
    for fingerprint in done.others:
        typer.echo(f"clients are told of it, too: {fingerprint}")


@keys_app.command("show")
def keys_show(config: ConfigOption = None) -> Result:
    """Show the signing key's fingerprint, owner and dates, and the public key itself.

    \b
    Example:
        backport keys show
    """
    from backport.signing import sign
    from backport.site import load_site

    key = sign.show_key(load_site(config).signing)
    lines = [
        f"{name.replace('_', ' ')}: {value}" if name != "public_key" else value
        for name, value in vars(key).items()
    ]
    return Result(key, lines)


@app.command("mock-config")
def mock_config(recipe: RecipeArgument, target: OnlyTargetOption = None, config: ConfigOption = None) -> None:
    """Print the mock configuration of a recipe's builds, with the site's mirrors, keys and settings.

    \b
    Example:
        backport mock-config openssl --target f28 > f28.cfg && mock -r ./f28.cfg --shell
    """
    from backport.builders.mockconfig import render_config
    from backport.runs.job import load_job

    job = load_job(recipe, target, config)
    typer.echo(render_config(job.target, settings=job.site.mock), nl=False)


@app.command()
def doctor(config: ConfigOption = None) -> Result:
    """Say what this host lacks, with the command that installs it.

    \b
    Example:
        backport doctor
    """
    from backport.commands.terminal import checks_table
    from backport.doctor import examine_host
    from backport.site import load_site, site_file

    checks = examine_host(load_site(config))
    advice = [f"{check.id}: {check.advice}" for check in checks if check.stops]
    where = f"site file: {site_file(config) or 'none: the defaults are in force'}"
    return Result(checks, [where, checks_table(checks), *advice], exit_code=9 if advice else 0)


@app.command()
def schema(
    name: Annotated[SchemaName, typer.Argument(help="Which settings file, or which command's --json.")],
) -> None:
    """Print the JSON schema of a settings file, or of what a command prints with --json.

    \b
    Examples:
        backport schema recipe > recipe.schema.json
        backport schema probe
        backport schema repo-list
    """
    from backport.commands.schemas import schema_for
    from backport.recipe import Recipe
    from backport.settings import Settings
    from backport.site import Site
    from backport.target import Target

    models: dict[str, type[Settings]] = {"recipe": Recipe, "target": Target, "site": Site}
    print_json(models[name].model_json_schema() if name in models else schema_for(name))
