"""Commands about carrying packages over: build, plan, diff, fetch, lock and log."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backport.commands.options import (
    ChannelOption,
    ConfigOption,
    OnlyTargetOption,
    RecipeArgument,
    Result,
    TargetOption,
    chosen,
    debugging,
    is_verbose,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from backport.plan import Plan
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


def _complete_builder(incomplete: str) -> list[str]:
    from backport.builders import BUILDERS

    return [name for name in ("auto", *BUILDERS) if name.startswith(incomplete)]


@app.command()
def build(
    recipe: RecipeArgument,
    target: TargetOption,
    builder: Annotated[
        str | None,
        typer.Option(
            metavar="BUILDER",
            help="Who builds: auto, mock, chroot; default: the site's choice.",
            autocompletion=_complete_builder,
        ),
    ] = None,
    until: Annotated[
        Literal["fetch", "patch", "build", "sign", "self-test", "gates", "publish"],
        typer.Option(help="The last stage to run."),
    ] = "publish",
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
    config: ConfigOption = None,
) -> Result:
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
        *_given(("--builder", builder), ("--until", until if until != "publish" else None)),
        *(["--force"] if force else []),
        *_given(("--channel", channel), ("--config", site_file(config))),
    )
    if shell and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--shell needs a terminal", hint="--keep-root keeps the root to be entered later")
    if result_dir is not None and result_dir.exists() and not result_dir.is_dir():
        raise UsageError(f"--result-dir: {result_dir} is not a folder")
    with TerminalProgress() as progress:
        options = pipeline.Options(
            until=Stage(until), force=force, keep_root=keep_root, results=result_dir, replay=replay,
            shell=progress.open_shell if shell else None,
        )  # fmt: skip
        report = pipeline.build(job, options, progress)
    return _shown(report, explain=explain, exit_code=report.exit_code)


@app.command()
def plan(recipe: RecipeArgument, target: TargetOption, config: ConfigOption = None) -> Result:
    """Show what a build would do and what would stop it, without fetching a package or changing anything.

    Ends with the exit code that a build would have; what is not in the cache is not examined.

    \b
    Examples:
        backport plan openssl --target f28
        backport plan openssl --target f28 --json
    """
    from backport.plan import plan as make_plan
    from backport.runs.job import load_job

    planned = make_plan(load_job(recipe, target, config))
    data = {**vars(planned), "exit_code": planned.exit_code}
    return Result(data, _planned(planned), exit_code=planned.exit_code)


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
    config: ConfigOption = None,
) -> Result:
    """Download and verify a recipe's source packages into the cache.

    \b
    Example:
        backport fetch openssl
    """
    from backport import prepare
    from backport.commands.terminal import TerminalProgress, rows_table
    from backport.runs.job import load_job

    with TerminalProgress() as progress:
        originals = prepare.fetch_sources(load_job(recipe, target, config), progress=progress)
    header = ("package", "file", *(["signed by", "sha256"] if is_verbose() else []))
    rows = [
        (str(source.rpm.nevra), str(source.rpm.path), source.signing_key, source.rpm.sha256)[: len(header)]
        for source in originals
    ]
    return Result([prepare.source_data(source) for source in originals], [rows_table(header, rows)])


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
    config: ConfigOption = None,
) -> Result:
    """List past runs, newest first, or show one.

    \b
    Examples:
        backport log
        backport log --limit 3 --json
        backport log latest
        backport log --follow
    """
    from itertools import islice

    from backport.commands.terminal import rows_table
    from backport.runs.history import past_runs
    from backport.runs.report import to_json
    from backport.site import load_site

    runs = load_site(config).paths.cache / "runs"
    if follow:
        _follow(runs, chosen(run or "latest", _runs_in(runs), what="run", listed="backport log"))
        raise typer.Exit
    reports = past_runs(runs)
    if run is not None:
        known = {report.run: report for report in reports}
        name = chosen(run, list(known), what="run", listed="backport log")
        return _shown(known[name], explain=True)
    listed = list(islice(reports, limit))
    rows = [
        (
            report.run, report.outcome, f"{report.seconds:.1f} s",
            report.failure.message if report.failure else "",
        )
        for report in listed
    ]  # fmt: skip
    table = rows_table(("run", "outcome", "time", "failure"), rows)
    return Result([json.loads(to_json(report)) for report in listed], [table if listed else "no runs yet"])


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


def _planned(planned: Plan) -> Iterator[RenderableType]:
    """A plan for people."""
    from rich.text import Text

    from backport.commands.terminal import rows_table

    yield rows_table(("package", "from", "suffix", "changes", "%check"), planned.rows())
    if planned.published:
        yield "nothing to do: the same inputs are published already"
    elif planned.held:
        yield "nothing to do: what these inputs gave was rolled back; --force builds it"
    else:
        yield f"to be built with {planned.builder}, in this order"
        yield from (f"changed: {line}" for line in planned.reasons)
        for finding in planned.findings:
            yield Text(f"{finding.kind}: {finding.message}", no_wrap=False, overflow="fold")
            if finding.hint:
                yield Text(f"hint: {finding.hint}", no_wrap=False, overflow="fold")


def _shown(report: RunReport, *, explain: bool, exit_code: int = 0) -> Result:
    from rich.text import Text

    from backport.runs.history import TRACEBACK
    from backport.runs.report import failure_text, to_json

    notes: list[Text] = []
    if report.failure:
        first, *others = failure_text(report.failure)
        notes = [Text.assemble(("error: ", "bold red"), first), *map(Text, others)]
        notes.append(Text(f"report: {report.folder}/report.json"))
        if debugging() and (trace := Path(report.folder, TRACEBACK)).is_file():
            notes.append(Text(trace.read_text(encoding="utf-8")))
    return Result(json.loads(to_json(report)), _lines(report, explain=explain), exit_code, notes)


def _lines(report: RunReport, *, explain: bool) -> Iterator[RenderableType]:
    from backport.commands.terminal import checks_table
    from backport.runs.report import to_text

    if report.checks:
        yield checks_table(report.checks)
    yield from to_text(report)
    if explain and report.inputs:
        yield from (
            f"changed: {line}" for line in report.changed or ("nothing changed since the run before",)
        )
    elif explain:
        yield "changed: unknown, since the run ended before its inputs were known"
