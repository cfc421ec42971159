"""Commands about carrying packages over: build, plan, diff, fetch, lock and log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backport.commands.options import (
    ChannelOption,
    ConfigOption,
    JsonOption,
    OnlyTargetOption,
    RecipeArgument,
    TargetOption,
    chosen,
    debugging,
    is_verbose,
)

if TYPE_CHECKING:
    from backport.runs.report import RunReport

app = typer.Typer()
_LOOK = 1.0
"""Seconds between looks at the logs of a run that is followed."""


def _complete_run(incomplete: str) -> list[str]:
    from backport.errors import BackportError
    from backport.site import load_site

    try:
        names = _runs_in(load_site(None).paths.cache / "runs")
    except BackportError:
        return []
    return [name for name in [*names, "latest"] if name.startswith(incomplete)]


class UntilStage(StrEnum):
    """Where a run may be asked to stop."""

    FETCH = "fetch"
    PATCH = "patch"
    BUILD = "build"
    SIGN = "sign"
    SELF_TEST = "self-test"
    GATES = "gates"
    PUBLISH = "publish"


class BuilderName(StrEnum):
    """Who builds: mock, a plain chroot, or whichever this host has."""

    AUTO = "auto"
    MOCK = "mock"
    CHROOT = "chroot"


@app.command()
def build(
    recipe: RecipeArgument,
    target: TargetOption,
    builder: Annotated[
        BuilderName | None, typer.Option(help="Who builds; default: the site's choice.")
    ] = None,
    until: Annotated[UntilStage, typer.Option(help="The last stage to run.")] = UntilStage.PUBLISH,
    force: Annotated[
        bool,
        typer.Option("--force", help="Build again although the inputs are unchanged or were rolled back."),
    ] = False,
    channel: ChannelOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what changed since the run before.")
    ] = False,
    keep_root: Annotated[
        bool, typer.Option("--keep-root", help="Keep the root of a failed build or self-test, and say where.")
    ] = False,
    shell: Annotated[
        bool, typer.Option("--shell", help="Open a shell in the root of a failed build or self-test.")
    ] = False,
    result_dir: Annotated[
        Path | None,
        typer.Option("--result-dir", metavar="DIR", help="Leave the built packages in this folder, too."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Fetch, patch, build, sign, self-test, gate and publish a recipe's packages.

    The same inputs are not built again. Every run leaves a report, see `backport log`.

    \b
    Examples:
        backport build openssl --target f28
        backport build openssl --target f28 --until self-test --json
        backport build openssl --target f28 --builder mock --explain
        backport build openssl --target f28 --channel testing
        backport build openssl --target f28 --until sign --result-dir /tmp/openssl
        backport build openssl --target f28 --shell
    """
    from backport import pipeline
    from backport.commands.terminal import TerminalProgress
    from backport.errors import UsageError
    from backport.runs.job import Stage, load_job
    from backport.site import site_file

    job = load_job(recipe, target, config, builder=builder, channel=channel)
    replay = (
        *("backport", "build", recipe, "--target", target),
        *_given(("--builder", builder), ("--until", until if until is not UntilStage.PUBLISH else None)),
        *(["--force"] if force else []),
        *_given(("--channel", channel), ("--config", site_file(config))),
    )
    if shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--shell needs a terminal", hint="--keep-root keeps the root to be entered later")
    if result_dir is not None and result_dir.exists() and not result_dir.is_dir():
        raise UsageError(f"--result-dir: {result_dir} is not a folder")
    with TerminalProgress() as progress:
        report = pipeline.build(
            job, until=Stage(until), force=force, progress=progress, replay=replay, keep_root=keep_root,
            shell=progress.open_shell if shell else None, results=result_dir,
        )  # fmt: skip
    _show_run(report, as_json=as_json, explain=explain)
    raise typer.Exit(report.exit_code)


@app.command()
def plan(
    recipe: RecipeArgument, target: TargetOption, as_json: JsonOption = False, config: ConfigOption = None
) -> None:
    """Show what a build would do and what would stop it, without fetching a package or changing anything.

    Ends with the exit code that a build would have; what is not in the cache is not examined.

    \b
    Examples:
        backport plan openssl --target f28
        backport plan openssl --target f28 --json
    """
    from rich.text import Text

    from backport.commands.schemas import print_as
    from backport.commands.terminal import output, rows_table
    from backport.plan import plan as make_plan
    from backport.runs.job import load_job

    planned = make_plan(load_job(recipe, target, config))
    if as_json:
        print_as("plan", {**vars(planned), "exit_code": planned.exit_code})
        raise typer.Exit(planned.exit_code)
    console = output()
    console.print(rows_table(("package", "from", "suffix", "changes", "%check"), planned.rows()))
    if planned.published:
        console.print("nothing to do: the same inputs are published already")
        return
    if planned.held:
        console.print("nothing to do: what these inputs gave was rolled back; --force builds it")
        return
    console.print(f"to be built with {planned.builder}, in this order", markup=False)
    for line in planned.reasons:
        console.print(f"changed: {line}", markup=False)
    for finding in planned.findings:
        console.print(Text(f"{finding.kind}: {finding.message}"), soft_wrap=False)
        if finding.hint:
            console.print(Text(f"hint: {finding.hint}"), soft_wrap=False)
    raise typer.Exit(planned.exit_code)


@app.command()
def diff(recipe: RecipeArgument, target: TargetOption, config: ConfigOption = None) -> None:
    """Show what the recipe changes: each spec's unified diff and the added patches.

    \b
    Example:
        backport diff openssl --target f28
    """
    from backport import prepare
    from backport.commands.terminal import TerminalProgress
    from backport.runs.job import load_job

    with TerminalProgress() as progress:
        text = prepare.diff(load_job(recipe, target, config), progress=progress)
    sys.stdout.write(text)


@app.command()
def fetch(
    recipe: RecipeArgument,
    target: OnlyTargetOption = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Download and verify a recipe's source packages into the cache.

    \b
    Example:
        backport fetch openssl
    """
    from backport import prepare
    from backport.commands.schemas import print_as
    from backport.commands.terminal import TerminalProgress, output, rows_table
    from backport.runs.job import load_job

    with TerminalProgress() as progress:
        originals = prepare.fetch_sources(load_job(recipe, target, config), progress=progress)
    if as_json:
        print_as("fetch", [prepare.source_data(source) for source in originals])
        return
    header = ("package", "file", *(["signed by", "sha256"] if is_verbose() else []))
    rows = [
        (str(source.rpm.nevra), str(source.rpm.path), source.signing_key, source.rpm.sha256)[: len(header)]
        for source in originals
    ]
    output().print(rows_table(header, rows))


@app.command()
def lock(recipe: RecipeArgument, target: OnlyTargetOption = None, config: ConfigOption = None) -> None:
    """Pin exactly what the hub gives today; later runs refuse anything else.

    \b
    Example:
        backport lock openssl
    """
    from backport import prepare
    from backport.commands.terminal import TerminalProgress
    from backport.runs.job import load_job

    job = load_job(recipe, target, config)
    with TerminalProgress() as progress:
        prepare.lock_sources(job, progress=progress)
    typer.echo(f"wrote {job.lock_file}")


@app.command()
def log(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run to show whole: its name, a beginning of it, or latest.",
            autocompletion=_complete_run,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Show the logs of a run while it goes on; default: the latest."),
    ] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many runs to list.")] = 20,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """List past runs, newest first, or show one.

    \b
    Examples:
        backport log
        backport log --limit 3 --json
        backport log latest
        backport log --follow
    """
    from itertools import islice

    from backport.commands.terminal import output, rows_table
    from backport.runs.history import past_runs
    from backport.runs.report import to_json
    from backport.site import load_site

    runs = load_site(config).paths.cache / "runs"
    if follow:
        _follow(runs, chosen(run or "latest", _runs_in(runs), what="run", listed="backport log"))
        return
    reports = past_runs(runs)
    if run is not None:
        known = {report.run: report for report in reports}
        name = chosen(run, list(known), what="run", listed="backport log")
        _show_run(known[name], as_json=as_json, explain=True)
        return
    listed = list(islice(reports, limit))
    if as_json:
        sys.stdout.write(json.dumps([json.loads(to_json(report)) for report in listed], indent=2) + "\n")
        return
    if not listed:
        typer.echo("no runs yet")
        return
    rows = [
        (
            report.run,
            report.outcome,
            f"{report.seconds:.1f} s",
            report.failure.message if report.failure else "",
        )
        for report in listed
    ]
    output().print(rows_table(("run", "outcome", "time", "failure"), rows))


def _runs_in(runs: Path) -> list[str]:
    """The runs that have a folder, also those that still go on, the newest first."""
    return sorted((folder.name for folder in runs.glob("*Z-*") if folder.is_dir()), reverse=True)


def _follow(runs: Path, name: str) -> None:
    """Show what a run's logs hold and get, until it has its report or nobody is at it any more."""
    from rich.text import Text

    from backport.commands.terminal import output
    from backport.progress import Follower
    from backport.runs.history import REPORT, is_going_on

    console, folder = output(), runs / name
    followers: dict[Path, Follower] = {}
    ended = False
    while not ended:
        ended = (folder / REPORT).exists() or not is_going_on(runs, name)
        for log in sorted(folder.rglob("*.log")):
            if log not in followers:
                followers[log] = Follower(log)
                console.print(Text(f"==> {log.relative_to(folder)} <==", style="bold"))
            for line in followers[log].lines():
                console.print(Text(line))
        if not ended:
            time.sleep(_LOOK)
    typer.echo(f"{name} has ended: `backport log {name}` shows how", err=True)


def _given(*options: tuple[str, str | Path | None]) -> Iterator[str]:
    """The words of those options that have a value."""
    for option, value in options:
        if value is not None:
            yield from (option, str(value))


def _show_run(report: RunReport, *, as_json: bool, explain: bool) -> None:
    from rich.text import Text

    from backport.commands.terminal import checks_table, errors, output
    from backport.runs.history import TRACEBACK
    from backport.runs.report import failure_text, to_json, to_text

    if as_json:
        sys.stdout.write(to_json(report))
    else:
        console = output()
        if report.checks:
            console.print(checks_table(report.checks))
        for line in to_text(report):
            console.print(Text(line))
        if explain:
            for line in _explained(report):
                console.print(Text(f"changed: {line}"))
    if report.failure:
        console = errors()
        for number, line in enumerate(failure_text(report.failure)):
            console.print(Text("error: ", style="bold red") + Text(line) if number == 0 else Text(line))
        console.print(Text(f"report: {report.folder}/report.json"))
        if debugging() and (told := Path(report.folder, TRACEBACK)).is_file():
            console.print(Text(told.read_text(encoding="utf-8")))


def _explained(report: RunReport) -> tuple[str, ...]:
    if not report.inputs:
        return ("unknown, since the run ended before its inputs were known",)
    return report.changed or ("nothing changed since the run before",)
