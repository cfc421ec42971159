"""The figures of `make bench`: medians of at least three runs, printed with the machine's size.

``python -m tests.bench`` measures all, ``python -m tests.bench NAME…`` some. Nothing here is an
assertion: a figure beside its bound is for people to judge.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from backport.roots.root import Root, clean_root
from backport.run import Command
from backport.runs.job import Job, load_job
from backport.trust import read_header
from tests.e2e.examined import Parts, make_parts
from tests.lab.build import ensure
from tests.lab.serve import Served, served
from tests.large_repository import PACKAGES, Shelf, shelf
from tests.large_target import PACKAGES as TARGET_PACKAGES
from tests.large_target import make_repositories
from tests.maillog import generated_log
from tests.probe_figures import peers

RUNS = 3
_HELP_RUNS = 15
_REST = 65.0
"""Seconds after which nothing of the work before is felt any more."""
_LOG_LINES = 1_000_000
_MEASURED_MAIN = """
import atexit, resource, sys
from backport.__main__ import main
target = sys.argv.pop()
atexit.register(lambda: open(target, "w").write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)))
main()
"""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure: its values, their unit, and the bound that was promised."""

    name: str
    values: tuple[float, ...]
    unit: str
    bound: str

    def line(self) -> str:
        """The median with its range and bound."""
        middle = statistics.median(self.values)
        low, high = min(self.values), max(self.values)
        return (
            f"{self.name:<52} {middle:9.2f} {self.unit:<6} "
            f"({low:.2f} to {high:.2f}, {len(self.values)} runs; bound: {self.bound})"
        )


def main(names: list[str]) -> int:
    """Measure the named figures (default: all) and print them."""
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, {_release()}", flush=True)
    for name in names or FIGURES:
        for figure in FIGURES[name]():
            print(figure.line(), flush=True)
    return 0


def help_over_python() -> Iterator[Figure]:
    """How long `backport --help` takes, over a Python that does nothing."""
    ratios = []
    for _ in range(_HELP_RUNS):
        nothing = _seconds([sys.executable, "-c", "pass"])
        ratios.append(_seconds([sys.executable, "-m", "backport", "--help"]) / nothing)
    yield Figure(name="backport --help over python3 -c pass", values=tuple(ratios), unit="times", bound="6")


def pipeline_over_rpmbuild() -> Iterator[Figure]:
    """A whole run from an empty cache without its self-test, over bare rpmbuild of the same SRPMs."""
    ratios, totals, tests, peaks = [], [], [], []
    with ExitStack() as places:
        for _ in range(RUNS):
            # None goes before the last is measured, and each measurement begins at rest: files that were
            # removed slow an ext4 without a journal down for a minute.
            place = places.enter_context(_place())
            _come_to_rest()
            seconds, peak = _measured(place, "build", "openssl", "--target", "f28")
            report = _report(place)
            times = {stage["name"]: float(stage["seconds"]) for stage in report["stages"]}
            tested = times["self-test"]
            _come_to_rest()
            bare = _bare_rpmbuild(load_job("openssl", "f28", place.site), place)
            ratios.append((seconds - tested) / bare)
            totals.append(seconds)
            tests.append(tested)
            peaks.append(peak)
    yield Figure(
        name="pipeline without self-test over rpmbuild --rebuild",
        values=tuple(ratios),
        unit="times",
        bound="1.10",
    )
    yield Figure(name="whole pipeline", values=tuple(totals), unit="s", bound="none")
    yield Figure(name="self-test stage of it", values=tuple(tests), unit="s", bound="none")
    yield Figure(name="peak memory of the tool itself", values=tuple(peaks), unit="MiB", bound="150")


def unchanged_run() -> Iterator[Figure]:
    """A run with nothing to do: its time, and the requests that it sends to the hub."""
    with _place("demo") as place:
        _run(place, "build", "openssl", "--target", "f28")
        seconds, calls = [], []
        for _ in range(5):
            before = len(place.koji.calls)
            seconds.append(_measured(place, "build", "openssl", "--target", "f28")[0])
            calls.append(float(len(place.koji.calls) - before))
    yield Figure(name="run again with nothing changed", values=tuple(seconds), unit="s", bound="2")
    yield Figure(name="requests to the hub in it", values=tuple(calls), unit="calls", bound="3")


def maillog_lines() -> Iterator[Figure]:
    """Lines of a log for a second of a core's time, the command's start and its report included."""
    lines = generated_log(_LOG_LINES)
    rates, packed = [], []
    with tempfile.TemporaryDirectory() as folder:
        plain, compressed = Path(folder) / "main.log", Path(folder) / "main.log.gz"
        plain.write_bytes(b"\n".join(lines))
        compressed.write_bytes(gzip.compress(plain.read_bytes()))
        for _ in range(RUNS):
            rates.append(len(lines) / _counting(plain))
            packed.append(len(lines) / _counting(compressed))
    yield Figure(name="maillog, one core", values=tuple(rates), unit="line/s", bound="200000")
    yield Figure(name="maillog of a gzipped log", values=tuple(packed), unit="line/s", bound="none")


def examination() -> Iterator[Figure]:
    """The whole examination of an installed root: stock server, then the updated one; not dnf's update."""
    seconds = []
    with _place() as place, tempfile.TemporaryDirectory() as scratch:
        job, folder = load_job("openssl", "f28", place.site), Path(scratch)
        cache, packages = folder / "cache", job.recipe.self_test.install
        parts = make_parts(place.lab, job.target, cache=cache, folder=folder)
        for number in range(RUNS):
            workspace = folder / str(number)
            workspace.mkdir()
            with clean_root(job.target, packages=packages, cache=cache, workspace=workspace) as root:
                seconds.append(_examining(parts, root, workspace))
    yield Figure(name="whole examination of an installed root", values=tuple(seconds), unit="s", bound="3")


def publishing() -> Iterator[Figure]:
    """One package more for a large repository, beside `createrepo_c --update` over the same packages."""
    large = _large()
    ratios, seconds, peers = [], [], []
    more, added = [], []
    for one in large.publications(PACKAGES, RUNS):
        peers.append(large.createrepo())
        seconds.append(one.seconds)
        ratios.append(one.seconds / peers[-1])
        more.append(100 * one.bytes_more / one.bytes_added)
        added.append(one.bytes_added / 2**20)
    yield Figure(
        name="publishing over createrepo_c --update", values=tuple(ratios), unit="times", bound="0.25"
    )
    yield Figure(
        name=f"publishing one package beside {PACKAGES}", values=tuple(seconds), unit="s", bound="none"
    )
    yield Figure(name="createrepo_c --update", values=tuple(peers), unit="s", bound="none")
    yield Figure(name="disk above package and metadata", values=tuple(more), unit="%", bound="5")
    yield Figure(name="package and metadata", values=tuple(added), unit="MiB", bound="none")
    back = tuple(1000 * large.rollback() for _ in range(1))
    yield Figure(name="rollback", values=back, unit="ms", bound="50")
    for count in (100, 1000):
        few = tuple(one.seconds for one in large.publications(count, RUNS))
        yield Figure(name=f"publishing one package beside {count}", values=few, unit="s", bound="none")


def verifying() -> Iterator[Figure]:
    """A large repository read again, beside `sha256sum` of the same files."""
    both = [_large().verification() for _ in range(RUNS)]
    ours, peers = zip(*both, strict=True)
    yield Figure(name=f"repo verify of {PACKAGES} packages", values=ours, unit="s", bound="none")
    yield Figure(name="sha256sum of the same files", values=peers, unit="s", bound="none")


def probing() -> Iterator[Figure]:
    """The probe's client alone, and the whole command beside sslyze's whole command on the same server."""
    with tempfile.TemporaryDirectory() as folder, peers(Path(folder)) as both:
        speeds = tuple(both.handshakes() for _ in range(RUNS))
        pairs = [(both.examination(), both.scan()) for _ in range(RUNS)]
    ratios = tuple(ours / theirs for (ours, _), theirs in pairs)
    processor = tuple(seconds for (_, seconds), _ in pairs)
    yield Figure(name="handshakes of the probe's client", values=speeds, unit="/s", bound="none")
    yield Figure(name="backport probe over one sslyze scan", values=ratios, unit="times", bound="0.7")
    yield Figure(name="processor time of backport probe", values=processor, unit="s", bound="0.6")


def large_target() -> Iterator[Figure]:
    """The gates' questions about dependencies, of a target of Fedora's size."""
    with tempfile.TemporaryDirectory() as folder:
        make_repositories(Path(folder))
        command = [sys.executable, "-m", "tests.large_target", folder]
        done = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(RUNS)]
    seconds, peaks, _packages = zip(*(map(float, output.split()) for output in done), strict=True)
    name = f"of a target with {TARGET_PACKAGES} packages"
    yield Figure(name=f"dependencies {name}", values=seconds, unit="s", bound="none")
    yield Figure(name=f"peak memory {name}", values=peaks, unit="MiB", bound="150")


FIGURES: dict[str, Callable[[], Iterator[Figure]]] = {
    "help": help_over_python,
    "unchanged": unchanged_run,
    "pipeline": pipeline_over_rpmbuild,
    "maillog": maillog_lines,
    "publishing": publishing,
    "verifying": verifying,
    "examination": examination,
    "probing": probing,
    "large-target": large_target,
}


def _large() -> Shelf:
    """The large repository, in the cache folder of the lab."""
    lab = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    return shelf(lab.path.parent / "large-repository")


@contextmanager
def _place(kept: str | None = None) -> Iterator[Served]:
    """A site with a key: below the lab's cache under a name that is kept, or a new one that goes."""
    lab = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    with tempfile.TemporaryDirectory(dir=lab.path.parent, prefix="bench-") as scratch:
        folder = lab.path.parent / kept if kept else Path(scratch)
        with served(lab, folder) as place:
            if not (folder / "gnupg").is_dir():
                _run(place, "keys", "init")
            yield place


def _come_to_rest() -> None:
    os.sync()
    time.sleep(_REST)


def _bare_rpmbuild(job: Job, place: Served) -> float:
    """Seconds of `rpmbuild --rebuild` alone, for the SRPMs of the last run, in a root like the builder's."""
    seconds = 0.0
    with tempfile.TemporaryDirectory() as workspace:
        for srpm in sorted((job.site.paths.repository / "f28" / "current" / "source").rglob("*.src.rpm")):
            needed = [str(name) for name in read_header(srpm)["requirenevrs"]]
            wanted = [name for name in needed if not name.startswith("rpmlib(")]
            with clean_root(
                job.target,
                packages=job.target.buildroot,
                cache=job.site.paths.cache,
                workspace=Path(workspace),
            ) as root:
                root.install(wanted)
                inside = root.path / "builddir" / srpm.name
                inside.write_bytes(srpm.read_bytes())
                inside.chmod(0o644)
                started = time.monotonic()
                root.run(
                    Command(
                        ["/usr/bin/rpmbuild", "--rebuild", f"/builddir/{srpm.name}"],
                        timeout=3600,
                        log=Path(workspace) / "bare.log",
                    )
                )
                seconds += time.monotonic() - started
    return seconds


def _examining(parts: Parts, root: Root, workspace: Path) -> float:
    examiner = parts.examiner(root, workspace)
    started = time.monotonic()
    examiner.before()
    before = time.monotonic() - started
    assert examiner.update()
    started = time.monotonic()
    examiner.after()
    seconds = before + time.monotonic() - started
    failed = [check.id for check in examiner.ledger.checks() if check.stops and check.id != "root.installed"]
    assert not failed, failed
    return seconds


def _counting(log: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _seconds([sys.executable, "-m", "backport", "maillog", "--json", str(log)])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _measured(place: Served, *arguments: str) -> tuple[float, float]:
    """Wall seconds of a command and the peak memory of its own process in MiB."""
    with tempfile.NamedTemporaryFile("r") as peak:
        command = [sys.executable, "-c", _MEASURED_MAIN, *arguments, "--config", str(place.site), peak.name]
        seconds = _seconds(command)
        return seconds, int(peak.read() or 0) / 1024


def _run(place: Served, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "backport", *arguments, "--config", str(place.site)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _report(place: Served) -> dict[str, list[dict[str, float | str]]]:
    done = subprocess.run(
        [sys.executable, "-m", "backport", "log", "--json", "--limit", "1", "--config", str(place.site)],
        check=True,
        capture_output=True,
    )
    reports: list[dict[str, list[dict[str, float | str]]]] = json.loads(done.stdout)
    return reports[0]


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def _release() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line.split("=", 1)[1].strip('"') for line in lines if line.startswith("PRETTY_NAME="))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
