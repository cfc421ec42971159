"""What build roots take of what is published, and what nothing provides: known before anything is built.

libsolv, by which dnf itself resolves dependencies, solves each package's root over the target's repositories,
what other recipes have published in the channel, and what the run itself builds before. Those published
packages that the solution takes are part of the package's key, and a root gets no other: so its result
depends on nothing else of the channel, and the publication of what it does not use sends nothing through a
rebuild.

What the recipe's own source packages have in the channel is left out. Its packages were first built without
that, and are built in the same way ever after; what one needs of the others comes from this run. Otherwise
each publication would change the inputs of the next run, and the result would hang on what came before it.

BuildRequires are those that the source has of the package, with what the recipe's edits take from them or
add to them in plain text. What a spec computes, or generates during the build, nobody knows before: a root
gets that from the target and from the run's own packages alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from backport.errors import PublishError, as_kind
from backport.files import write_atomically
from backport.gates.filter import parts_of
from backport.gates.pool import PUBLISHED, add_repository, ask_for_files, new_pool, solv
from backport.gates.repositories import Metadata, TargetRepositories, metadata_of_folder
from backport.progress import Progress
from backport.recipe import Package
from backport.repository.channel import Channel, ChannelPackage
from backport.repository.contents import content_of
from backport.runs.job import Job, target_digest
from backport.runs.results import key_of
from backport.seals import require_own
from backport.sources.offers import Binary, Offer

_BUILD_REQUIRES = re.compile(r"^\s*BuildRequires\s*:\s*(?P<value>.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_PLAIN = re.compile(r"\((?:[^()]|\([^()]*\))*\)|[^\s,()]+(?:\([^()]*\))*(?:\s*[<>=]+\s*[^\s,]+)?")
_RELATION = re.compile(r"(?P<name>\S+)\s*(?P<operator><=|>=|<|>|=)\s*(?P<evr>\S+)")
_DIST = re.compile(r"\.(fc|el)\d+(_\d+)?$")
_OPERATORS = {"<": ("REL_LT",), ">": ("REL_GT",), "=": ("REL_EQ",), "<=": ("REL_LT", "REL_EQ"),
              ">=": ("REL_GT", "REL_EQ")}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What one package's build root takes and lacks."""

    published: tuple[ChannelPackage, ...] = ()
    """What it takes of the channel."""
    missing: tuple[str, ...] = ()
    """Its BuildRequires that nothing provides."""
    conflicts: tuple[str, ...] = ()
    """Why what it needs cannot be installed together, though each is provided."""

    def inputs(self) -> dict[str, str]:
        """The published packages by their names, each with its EVR and what its header says of its content,
        which no signature by another key changes."""
        return {
            f"{one.nevra.name}.{one.nevra.arch}": f"{one.nevra.evr} {content_of(one.path).digest}"
            for one in self.published
        }


@as_kind(PublishError)
def survey(
    job: Job,
    builds: Mapping[str, Offer],
    channel: Channel | None,
    *,
    whole: bool,
    progress: Progress,
) -> dict[str, Needs]:
    """The needs of the builds, by package, in the order in which they are built.

    Unless the ``whole`` is wanted, nothing is looked at where no other recipe has published anything: then
    no root can take of that. The last answer is kept, and found again while nothing that it came from has
    changed. Raises PublishError where a repository cannot be read, HostError without libsolv's bindings or
    where others can write to the cache.
    """
    others = _of_other_recipes(job, channel)
    if not others and not whole:
        return {name: Needs() for name in builds}
    cache = job.site.paths.cache
    repositories = TargetRepositories.of(job.target, cache=cache, progress=progress).metadata()
    wanted = {name: edited_needs(one.needs, job.recipe.packages[name]) for name, one in builds.items()}
    market = _Market(job=job, repositories=repositories, channel=channel, others=others)
    key = market.key(builds, wanted)
    kept = job.site.paths.cache / "needs" / f"{job.name}-{job.target.name}-{job.site.channel}.json"
    require_own(kept.parent)
    answers = _read(kept, key)
    if answers is None or set(answers) != set(builds):
        progress.note("looking for what the builds need")
        answers = market.solve_all(builds, wanted)
        write_atomically(kept, _Kept(key=key, answers=answers).model_dump_json(indent=1))
    return {
        name: Needs(
            published=tuple(one for one in others if str(one.nevra) in answers[name].published),
            missing=answers[name].missing,
            conflicts=answers[name].conflicts,
        )
        for name in builds
    }


def edited_needs(needs: Iterable[str], package: Package) -> tuple[str, ...]:
    """BuildRequires after a recipe's edits, as far as those name any in plain text.

    >>> from backport.recipe import SpecEdit
    >>> edit = SpecEdit(action="replace", anchor="BuildRequires: a", text="BuildRequires: b >= 2, c")
    >>> edited_needs(["a", "d"], Package(nvr="x-1-1", edits=(edit,)))
    ('b >= 2', 'c', 'd')
    """
    found = set(needs)
    for edit in package.edits:
        if edit.action in ("replace", "delete"):
            found -= set(build_requires_in(edit.anchor))
        found |= {one for one in build_requires_in(edit.text) if "%" not in one}
    return tuple(sorted(found))


def build_requires_in(text: str) -> Iterator[str]:
    """The BuildRequires that stand in a part of a spec, each as rpm writes it."""
    for line in _BUILD_REQUIRES.finditer(text):
        for one in _PLAIN.findall(line["value"]):
            match = _RELATION.fullmatch(one)
            yield f"{match['name']} {match['operator']} {match['evr']}" if match else one


def _of_other_recipes(job: Job, channel: Channel | None) -> tuple[ChannelPackage, ...]:
    packages = channel.packages if channel else ()
    return tuple(one for one in packages if one.source not in job.recipe.packages)


class _Answer(BaseModel):
    """What was found for one package, in words that a file can keep."""

    published: tuple[str, ...]
    """NEVRAs."""
    missing: tuple[str, ...]
    conflicts: tuple[str, ...]


class _Kept(BaseModel):
    """The last answers, and the question that they are to."""

    key: str
    answers: dict[str, _Answer]


def _read(path: Path, key: str) -> Mapping[str, _Answer] | None:
    """The last answers, if they are to this very question."""
    try:
        kept = _Kept.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
    return kept.answers if kept.key == key else None


@dataclass(frozen=True, kw_only=True)
class _Market:
    """Everything that a build root can choose from."""

    job: Job
    repositories: Mapping[str, Metadata]
    channel: Channel | None
    others: Sequence[ChannelPackage]

    def key(self, builds: Mapping[str, Offer], wanted: Mapping[str, Sequence[str]]) -> str:
        """The digest over everything that an answer comes from."""
        packages = self.job.recipe.packages
        return key_of(
            {
                "target": target_digest(self.job.target),
                "stock": repr({name: metadata.digest for name, metadata in self.repositories.items()}),
                "others": repr(sorted((str(one.nevra), one.sha256) for one in self.others)),
                "needs": repr(
                    {name: (packages[name].bump, wanted[name], one.binaries) for name, one in builds.items()}
                ),
            }
        )

    def solve_all(
        self, builds: Mapping[str, Offer], wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, _Answer]:
        """The answers by package. Files beside programs and /etc are read only where one seems missing: a
        release has millions of them."""
        answers = self._solve_all(builds, wanted, files=False)
        if any(one.missing or one.conflicts for one in answers.values()):
            answers = self._solve_all(builds, wanted, files=True)
        return answers

    def _solve_all(
        self, builds: Mapping[str, Offer], wanted: Mapping[str, Sequence[str]], *, files: bool
    ) -> dict[str, _Answer]:
        pool = new_pool(self.job.target)
        for name, metadata in self.repositories.items():
            add_repository(pool, name, metadata, files=files)
        if self.channel and self.others:
            published = add_repository(pool, PUBLISHED, metadata_of_folder(self.channel.folder), files=files)
            others = {str(one.nevra) for one in self.others}
            pool.set_disabled_list([one.id for one in published.solvables if one.str() not in others])
        parts = (part for texts in wanted.values() for text in texts for part in parts_of(text))
        ask_for_files(pool, {part for part in parts if part.startswith("/")})
        own = pool.add_repo(" own")
        own.priority = 1
        answers = {}
        for name, build in builds.items():
            root = _Root(pool, self.job.target.buildroot, own=not own.isempty())
            answers[name] = root.solve(wanted[name])
            release = _release_here(build.nevra.release, self.job, name)
            for binary in build.binaries:
                _add_candidate(own, binary, build.nevra.release, release)
        return answers


def _release_here(release: str, job: Job, name: str) -> str:
    return f"{_DIST.sub('', release)}{job.target.dist}.bp{job.recipe.packages[name].bump}"


def _add_candidate(own: Any, binary: Binary, before: str, release: str) -> None:
    """A package that the run will have built, as like its origin as can be known: of what that requires,
    what nothing here provides came from the newer release's own libraries and tools."""

    def here(text: str) -> str:
        return f"{text.removesuffix(before)}{release}" if text.endswith(f"-{before}") else text

    pool, nevra = own.pool, binary.nevra
    one = own.add_solvable()
    one.name, one.arch, one.evr = nevra.name, nevra.arch, here(nevra.evr)
    for text in (*binary.provides, f"{nevra.name} = {nevra.evr}"):
        one.add_provides(dependency(pool, here(text)))
    pool.createwhatprovides()
    for text in binary.requires:
        wanted = dependency(pool, here(text))
        if pool.whatprovides(wanted):
            one.add_requires(wanted)


def dependency(pool: Any, text: str) -> Any:
    """A dependency of libsolv's from the text that rpm writes, rich ones too."""
    if text.startswith("("):
        rich = pool.parserpmrichdep(text)
        return rich if rich is not None else pool.Dep(text)
    match = _RELATION.fullmatch(text)
    if match is None:
        return pool.Dep(text)
    flags = 0
    for name in _OPERATORS[match["operator"]]:
        flags |= getattr(solv(), name)
    return pool.Dep(match["name"]).Rel(flags, pool.Dep(match["evr"]))


class _Root:
    """One build root: the target's base packages and what one package needs."""

    def __init__(self, pool: Any, base: Sequence[str], *, own: bool) -> None:
        # Whatever is added to a pool makes it forget this, and it does not notice when it is asked.
        pool.createwhatprovides()
        self._pool, self._base, self._own = pool, base, own

    def solve(self, needs: Sequence[str]) -> _Answer:
        """What it takes of what is published, and what it lacks."""
        missing = [text for text in needs if not self._pool.whatprovides(dependency(self._pool, text))]
        # A rich dependency may be met by nothing at all, such as (a if b) without b: the solver knows.
        known = [text for text in needs if not (text.startswith("/") and text in missing)]
        # Which files the run's own packages will have nobody knows.
        missing = [text for text in missing if not text.startswith(("(", "/") if self._own else "(")]
        wanted = [*self._base, *(text for text in known if text not in missing)]
        taken, problem = self._try(wanted)
        conflicts = []
        if problem:
            # The rest of it can be had all the same: each is tried beside those before it.
            fitting: list[str] = []
            for text in wanted:
                _, problem = self._try([*fitting, text])
                if problem:
                    conflicts.append(f"{text} ({problem})")
                else:
                    fitting.append(text)
            taken, _ = self._try(fitting)
        return _Answer(published=tuple(taken), missing=tuple(missing), conflicts=tuple(conflicts))

    def _try(self, wanted: Sequence[str]) -> tuple[list[str], str]:
        """What a root of all that is wanted takes of what is published, or why there is none."""
        solver = self._pool.Solver()
        solver.set_flag(solver.SOLVER_FLAG_IGNORE_RECOMMENDED, 1)
        if problems := solver.solve([self._job(text) for text in wanted]):
            return [], _reason(problems[0])
        new = solver.transaction().newsolvables()
        return sorted(one.str() for one in new if one.repo.name == PUBLISHED), ""

    def _job(self, text: str) -> Any:
        kind = solv().Job
        return self._pool.Job(
            kind.SOLVER_INSTALL | kind.SOLVER_SOLVABLE_PROVIDES, dependency(self._pool, text).id
        )


def _reason(problem: Any) -> str:
    """Why there is no solution, in libsolv's words: of the rule that is nearest to the cause."""
    return str(problem.findproblemrule().info().problemstr())
