"""Builds as a Koji hub tells of them: resolved from their NVRs, and searched for.

Every field that ends up in a path, a URL or a message is checked against its form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backport.artifacts import Nevra
from backport.errors import FetchError
from backport.printable import printable
from backport.recipe import Recipe
from backport.settings import did_you_mean
from backport.site import Koji, Site
from backport.sources.koji.copies import KojiCopy
from backport.sources.koji.hub import Call, Fault, Hub
from backport.sources.offers import Binary, Found, Offer

MAX_PACKAGE = 16 * 1024**3
"""Bytes in one source package: more is no sane answer."""
MAX_FOUND = 40
"""Packages that one search shows."""
VERSION_TIMEOUT = 10.0
"""Seconds that a hub has to tell its version."""
_NEWEST = 10
"""Builds of a package that are asked for where one that is no draft is wanted, and that a hint names."""

# Koji's own numbers: koji.BUILD_STATES, and the types of getRPMDeps.
_STATES = {0: "BUILDING", 1: "COMPLETE", 2: "DELETED", 3: "FAILED", 4: "CANCELED"}
_STATE_HINTS = {
    "BUILDING": "wait until Koji has built it, then run this again; or pin a build that is COMPLETE",
    "DELETED": "Koji has thrown it away: pin another build; `backport search` shows the latest ones",
}
_STATE_HINT = "it was never whole: pin another build; `backport search` shows the latest ones"
_REQUIRES, _PROVIDES = 0, 1
_FIRST_VOLUME = "DEFAULT"
_COMPARISONS = {2: "<", 4: ">", 8: "="}
"""rpm's own bits: RPMSENSE_LESS, RPMSENSE_GREATER, RPMSENSE_EQUAL."""
_DEBUG_PACKAGE = re.compile(r"-debug(info|source)(-common)?$")

_PART = r"^[A-Za-z0-9_][A-Za-z0-9._+~^-]*$"
Part = Annotated[str, StringConstraints(pattern=_PART, max_length=200)]
"""A name, version or release that is safe in a path and a URL."""
SigKey = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{8,40})?$")]
"""A key's id as Koji writes it; empty for the unsigned copy."""
Id = Annotated[int, Field(ge=1, le=2**53)]


class _Row(BaseModel):
    """Base of the hub's rows: types are taken as they are, unknown keys are of no concern."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Build(_Row):
    id: Id
    nvr: str
    state: int
    volume_name: Part | None = None

    @property
    def volume(self) -> str:
        return "" if self.volume_name in (None, _FIRST_VOLUME) else str(self.volume_name)


class _Rpm(_Row):
    id: Id
    build_id: Id
    name: Part
    version: Part
    release: Part
    epoch: Annotated[int, Field(ge=0, lt=2**31)] | None
    arch: Part
    size: Annotated[int, Field(gt=0, le=MAX_PACKAGE)]
    payloadhash: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{32})?$")]

    @property
    def nevra(self) -> Nevra:
        return Nevra(
            name=self.name, epoch=self.epoch or 0, version=self.version, release=self.release, arch=self.arch
        )


class _Signature(_Row):
    rpm_id: Id
    sigkey: SigKey


class _Dependency(_Row):
    name: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    type: int
    version: Annotated[str, StringConstraints(max_length=600)] | None = ""
    flags: int = 0

    @property
    def text(self) -> str:
        """As rpm writes it."""
        operator = "".join(sign for bit, sign in _COMPARISONS.items() if self.flags & bit)
        return f"{self.name} {operator} {self.version}" if operator and self.version else self.name


class _Named(_Row):
    name: Annotated[str, StringConstraints(max_length=1000)]


class _Tagged(_Row):
    """A build in a list. A draft's NVR ends in ``,draft_`` and a number (Koji 1.34), and is no NVR to pin."""

    nvr: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+~^,-]+$", max_length=600)]
    draft: bool | None = None

    @property
    def is_draft(self) -> bool:
        return bool(self.draft) or "," in self.nvr


class _Tag(_Row):
    """A tag, or a parent that a tag inherits from."""

    name: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=256)]


_Digests = dict[SigKey, dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,128}$")] | None]]


@dataclass(frozen=True, kw_only=True)
class KojiSource:
    """A Koji build system; see `backport.sources.Source`."""

    koji: Koji
    name: str = "hub"

    @classmethod
    def of(cls, site: Site) -> KojiSource:
        """The site's."""
        return cls(koji=site.koji)

    @property
    def address(self) -> str:
        """The hub's URL."""
        return self.koji.hub

    def wanted(self, recipe: Recipe) -> tuple[str, ...]:
        """The NVRs of the builds."""
        return tuple(package.nvr for package in recipe.packages.values())

    def ask(self, recipe: Recipe, *, arch: str) -> tuple[Offer, ...]:
        """The builds, by three requests."""
        return resolve(self.koji, self.wanted(recipe), arch=arch, tag=recipe.source.tag)

    def search(
        self, pattern: str, places: Sequence[str], *, recipes: Sequence[Recipe], tell: Callable[[str], object]
    ) -> tuple[Found, ...]:
        """Packages and their latest builds in tags, by two requests."""
        tags = places or sorted({recipe.source.tag for recipe in recipes})
        corrected = "`tag` under [source] in the recipe, or name others with --tag"
        hint = "correct --tag" if places else f"correct {corrected}"
        return search(self.koji, pattern, tags=tags, tell=tell, hint=hint)

    def version(self) -> str:
        """Koji's, as the hub tells it."""
        timeout = min(self.koji.timeout, VERSION_TIMEOUT)
        hub = Hub(self.koji.model_copy(update={"retries": 0, "timeout": timeout}))
        [version] = hub.call_all([("getKojiVersion", (), {})])
        return f"Koji {hub.checked(str, version, 'its version')}"


def resolve(koji: Koji, nvrs: Sequence[str], *, arch: str, tag: str | None = None) -> tuple[Offer, ...]:
    """The builds behind the NVRs, in their order, by three requests to the hub.

    Binary packages are looked at for ``arch``, and only where several builds have to be put in
    order. ``tag`` names the tag that every build must carry, or one of those that it inherits from.

    Raises FetchError: hub not reachable, too slow or talking nonsense; build unknown, not COMPLETE or not in
    the tag.
    """
    hub = Hub(koji)
    builds = _complete_builds(hub, nvrs, tag)
    wanted = ["src", "noarch", arch]
    calls: list[Call] = [("listRPMs", (), {"buildID": build.id, "arches": wanted}) for build in builds]
    if tag:
        calls += [("listTags", (), {"build": build.id}) for build in builds]
        calls.append(("getFullInheritance", (tag,), {}))
    found = hub.call_all(calls)
    rows, tagged = found[: len(builds)], found[len(builds) :]
    rpms = [_rpms_of(hub, nvr, build, row) for nvr, build, row in zip(nvrs, builds, rows, strict=True)]
    if tag:
        _require_tag(hub, builds, tag, tags=tagged[:-1], parents=tagged[-1])
    plans = [
        _Questions(rpm=rpm, binaries=binaries if len(nvrs) > 1 else [], volume=build.volume)
        for build, (rpm, binaries) in zip(builds, rpms, strict=True)
    ]
    answers = iter(hub.call_all([call for plan in plans for call in plan.calls]))
    return tuple(plan.resolved(hub, [next(answers) for _ in plan.calls]) for plan in plans)


def search(
    koji: Koji, pattern: str, tags: Sequence[str], *, tell: Callable[[str], object], hint: str = ""
) -> tuple[Found, ...]:
    """Packages whose name fits the pattern, and their latest builds in the tags, by two requests.

    A pattern without ``*`` or ``?`` fits every name that contains it; letter case is of no concern.
    At most MAX_FOUND packages are given, the shortest names first. A tag that the hub does not know is left
    out, which ``tell`` is told. Raises FetchError, also where the hub knows none of the tags; ``hint`` says
    what to do about that.
    """
    hub = Hub(koji)
    glob = pattern if re.search(r"[*?]", pattern) else f"*{pattern}*"
    (answer,) = hub.call_all([("search", (glob, "package", "glob"), {})])
    rows = hub.checked(list[_Named], answer, f"which packages fit {glob}")
    # Koji also holds packages that are no RPMs, with names of their own kind.
    fitting = (row.name for row in rows if re.fullmatch(_PART, row.name))
    names = sorted(fitting, key=lambda name: (len(name), name))[:MAX_FOUND]
    if not names:
        return ()
    pairs = [(name, tag) for name in names for tag in tags]
    answers = hub.call_all([_newest(tag, name) for name, tag in pairs]) if pairs else []
    builds: dict[str, dict[str, str]] = {name: {} for name in names}
    refused: dict[str, Fault] = {}
    for (name, tag), answer in zip(pairs, answers, strict=True):
        if isinstance(answer, Fault):
            refused[tag] = answer
        elif nvrs := _finished(hub, answer, f"the latest {name} in the tag {tag}"):
            builds[name][tag] = nvrs[0]
    if refused and len(refused) == len(set(tags)):
        tag, fault = next(iter(refused.items()))
        raise FetchError(f"{koji.hub}: refused to tell the builds in the tag {tag}: {fault}", hint=hint)
    for tag, fault in refused.items():
        tell(f"the tag {tag} was left out: {fault}; {hint}")
    return tuple(Found(package=name, builds=builds[name]) for name in names)


@dataclass(frozen=True, kw_only=True)
class _Questions:
    """What is asked about one source package and its binary packages in the last request."""

    rpm: _Rpm
    binaries: list[_Rpm]
    volume: str

    @property
    def calls(self) -> list[Call]:
        return [
            ("getRPMChecksums", (self.rpm.id,), {"checksum_types": ["sha256"]}),
            ("queryRPMSigs", (), {"rpm_id": self.rpm.id}),
            *(("getRPMDeps", (rpm.id,), {}) for rpm in (self.rpm, *self.binaries)),
        ]

    def resolved(self, hub: Hub, answers: Sequence[Any]) -> Offer:
        nevra = self.rpm.nevra
        checksums, signatures, *dependencies = answers
        rows = hub.checked(list[_Signature], signatures, f"who signed {nevra.filename}")
        if any(row.rpm_id != self.rpm.id for row in rows):
            raise hub.nonsense(f"signatures of another package instead of those of {nevra.filename}")
        source, *binaries = (
            hub.checked(list[_Dependency], found, f"what the packages of {nevra.filename} need")
            for found in dependencies
        )
        digests = self._digests(hub, checksums)
        return Offer(
            nevra=nevra,
            identity=f"{nevra} {self.rpm.payloadhash}".rstrip(),
            size=self.rpm.size,
            copies=tuple(
                KojiCopy(
                    koji=hub.settings, nevra=nevra, size=self.rpm.size, volume=self.volume, key=key,
                    sha256=digests.get(key), unsigned_sha256=digests.get(""),
                )
                for key in sorted({row.sigkey for row in rows if row.sigkey})
            ),
            told_by="hub",
            origin={"koji_build": self.rpm.build_id},
            header_digest=self.rpm.payloadhash,
            build_requires=_names(source, _REQUIRES),
            needs=_texts(source, _REQUIRES),
            binaries=tuple(
                Binary(nevra=rpm.nevra, requires=_texts(rows, _REQUIRES), provides=_texts(rows, _PROVIDES))
                for rpm, rows in zip(self.binaries, binaries, strict=True)
            ),
            requires=_names((row for rows in binaries for row in rows), _REQUIRES),
            provides=_names((row for rows in binaries for row in rows), _PROVIDES),
        )  # fmt: skip

    def _digests(self, hub: Hub, answer: Any) -> Mapping[str, str]:
        """The hub's SHA-256 of each copy, by key id, empty for the unsigned one. A hub may be too old for
        this call or unable to compute them, which is no reason to stop: the signature proves as much.
        Fetching the package says so."""
        if isinstance(answer, Fault):
            return {}
        checked = hub.checked(_Digests, answer, f"the digests of {self.rpm.nevra.filename}")
        return {key: digest for key, digests in checked.items() if (digest := digests.get("sha256"))}


def _complete_builds(hub: Hub, nvrs: Sequence[str], tag: str | None) -> list[_Build]:
    answers = hub.call_all([("getBuild", (nvr,), {}) for nvr in nvrs])
    builds = []
    for nvr, answer in zip(nvrs, answers, strict=True):
        build = hub.checked(_Build | None, answer, f"about {nvr}")  # type: ignore[arg-type]  # a union is a form too
        if build is None:
            raise _unknown(hub, nvr, tag)
        if build.nvr != nvr:
            raise hub.nonsense(f"the build {build.nvr} instead of {nvr}")
        if (state := _STATES.get(build.state, f"state {build.state}")) != "COMPLETE":
            raise FetchError(
                f"{nvr} is {state} on {hub.settings.hub}, not COMPLETE",
                hint=_STATE_HINTS.get(state, _STATE_HINT),
            )
        builds.append(build)
    return builds


def _unknown(hub: Hub, nvr: str, tag: str | None) -> FetchError:
    """The error for an NVR that the hub does not have, with the builds that it does have."""
    name = Nevra.from_nvr(nvr).name
    recent = {"packageID": name, "state": 1, "queryOpts": {"order": "-build_id", "limit": 3 * _NEWEST}}
    calls: list[Call] = [("listBuilds", (), recent)]
    if tag:
        calls.append(_newest(tag, name))
    answers = [answer for answer in hub.call_all(calls) if not isinstance(answer, Fault)]
    known = [nvr for answer in answers for nvr in _finished(hub, answer, f"the builds of {name}")[:_NEWEST]]
    near = did_you_mean(nvr, known)
    hint = (
        f"it has {', '.join(dict.fromkeys(reversed(known)))}"[:300]
        if known
        else f"it has no build of {name} at all"
    )
    return FetchError(f"{nvr} is not on {hub.settings.hub}{near}", hint=hint)


def _rpms_of(hub: Hub, nvr: str, build: _Build, answer: Any) -> tuple[_Rpm, list[_Rpm]]:
    """The build's source package, and its binary packages without those for debuggers."""
    rows = hub.checked(list[_Rpm], answer, f"the packages of {nvr}")
    if any(row.build_id != build.id for row in rows):
        raise hub.nonsense(f"packages of another build instead of those of {nvr}")
    sources = [row for row in rows if row.arch == "src"]
    if len(sources) != 1 or sources[0].nevra.nvr != nvr:
        found = ", ".join(row.nevra.nvr for row in sources) or "none"
        raise FetchError(
            f"{nvr}: the hub names {printable(found)} as its source package",
            hint="pin a build that was made from one source package of the same name",
        )
    return sources[0], [row for row in rows if row.arch != "src" and not _DEBUG_PACKAGE.search(row.name)]


def _require_tag(hub: Hub, builds: Sequence[_Build], tag: str, *, tags: Sequence[Any], parents: Any) -> None:
    """Raise FetchError for a build that carries neither the tag nor one that it inherits from."""
    hint = "correct `tag` under [source] in the recipe; `koji list-tags` shows those there are"
    inherited = hub.checked(list[_Tag], parents, f"what the tag {tag} inherits from", hint=hint)
    fitting = {tag, *(parent.name for parent in inherited)}
    for build, answer in zip(builds, tags, strict=True):
        carried = [row.name for row in hub.checked(list[_Tag], answer, f"the tags of {build.nvr}")]
        if fitting.isdisjoint(carried):
            raise _untagged(hub, build.nvr, tag, carried)


def _untagged(hub: Hub, nvr: str, tag: str, carried: Sequence[str]) -> FetchError:
    name = Nevra.from_nvr(nvr).name
    (answer,) = hub.call_all([_newest(tag, name)])
    known = [] if isinstance(answer, Fault) else _finished(hub, answer, f"the builds of {name} in {tag}")
    hints = [f"pin one that is: {', '.join(known)}"] if known else []
    if carried:
        hints.append(f'name its tag, tag = "{carried[0]}", under [source] in the recipe')
    where = f"only in {', '.join(carried[:_NEWEST])}" if carried else "in no tag at all"
    return FetchError(
        f"{nvr} is not in the tag {tag} nor in one that it inherits from; it is {where}",
        hint=", or ".join(hints) or f"pin a build that is in the tag {tag}",
    )


def _newest(tag: str, name: str) -> Call:
    """The call for a package's newest builds in a tag and in those that it inherits from."""
    return ("listTagged", (tag,), {"inherit": True, "latest": _NEWEST, "package": name})


def _finished(hub: Hub, answer: Any, what: str) -> list[str]:
    """The NVRs in a list of builds, in its order, without the drafts: those are nobody's to start from."""
    return [row.nvr for row in hub.checked(list[_Tagged], answer, what) if not row.is_draft]


def _names(rows: Iterable[_Dependency], kind: int) -> tuple[str, ...]:
    return tuple(sorted({row.name for row in _of_kind(rows, kind)}))


def _texts(rows: Iterable[_Dependency], kind: int) -> tuple[str, ...]:
    return tuple(sorted({row.text for row in _of_kind(rows, kind)}))


def _of_kind(rows: Iterable[_Dependency], kind: int) -> Iterator[_Dependency]:
    return (row for row in rows if row.type == kind and not row.name.startswith("rpmlib("))
