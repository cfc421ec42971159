"""Resolving against recorded answers of a real hub, and against answers that lie."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import koji
import pytest

from backport.errors import FetchError
from backport.site import Koji
from backport.sources.koji import hub as hub_module
from backport.sources.koji.builds import resolve, search

DATA = Path(__file__).parents[1] / "data" / "koji"
NVR = "openssl-1.1.1a-1.fc29"


def recorded(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())["result"]


def recorded_answer(name: str) -> list[Any]:
    return [recorded(name)]


class Recorded:
    """A session that answers multicalls by method from the recordings, and counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self.next_answers: dict[str, Iterator[Any]] = {}
        """By method, the answers before the one in ``answers``."""
        self.answers: dict[str, Any] = {
            "getBuild": [recorded("getBuild_nvr")],
            "listRPMs": [recorded("listRPMs_all")],
            "getRPMChecksums": [recorded("getRPMChecksums")],
            "queryRPMSigs": [recorded("queryRPMSigs")],
            "getRPMDeps": [recorded("getRPMDeps")],
            "listBuilds": [recorded("listBuilds_name")],
            "listTagged": [recorded("listTagged_latest_pkg_inherit")],
            "listTags": [recorded("listTags_build")],
            "getFullInheritance": [recorded("getFullInheritance")],
            "search": [[{"id": 1, "name": "openssl"}]],
        }

    def callMethod(self, name: str, calls: list[dict[str, Any]]) -> Any:  # noqa: N802  # the client library's name
        assert name == "multiCall"
        self.requests += 1
        return [copy.deepcopy(self._answer(call["methodName"])) for call in calls]

    def _answer(self, method: str) -> Any:
        return next(self.next_answers.get(method, iter(())), self.answers[method])


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    session = Recorded()
    monkeypatch.setattr(hub_module, "_open_session", lambda _settings: session)
    return session


def test_recorded_answers_of_a_real_hub_are_understood(session: Recorded) -> None:
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    assert session.requests == 3
    assert str(build.nevra) == "openssl-1:1.1.1a-1.fc29.src"
    assert (build.origin, build.size) == ({"koji_build": 2}, 8922)
    assert build.header_digest == "e281a5ece9b2f7d402aad18c19c983aa"
    assert build.identity == f"{build.nevra} {build.header_digest}"
    assert [(copy.key, copy.sha256) for copy in build.copies] == [
        ("f00fddc4", "1a78195f2bb92b4d3d1facd58390826729e4e4d34911d6b5c8dad305e870bc28")
    ]
    assert build.build_requires == ("coreutils",)
    assert build.requires == ()


def test_binary_packages_are_looked_at_where_an_order_is_needed(session: Recorded) -> None:
    builds = resolve(Koji(), [NVR, NVR], arch="x86_64")
    assert session.requests == 3
    assert builds[0].requires == ("coreutils",)
    assert builds[0].provides == ("openssl", "openssl-doc", "openssl-libs")
    assert builds[0].needs == ("coreutils",)
    assert builds[0].binaries[0].provides == (
        "openssl = 1:1.1.1a-1.fc29", "openssl-doc = 1:1.1.1a-1.fc29", "openssl-libs = 1:1.1.1a-1.fc29",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "version", "text"),
    [(0, "", "a"), (12, "1:2-3", "a >= 1:2-3"), (10, "2", "a <= 2"), (8, "2", "a = 2"), (64, "", "a")],
)
def test_a_dependency_is_written_as_rpm_does(session: Recorded, flags: int, version: str, text: str) -> None:
    session.answers["getRPMDeps"] = [[{"name": "a", "version": version, "flags": flags, "type": 0}]]
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    assert build.needs == (text,)


def test_hub_that_cannot_tell_digests_is_no_obstacle(session: Recorded) -> None:
    session.answers["getRPMChecksums"] = {"faultCode": 1000, "faultString": "Invalid method", "traceback": []}
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    assert [copy.sha256 for copy in build.copies] == [None]


def test_search_reads_recorded_answers(session: Recorded) -> None:
    (found,) = search(Koji(), "open", ["f29-updates"], tell=print)
    assert (found.package, dict(found.builds)) == ("openssl", {"f29-updates": NVR})


def test_a_tag_that_the_hub_does_not_know_is_told_with_what_to_do(session: Recorded) -> None:
    session.answers["listTagged"] = {"faultCode": 1000, "faultString": "No such tag", "traceback": []}
    with pytest.raises(FetchError, match="f92-updates") as refused:
        search(Koji(), "open", ["f92-updates"], tell=print, hint="correct --tag")
    assert refused.value.hint == "correct --tag"


def test_a_name_of_another_kind_breaks_no_search(session: Recorded) -> None:
    session.answers["search"] = [[{"id": 1, "name": "openssl"}, {"id": 2, "name": "an image: \x1b[31m"}]]
    assert [found.package for found in search(Koji(), "open", [], tell=print)] == ["openssl"]


def test_one_tag_that_is_gone_leaves_the_others_to_be_searched(session: Recorded) -> None:
    gone = {"faultCode": 1000, "faultString": "No such tagInfo: 'f1'", "traceback": []}
    answers = iter([gone, recorded_answer("listTagged_latest_pkg_inherit")])
    session.next_answers["listTagged"] = answers
    told: list[str] = []
    (found,) = search(Koji(), "open", ["f1", "f29-updates"], tell=told.append, hint="correct it")
    assert dict(found.builds) == {"f29-updates": NVR}
    assert told == ["the tag f1 was left out: No such tagInfo: 'f1'; correct it"]


def test_drafts_are_neither_found_nor_suggested(session: Recorded) -> None:
    (draft,) = recorded("draft_build")
    session.answers["listTagged"] = [[draft, *recorded("listTagged_latest_pkg_inherit")]]
    session.answers["listBuilds"] = [[draft, *recorded("listBuilds_name")]]
    (found,) = search(Koji(), "open", ["f29-updates"], tell=print)
    assert dict(found.builds) == {"f29-updates": NVR}
    session.answers["listTagged"] = [[draft]]
    (found,) = search(Koji(), "open", ["f29-updates"], tell=print)
    assert dict(found.builds) == {}
    session.answers["getBuild"] = [None]
    with pytest.raises(FetchError, match="is not on") as refused:
        resolve(Koji(), ["openssl-1.1.1b-1.fc29"], arch="x86_64", tag="f29-updates")
    assert "draft" not in str(refused.value.hint)
    assert NVR in str(refused.value.hint)


def test_a_build_carries_the_tag_or_one_that_it_inherits(session: Recorded) -> None:
    assert resolve(Koji(), [NVR], arch="x86_64", tag="f29-updates")
    assert resolve(Koji(), [NVR], arch="x86_64", tag="f29-build")
    assert session.requests == 6


@pytest.mark.parametrize(
    ("carried", "where"), [([], "in no tag at all"), (["f29-archive"], "only in f29-archive")]
)
def test_a_build_outside_of_the_tag_is_refused(session: Recorded, carried: list[str], where: str) -> None:
    (row,) = recorded("listTags_build")
    session.answers["listTags"] = [[{**row, "name": name} for name in carried]]
    with pytest.raises(FetchError, match=f"{NVR} is not in the tag f29-build .*{where}$") as refused:
        resolve(Koji(), [NVR], arch="x86_64", tag="f29-build")
    assert f"pin one that is: {NVR}" in str(refused.value.hint)
    assert ('tag = "f29-archive"' in str(refused.value.hint)) == bool(carried)


def test_a_recipes_tag_that_is_gone_is_told_by_name(session: Recorded) -> None:
    session.answers["getFullInheritance"] = {
        "faultCode": 1000, "faultString": "No such tagInfo: 'f1'", "traceback": []
    }  # fmt: skip
    with pytest.raises(FetchError, match="what the tag f1 inherits from: No such tagInfo: 'f1'") as refused:
        resolve(Koji(), [NVR], arch="x86_64", tag="f1")
    assert "correct `tag`" in str(refused.value.hint)


def test_a_build_that_is_under_way_is_not_to_be_replaced_by_another(session: Recorded) -> None:
    session.answers["getBuild"] = [{**recorded("getBuild_nvr"), "state": koji.BUILD_STATES["BUILDING"]}]
    with pytest.raises(FetchError, match="BUILDING") as refused:
        resolve(Koji(), [NVR], arch="x86_64")
    assert "wait until Koji has built it" in str(refused.value.hint)


def test_a_fault_of_one_call_that_tells_of_an_outage_is_asked_again(session: Recorded) -> None:
    outage = {"faultCode": 1014, "faultString": "database outage", "traceback": []}
    session.next_answers["getBuild"] = iter([outage, session.answers["getBuild"]])
    assert resolve(Koji(), [NVR], arch="x86_64")
    assert session.requests == 4


def test_the_key_of_a_source_is_the_same_whatever_else_the_hub_says(session: Recorded) -> None:
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    session.answers["getRPMChecksums"] = {"faultCode": 1000, "faultString": "busy", "traceback": []}
    session.answers["queryRPMSigs"][0].append({"rpm_id": 5, "sigkey": "0badcafe", "sighash": "0" * 32})
    (later,) = resolve(Koji(), [NVR], arch="x86_64")
    assert [copy.sha256 for copy in build.copies] != [copy.sha256 for copy in later.copies]
    assert later.identity == build.identity


def test_refused_call_is_quoted_without_control_characters(session: Recorded) -> None:
    session.answers["listRPMs"] = {"faultCode": 1, "faultString": "no\x1b[2J\nway", "traceback": []}
    with pytest.raises(FetchError, match=r"refused to tell the packages of .*: no \[2J way") as refused:
        resolve(Koji(), [NVR], arch="x86_64")
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("state", [name for name in koji.BUILD_STATES if name != "COMPLETE"])
def test_every_state_but_complete_is_refused_by_name(session: Recorded, state: str) -> None:
    session.answers["getBuild"][0]["state"] = koji.BUILD_STATES[state]
    with pytest.raises(FetchError, match=f"{NVR} is {state} "):
        resolve(Koji(), [NVR], arch="x86_64")


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("getBuild", {"id": "2"}),
        ("getBuild", {"id": True}),
        ("getBuild", {"id": -1}),
        ("getBuild", {"nvr": "bash-1-1"}),
        ("getBuild", {"state": None}),
        ("listRPMs", {"build_id": 3}),
        ("listRPMs", {"name": "../openssl"}),
        ("listRPMs", {"version": "1/1"}),
        ("listRPMs", {"release": "1.fc29;rm"}),
        ("listRPMs", {"release": "-e"}),
        ("listRPMs", {"size": 0}),
        ("listRPMs", {"size": 2**60}),
        ("listRPMs", {"size": 8922.5}),
        ("listRPMs", {"epoch": "1"}),
        ("listRPMs", {"payloadhash": "xyz"}),
        ("queryRPMSigs", {"sigkey": "../../.."}),
        ("queryRPMSigs", {"sigkey": "F00FDDC4"}),
        ("queryRPMSigs", {"rpm_id": 6}),
        ("getRPMDeps", {"name": ""}),
        ("getRPMDeps", {"name": "x" * 5000}),
        ("getRPMDeps", {"type": "1"}),
    ],
)
def test_lies_in_single_fields_are_found(session: Recorded, method: str, change: dict[str, Any]) -> None:
    answer = session.answers[method][0]
    (answer[0] if isinstance(answer, list) else answer).update(change)
    with pytest.raises(FetchError, match="makes no sense"):
        resolve(Koji(), [NVR], arch="x86_64")


@pytest.mark.parametrize("answer", [None, [], [1, 2], "x", {}, {"faultCode": 1}, [[{}]], [None]], ids=repr)
def test_answers_without_form_are_found(session: Recorded, answer: Any) -> None:
    session.answers["listRPMs"] = answer
    with pytest.raises(FetchError, match="makes no sense"):
        resolve(Koji(), [NVR], arch="x86_64")


def test_build_needs_just_one_source_package_of_its_name(session: Recorded) -> None:
    rows = session.answers["listRPMs"][0]
    session.answers["listRPMs"] = [[row for row in rows if row["arch"] != "src"]]
    with pytest.raises(FetchError, match="names none as its source package"):
        resolve(Koji(), [NVR], arch="x86_64")
    session.answers["listRPMs"] = [[*rows, rows[0]]]
    with pytest.raises(FetchError, match=f"names {NVR}, {NVR} as its source package"):
        resolve(Koji(), [NVR], arch="x86_64")
