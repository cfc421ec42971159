"""The stand-in Koji hub's read-only calls.

The answers have the keys, types and faults that a real hub 1.35.3 was recorded with.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import koji

from tests.lab.koji_database import (
    CHECKSUMS,
    Build,
    Database,
    Row,
    build_row,
    dependencies_of,
    timestamps,
)

VERSION = "1.35.3"
EPOCH_OF_EVENTS = 1000


class HubFault(Exception):
    """What the hub answers instead of a result."""

    def __init__(self, text: str, code: int = 1000) -> None:
        super().__init__(text)
        self.code = code


class Hub:
    """The calls, by Koji's names in ``METHODS``."""

    def __init__(self, database: Database) -> None:
        self.data = database

    def call(self, method: str, arguments: Iterable[Any]) -> Any:
        """The result of one call with its arguments as sent. Raises HubFault."""
        if method not in METHODS:
            raise HubFault(f"Invalid method: {method}")
        positional, named = koji.decode_args(*arguments)
        try:
            return METHODS[method](
                self, *positional, **{_snake(name): value for name, value in named.items()}
            )
        except TypeError as wrong:
            raise HubFault(str(wrong).removeprefix("Hub."), 1019) from None

    def multicall(self, calls: list[Row]) -> list[Any]:
        answers: list[Any] = []
        for call in calls:
            try:
                if "params" not in call:
                    raise HubFault("params", 1)
                answers.append([self.call(call["methodName"], call["params"])])
            except HubFault as fault:
                answers.append({"faultCode": fault.code, "faultString": str(fault), "traceback": ["..."]})
        return answers

    def api_version(self) -> int:
        return 1

    def koji_version(self) -> str:
        return VERSION

    def hello(self, *_arguments: Any) -> str:
        return "Hello World"

    def echo(self, *arguments: Any) -> list[Any]:
        return list(arguments)

    def get_build(self, build_info: Any, *, strict: bool = False) -> Row | None:
        build = self._find_build(build_info)
        if build is None and strict:
            raise HubFault(f"No such build: {build_info!r}")
        return {**build_row(build), **timestamps(build), "id": build.id, "cg_name": None} if build else None

    def list_builds(
        self,
        package_id: Any = None,
        *,
        pattern: str | None = None,
        state: int | None = None,
        query_opts: Row | None = None,
    ) -> Any:
        rows = [
            {key: value for key, value in (build_row(build) | timestamps(build)).items() if key != "cg_id"}
            for build in self.data.builds
            if (package_id is None or package_id in (build.package_id, build.name))
            and (pattern is None or fnmatch.fnmatch(build.nvr.lower(), pattern.lower()))
            and (state is None or state == build.state)
        ]
        return _with_options(rows, query_opts)

    def list_rpms(self, build_id: Any = None, *, arches: Any = None, query_opts: Row | None = None) -> Any:
        if build_id is not None and not isinstance(build_id, int):
            raise HubFault(
                "<class 'psycopg2.errors.InvalidTextRepresentation'>: invalid input syntax for type integer: "
                f"\"{build_id}\"\nLINE 6:    AND (rpminfo.build_id = '{build_id}')\n{'^':>36}\n",
                1,
            )
        wanted = [arches] if isinstance(arches, str) else arches
        rows = [
            row
            for build, row in self.data.rpms.values()
            if build_id in (None, build.id) and (wanted is None or row["arch"] in wanted)
        ]
        return _with_options(rows, query_opts)

    def list_build_rpms(self, build: Any) -> list[Row]:
        found = self._find_build(build)
        if found is None:
            raise HubFault(f"No such build: {build!r}")
        return found.rpms

    def get_rpm(self, rpminfo: Any, *, strict: bool = False) -> Row | None:
        found = self._find_rpm(rpminfo)
        if found is None and strict:
            raise HubFault(f"No such rpm: {rpminfo!r}")
        return {key: value for key, value in found.items() if key != "nvr"} if found else None

    def rpm_signatures(self, rpm_id: Any = None, sigkey: str | None = None) -> list[Row]:
        found = self._find_rpm(rpm_id)
        wanted = (
            [] if rpm_id is not None and found is None else [found["id"]] if found else list(self.data.rpms)
        )
        rows = [row for number in wanted for row in self._signatures(number)]
        return [row for row in rows if sigkey is None or row["sigkey"] == sigkey]

    def checksums(
        self, rpm_id: Any, checksum_types: list[str] | None = None, *, cacheonly: bool = False
    ) -> Row:
        del cacheonly
        if not isinstance(rpm_id, int):
            raise HubFault("rpm_id must be an integer")
        if rpm_id not in self.data.rpms:
            raise HubFault(f"No such rpm: { ({'id': rpm_id}) }")
        kinds = checksum_types or ["md5", "sha256"]
        for kind in kinds:
            if kind not in CHECKSUMS:
                raise HubFault(f"Checksum_type {kind} isn't supported")
        return {
            key: {kind: found.digests[kind] for kind in kinds}
            for key, found in self.data.copies(rpm_id).items()
        }

    def dependencies(self, rpm_id: Any, dep_type: int | None = None, *, strict: bool = False) -> list[Row]:
        row = self.get_rpm(rpm_id, strict=strict)
        if row is None:
            return []
        build = self.data.rpms[row["id"]][0]
        rows = dependencies_of(build, row)
        return [found for found in rows if dep_type is None or found["type"] == dep_type]

    def list_tagged(
        self,
        tag: str,
        *,
        inherit: bool = False,
        latest: bool | int = False,
        package: str | None = None,
        event: int | None = None,
    ) -> list[Row]:
        if tag not in self.data.tags:
            raise HubFault(f"No such tagInfo: {tag!r}")
        return self._tagged(tag, inherit=inherit, latest=latest, package=package, event=event)

    def latest_builds(self, tag: str, event: int | None = None, package: str | None = None) -> list[Row]:
        self._need_tag(tag)
        return self._tagged(tag, inherit=True, latest=True, package=package, event=event)

    def list_tags(
        self, build: Any = None, *, package: str | None = None, pattern: str | None = None
    ) -> list[Row]:
        found = self._find_build(build) if build is not None else None
        return [
            self._tag_row(tag)
            for tag, nvrs in self.data.tags.items()
            if (pattern is None or fnmatch.fnmatch(tag, pattern))
            and (build is None or (found is not None and found.nvr in nvrs))
            and (package is None or any(nvr.rsplit("-", 2)[0] == package for nvr in nvrs))
        ]

    def get_tag(self, tag_info: Any, *, strict: bool = False) -> Row | None:
        for number, tag in enumerate(self.data.tags, start=1):
            if tag_info in (tag, number):
                return {**self._tag_row(tag), "extra": {}}
        if strict:
            raise HubFault(f"No such tagInfo: {tag_info!r}")
        return None

    def full_inheritance(self, tag: str) -> list[Row]:
        self._need_tag(tag)
        return [*self._links(tag, depth=1)]

    def _links(self, tag: str, *, depth: int) -> Iterator[Row]:
        tags = [*self.data.tags]
        for priority, parent in enumerate(self.data.inheritance.get(tag, [])):
            yield {
                "child_id": tags.index(tag) + 1,
                "currdepth": depth,
                "filter": [],
                "intransitive": False,
                "maxdepth": None,
                "name": parent,
                "nextdepth": None,
                "noconfig": False,
                "parent_id": tags.index(parent) + 1,
                "pkg_filter": "",
                "priority": priority,
            }
            yield from self._links(parent, depth=depth + 1)

    def get_package(self, info: Any, *, strict: bool = False) -> Row | None:
        number = self.package_id(info)
        if number is None and strict:
            raise HubFault(f"No such entry in table package: {info}")
        return {"id": number, "name": info} if number is not None else None

    def package_id(self, name: str, *, strict: bool = False) -> int | None:
        if name in self.data.names:
            return self.data.names.index(name) + 1
        if strict:
            raise HubFault(f"No such package name: {name}")
        return None

    def list_packages(self, tag_id: Any = None, *, pkg_id: Any = None, inherited: bool = False) -> list[Row]:
        if tag_id is None:
            return [
                {"package_id": number, "package_name": name} for number, name in enumerate(self.data.names, 1)
            ]
        self._need_tag(tag_id)
        rows = {
            row["package_name"]: row
            for row in self._tagged(tag_id, inherit=inherited, latest=True, package=pkg_id, event=None)
        }
        return [
            {
                "blocked": False,
                "extra_arches": None,
                "owner_id": 1,
                "owner_name": "kojiadmin",
                "package_id": row["package_id"],
                "package_name": name,
                "tag_id": row["tag_id"],
                "tag_name": row["tag_name"],
            }
            for name, row in rows.items()
        ]

    def search(self, terms: str, kind: str, match_type: str, query_opts: Row | None = None) -> Any:
        if not terms:
            raise HubFault("empty search terms")
        names: Iterator[tuple[int, str]]
        if kind == "build":
            names = ((build.id, build.nvr) for build in self.data.builds)
        elif kind == "package":
            names = enumerate(self.data.names, start=1)
        elif kind == "tag":
            names = enumerate(self.data.tags, start=1)
        elif kind == "rpm":
            names = (
                (number, f"{row['nvr']}.{row['arch']}.rpm") for number, (_, row) in self.data.rpms.items()
            )
        else:
            raise HubFault(f"No such search type: {kind}")
        found = [{"id": number, "name": name} for number, name in names if _fits(name, terms, match_type)]
        return _with_options(found, query_opts)

    def volumes(self) -> list[Row]:
        names = ["DEFAULT", *sorted(set(self.data.volumes.values()))]
        return [{"id": number, "name": name} for number, name in enumerate(names)]

    def _find_build(self, info: Any) -> Build | None:
        if isinstance(info, dict):
            info = f"{info['name']}-{info['version']}-{info['release']}"
        if not isinstance(info, str | int):
            raise HubFault(f"Invalid type for argument: {type(info)}")
        if isinstance(info, str) and info.count("-") < 2:
            raise HubFault(f"invalid format: {info}")
        return next((build for build in self.data.builds if info in (build.id, build.nvr)), None)

    def _find_rpm(self, info: Any) -> Row | None:
        for number, (_, row) in self.data.rpms.items():
            nvra = f"{row['nvr']}.{row['arch']}"
            if info in (number, nvra, f"{nvra}.rpm"):
                return row
        return None

    def _signatures(self, number: int) -> list[Row]:
        build, row = self.data.rpms[number]
        if row["arch"] != "src" or build.srpm is None:
            return [{"rpm_id": number, "sighash": row["payloadhash"], "sigkey": ""}]
        return [
            {"rpm_id": number, "sighash": found.sighash, "sigkey": key}
            for key, found in self.data.copies(number).items()
        ]

    def _need_tag(self, tag: str) -> None:
        if tag not in self.data.tags:
            raise HubFault(f"No such entry in table tag: {tag}")

    def _tag_row(self, tag: str) -> Row:
        return {
            "arches": "",
            "id": [*self.data.tags].index(tag) + 1,
            "locked": False,
            "maven_include_all": False,
            "maven_support": False,
            "name": tag,
            "perm": None,
            "perm_id": None,
        }

    def _tagged(
        self, tag: str, *, inherit: bool, latest: bool | int, package: str | None, event: int | None
    ) -> list[Row]:
        """Builds of the tag, newest tagging first; a parent's packages only where the tag has too few."""
        rows: list[Row] = []
        if event is not None and event < EPOCH_OF_EVENTS:
            return rows
        for name in (tag, *(self._ancestors(tag) if inherit else ())):
            for nvr in reversed(self.data.tags[name]):
                build = self._find_build(nvr)
                if build is None or package not in (None, build.name):
                    continue
                if latest and sum(row["package_name"] == build.name for row in rows) >= int(latest):
                    continue
                rows.append(
                    {
                        **build_row(build),
                        "id": build.id,
                        "tag_name": name,
                        "tag_id": [*self.data.tags].index(name) + 1,
                        "create_event": EPOCH_OF_EVENTS + build.id,
                    }
                )
        return [
            {key: value for key, value in row.items() if key not in {"source", "extra", "cg_id"}}
            for row in rows
        ]

    def _ancestors(self, tag: str) -> Iterator[str]:
        for parent in self.data.inheritance.get(tag, []):
            yield parent
            yield from self._ancestors(parent)


METHODS: Mapping[str, Callable[..., Any]] = {
    "getAPIVersion": Hub.api_version,
    "getKojiVersion": Hub.koji_version,
    "hello": Hub.hello,
    "echo": Hub.echo,
    "getBuild": Hub.get_build,
    "listBuilds": Hub.list_builds,
    "listRPMs": Hub.list_rpms,
    "listBuildRPMs": Hub.list_build_rpms,
    "getRPM": Hub.get_rpm,
    "queryRPMSigs": Hub.rpm_signatures,
    "getRPMChecksums": Hub.checksums,
    "getRPMDeps": Hub.dependencies,
    "listTagged": Hub.list_tagged,
    "getLatestBuilds": Hub.latest_builds,
    "listTags": Hub.list_tags,
    "getTag": Hub.get_tag,
    "getFullInheritance": Hub.full_inheritance,
    "getPackage": Hub.get_package,
    "getPackageID": Hub.package_id,
    "listPackages": Hub.list_packages,
    "search": Hub.search,
    "listVolumes": Hub.volumes,
    "multiCall": Hub.multicall,
    "system.multicall": Hub.multicall,
}


def _fits(name: str, terms: str, match_type: str) -> bool:
    if match_type == "glob":
        return fnmatch.fnmatchcase(name.lower(), terms.lower())
    if match_type == "regexp":
        return re.search(terms, name, re.IGNORECASE) is not None
    return name == terms


def _with_options(rows: list[Row], options: Row | None) -> Any:
    options = options or {}
    if options.get("countOnly"):
        return len(rows)
    if order := options.get("order"):
        rows = sorted(rows, key=lambda row: row[order.lstrip("-")], reverse=order.startswith("-"))
    start = options.get("offset", 0)
    return rows[start : start + options["limit"]] if "limit" in options else rows[start:]


def _snake(name: str) -> str:
    """Koji's parameter name as Python spells it: ``buildID`` → ``build_id``."""
    return "kind" if name == "type" else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
