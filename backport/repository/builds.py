"""What a generation's page tells of its builds: a small file for each run, kept as long as its packages.

::

    generations/<id>/builds/<time>-<sha256>.tsv

A line is a build: its name and EVR, how many packages it has, what it holds as JSON, and its row of the page.
So a page of many builds is put together from rows that are there, and a generation that adds one build adds
one line. Each file is named by its own digest, and the generation's signed record has the digest over the
names. Of two lines for the same build the one of the later run counts: it tells what the earlier told, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport.artifacts import BuiltRpms, Nevra, Rpm, is_for_debugging
from backport.files import write_atomically
from backport.repository.page import Build, render_build

FOLDER = "builds"
_SUFFIX = ".tsv"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One package of a run, as its build is told of."""

    rpm: Rpm
    path: str
    """Where it lies in the generation."""
    source: str
    """The file name of the source package that it was built from; empty where it says none."""

    @property
    def is_source(self) -> bool:
        """Whether it is a source package itself."""
        return self.rpm.nevra.arch in {"src", "nosrc"}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a page, in their order, and how many packages they name."""

    rows: tuple[str, ...]
    packages: int


def builds_of(parts: Iterable[Part], built: Sequence[BuiltRpms]) -> tuple[Build, ...]:
    """What a run built, each with the packages in ``parts``."""
    origins = {one.srpm.nevra.filename: one for one in built}
    groups: dict[str, list[Part]] = {}
    for part in parts:
        groups.setdefault(part.source or part.rpm.nevra.filename, []).append(part)
    return tuple(_build(source, group, origins.get(source)) for source, group in sorted(groups.items()))


def write_builds(generation: Path, builds: Iterable[Build], *, time: datetime) -> None:
    """Add what a run built to what is told in a generation's folder already. Raises OSError."""
    earlier = [path.read_text(encoding="utf-8") for path in reversed(files(generation))]
    _write(generation, [_line(_with_earlier(build, earlier)) for build in builds], time)


def _write(generation: Path, lines: Sequence[str], time: datetime) -> None:
    if lines:
        text = "".join(lines)
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = f"{time.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-{digest}{_SUFFIX}"
        write_atomically(generation / FOLDER / name, text)


def write_withdrawn(generation: Path, gone: Collection[str], lender: Path | None, *, time: datetime) -> None:
    """Tell no more of the builds whose packages, by their paths, are all ``gone``, and again of those that
    came back from ``lender``. Raises ValueError for a damaged file, OSError."""
    lines = [
        f"{name}\t{evr}\t0\t{told}\t\n"
        for (name, evr), told in _told(generation).items()
        if _paths(told) and _paths(told) <= set(gone)
    ]
    for (name, evr), told in (_told(lender) if lender else {}).items():
        if (name, evr) not in _told(generation) and all(
            (generation / path).exists() for path in _paths(told)
        ):
            build = json.loads(told)
            packages = tuple((path, one) for path, one in build["packages"])
            lines.append(_line(Build(**{**build, "packages": packages, "debug": tuple(build["debug"])})))
    _write(generation, lines, time)


def _told(generation: Path) -> dict[tuple[str, str], str]:
    """What is told of each build, as JSON."""
    found: dict[tuple[str, str], str] = {}
    for path in files(generation):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            name, evr, _, told, row = line.split("\t", 4)
            found[name, evr] = told if row else ""
    return {key: told for key, told in found.items() if told}


def _paths(told: str) -> set[str]:
    build = json.loads(told)
    return {
        path for path in (build["source"], *build["debug"], *(one[0] for one in build["packages"])) if path
    }


def files(generation: Path) -> tuple[Path, ...]:
    """The plain files of a generation, the oldest first."""
    found = (generation / FOLDER).glob(f"*{_SUFFIX}")
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def digest_over(generation: Path) -> str:
    """The digest that the generation's record must have; empty where nothing is told."""
    names = [path.name for path in files(generation)]
    return hashlib.sha256("\n".join(names).encode()).hexdigest() if names else ""


def digest_in_name(path: Path) -> str:
    """The digest that a file must have."""
    return path.name.removesuffix(_SUFFIX).partition("-")[2]


def read_rows(generation: Path) -> Rows:
    """The rows of a generation's page by name and EVR. Raises ValueError for a damaged file, OSError."""
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for path in files(generation):
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            name, evr, count, told = line.split("\t", 3)
            found[name, evr] = told.partition("\t")[2], int(count)
    return Rows(
        rows=tuple(found[key][0] for key in sorted(found) if found[key][0]),
        packages=sum(count for _, count in found.values()),
    )


def _build(source: str, parts: Sequence[Part], built: BuiltRpms | None) -> Build:
    nevra = built.srpm.nevra if built else _nevra_of(source, parts)
    debug = [part for part in parts if is_for_debugging(part.rpm.nevra.name)]
    shown = [part for part in parts if not part.is_source and part not in debug]
    return Build(
        name=_plain(nevra.name),
        evr=_plain(nevra.evr),
        origin=built.patched.source.rpm.nevra.nvr if built else "",
        source=next((part.path for part in parts if part.is_source), ""),
        packages=tuple(sorted((part.path, part.rpm.nevra.name) for part in shown)),
        debug=tuple(sorted(part.path for part in debug)),
    )


def _nevra_of(source: str, parts: Sequence[Part]) -> Nevra:
    """A source package that is known by its file's name alone, which lacks the epoch."""
    own = next((part.rpm.nevra for part in parts if part.is_source or not part.source), None)
    return own or Nevra.from_nvr(source.removesuffix(".rpm").rpartition(".")[0])


def _plain(text: str) -> str:
    return " ".join(text.split())


def _with_earlier(build: Build, earlier: Iterable[str]) -> Build:
    """The build with what earlier runs told of it; ``earlier`` are their files' texts, the newest first."""
    beginning = f"{build.name}\t{build.evr}\t"
    for text in earlier:
        start = 0 if text.startswith(beginning) else text.find(f"\n{beginning}") + 1
        if start or text.startswith(beginning):
            old = json.loads(text[start:].split("\t", 4)[3])
            return replace(
                build,
                origin=build.origin or old["origin"],
                source=build.source or old["source"],
                packages=tuple(sorted({*build.packages, *((path, name) for path, name in old["packages"])})),
                debug=tuple(sorted({*build.debug, *old["debug"]})),
            )
    return build


def _line(build: Build) -> str:
    text = json.dumps(asdict(build), sort_keys=True)
    return "\t".join((build.name, build.evr, str(len(build.packages)), text, render_build(build))) + "\n"
