"""Builds as a Koji hub tells of them: resolved from their NVRs, and searched for.

The hub's word decides where a package is looked for and what to compare it with; it never replaces
the signature. Every field that ends up in a path, a URL or a message is checked against its form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from backport.artifacts import Nevra
from backport.errors import FetchError
from backport.printable import printable
from backport.settings import did_you_mean
from backport.site import Koji
from backport.sources.hub import Call, Fault, Hub

MAX_PACKAGE = 16 * 1024**3
"""Bytes in one source package: more is no sane answer."""
MAX_FOUND = 40
"""Packages that one search shows."""

# Koji's own numbers: koji.BUILD_STATES, and the types of getRPMDeps.
_STATES = {0: "BUILDING", 1: "COMPLETE", 2: "DELETED", 3: "FAILED", 4: "CANCELED"}
_REQUIRES, _PROVIDES = 0, 1
_DEBUG_PACKAGE = re.compile(r"-debug(info|source)(-common)?$")

Part = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+~^-]*$", max_length=200)]
"""A name, version or release that is safe in a path and a URL."""
SigKey = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{8,40})?$")]
"""A key's id as Koji writes it; empty for the unsigned copy."""
Id = Annotated[int, Field(ge=1, le=2**53)]


@dataclass(frozen=True, kw_only=True)
class ResolvedBuild:
    """One COMPLETE build, as far as its hub tells about it."""

    nevra: Nevra
    """The source package's."""
    build_id: int
    rpm_id: int
    size: int
    """Bytes of the unsigned copy; a signed one is a little larger, or as large."""
    header_digest: str
    """SIGMD5 of the source package in hex, over header and payload; empty where the hub has none."""
    digests: Mapping[str, Mapping[str, str]]
    """File digests by key id (empty for the unsigned copy) and algorithm, as far as the hub has them."""
    sigkeys: tuple[str, ...]
    """Ids of the keys that signed, 8 lower-case hex digits each as a rule."""
    build_requires: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    """Names that the binary packages require; empty where only one build was asked for."""
    provides: tuple[str, ...] = ()
    """Names that the binary packages provide, their own names among them."""

    def sha256(self, sigkey: str) -> str | None:
        """The hub's SHA-256 of the copy signed by that key, where it has one."""
        return self.digests.get(sigkey, {}).get("sha256")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A package that a search found, and its latest build in each of the tags that have one."""

    package: str
    builds: Mapping[str, str]
    """NVR by tag."""


class _Row(BaseModel):
    """Base of the hub's rows: types are taken as they are, unknown keys are of no concern."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Build(_Row):
    id: Id
    nvr: str
    state: int


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


class _Named(_Row):
    name: Part


class _Tagged(_Row):
    nvr: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+~^-]+$", max_length=600)]


_Digests = dict[SigKey, dict[str, Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32,128}$")] | None]]


def resolve(
    koji: Koji, nvrs: Sequence[str], *, arch: str, tag: str | None = None
) -> tuple[ResolvedBuild, ...]:
    """The builds behind the NVRs, in their order, by three requests to the hub.

    Binary packages are looked at for ``arch``, and only where several builds have to be put in
    order. ``tag`` names the tag whose latest build is suggested for an NVR that does not exist.

    Raises FetchError: hub not reachable, too slow or talking nonsense; build unknown or not COMPLETE.
    """
    hub = Hub(koji)
    builds = _complete_builds(hub, nvrs, tag)
    wanted = ["src", "noarch", arch]
    rows = hub.call_all([("listRPMs", (), {"buildID": build.id, "arches": wanted}) for build in builds])
    rpms = [_rpms_of(hub, nvr, build, row) for nvr, build, row in zip(nvrs, builds, rows, strict=True)]
    plans = [_Questions(rpm=rpm, binaries=binaries if len(nvrs) > 1 else []) for rpm, binaries in rpms]
    answers = iter(hub.call_all([call for plan in plans for call in plan.calls]))
    return tuple(plan.resolved(hub, [next(answers) for _ in plan.calls]) for plan in plans)


def search(koji: Koji, pattern: str, tags: Sequence[str], *, hint: str = "") -> tuple[Found, ...]:
    """Packages whose name fits the pattern, and their latest builds in the tags, by two requests.

    A pattern without ``*`` or ``?`` fits every name that contains it; letter case is of no concern.
    At most MAX_FOUND packages are given, the shortest names first. Raises FetchError, also for a tag
    that the hub does not know; ``hint`` says what to do about that.
    """
    hub = Hub(koji)
    glob = pattern if re.search(r"[*?]", pattern) else f"*{pattern}*"
    (answer,) = hub.call_all([("search", (glob, "package", "glob"), {})])
    rows = hub.checked(list[_Named], answer, f"which packages fit {glob}")
    names = sorted((row.name for row in rows), key=lambda name: (len(name), name))[:MAX_FOUND]
    if not names:
        return ()
    calls: list[Call] = [("getLatestBuilds", (tag,), {"package": name}) for name in names for tag in tags]
    answers = iter(hub.call_all(calls) if calls else [])
    return tuple(
        Found(
            package=name,
            builds={tag: nvr for tag in tags for nvr in _latest(hub, next(answers), name, tag, hint)},
        )
        for name in names
    )


@dataclass(frozen=True, kw_only=True)
class _Questions:
    """What is asked about one source package and its binary packages in the last request."""

    rpm: _Rpm
    binaries: list[_Rpm]

    @property
    def calls(self) -> list[Call]:
        return [
            ("getRPMChecksums", (self.rpm.id,), {"checksum_types": ["sha256"]}),
            ("queryRPMSigs", (), {"rpm_id": self.rpm.id}),
            *(("getRPMDeps", (rpm.id,), {}) for rpm in (self.rpm, *self.binaries)),
        ]

    def resolved(self, hub: Hub, answers: Sequence[Any]) -> ResolvedBuild:
        name = self.rpm.nevra.filename
        checksums, signatures, *dependencies = answers
        rows = hub.checked(list[_Signature], signatures, f"who signed {name}")
        if any(row.rpm_id != self.rpm.id for row in rows):
            raise hub.nonsense(f"signatures of another package instead of those of {name}")
        source, *binaries = (
            hub.checked(list[_Dependency], found, f"what the packages of {name} need")
            for found in dependencies
        )
        return ResolvedBuild(
            nevra=self.rpm.nevra,
            build_id=self.rpm.build_id,
            rpm_id=self.rpm.id,
            size=self.rpm.size,
            header_digest=self.rpm.payloadhash,
            digests=self._digests(hub, checksums),
            sigkeys=tuple(sorted({row.sigkey for row in rows if row.sigkey})),
            build_requires=_names(source, _REQUIRES),
            requires=_names((row for rows in binaries for row in rows), _REQUIRES),
            provides=_names((row for rows in binaries for row in rows), _PROVIDES),
        )

    def _digests(self, hub: Hub, answer: Any) -> Mapping[str, Mapping[str, str]]:
        """The hub's file digests. A hub may be too old for this call or unable to compute them, which
        is no reason to stop: the signature proves as much. Fetching the package says so."""
        if isinstance(answer, Fault):
            return {}
        checked = hub.checked(_Digests, answer, f"the digests of {self.rpm.nevra.filename}")
        return {
            key: {algorithm: digest for algorithm, digest in digests.items() if digest}
            for key, digests in checked.items()
        }


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
                hint="pin another build; `backport search` shows the latest ones",
            )
        builds.append(build)
    return builds


def _unknown(hub: Hub, nvr: str, tag: str | None) -> FetchError:
    """The error for an NVR that the hub does not have, with the builds that it does have."""
    name = Nevra.from_nvr(nvr).name
    recent = {"packageID": name, "state": 1, "queryOpts": {"order": "-build_id", "limit": 10}}
    calls: list[Call] = [("listBuilds", (), recent)]
    if tag:
        calls.append(("getLatestBuilds", (tag,), {"package": name}))
    answers = [answer for answer in hub.call_all(calls) if not isinstance(answer, Fault)]
    known = [
        row.nvr for answer in answers for row in hub.checked(list[_Tagged], answer, f"the builds of {name}")
    ]
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


def _latest(hub: Hub, answer: Any, name: str, tag: str, hint: str) -> list[str]:
    what = f"the latest {name} in the tag {tag}"
    rows = hub.checked(list[_Tagged], answer, what, hint=hint)
    return [row.nvr for row in rows[:1]]


def _names(rows: Iterable[_Dependency], kind: int) -> tuple[str, ...]:
    return tuple(
        sorted({row.name for row in rows if row.type == kind and not row.name.startswith("rpmlib(")})
    )
