"""Resolving against recorded answers of a real hub, and against answers that lie."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import koji
import pytest

from backport.errors import FetchError
from backport.site import Koji
from backport.sources import hub as hub_module
from backport.sources.resolve import resolve, search

DATA = Path(__file__).parents[1] / "data" / "koji"
NVR = "openssl-1.1.1a-1.fc29"


def recorded(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text())["result"]


class Recorded:
    """A session that answers multicalls by method from the recordings, and counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self.answers: dict[str, Any] = {
            "getBuild": [recorded("getBuild_nvr")],
            "listRPMs": [recorded("listRPMs_all")],
            "getRPMChecksums": [recorded("getRPMChecksums")],
            "queryRPMSigs": [recorded("queryRPMSigs")],
            "getRPMDeps": [recorded("getRPMDeps")],
            "listBuilds": [recorded("listBuilds_name")],
            "getLatestBuilds": [recorded("getLatestBuilds_tag_package")],
            "search": [[{"id": 1, "name": "openssl"}]],
        }

    def callMethod(self, name: str, calls: list[dict[str, Any]]) -> Any:  # noqa: N802  # the client library's name
        assert name == "multiCall"
        self.requests += 1
        return [copy.deepcopy(self.answers[call["methodName"]]) for call in calls]


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    session = Recorded()
    monkeypatch.setattr(hub_module, "_open_session", lambda _settings: session)
    return session


def test_recorded_answers_of_a_real_hub_are_understood(session: Recorded) -> None:
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    assert session.requests == 3
    assert str(build.nevra) == "openssl-1:1.1.1a-1.fc29.src"
    assert (build.build_id, build.rpm_id, build.size) == (2, 5, 8922)
    assert build.header_digest == "e281a5ece9b2f7d402aad18c19c983aa"
    assert build.sigkeys == ("f00fddc4",)
    assert build.sha256("f00fddc4") == "1a78195f2bb92b4d3d1facd58390826729e4e4d34911d6b5c8dad305e870bc28"
    assert build.build_requires == ("coreutils",)
    assert build.requires == ()


def test_binary_packages_are_looked_at_where_an_order_is_needed(session: Recorded) -> None:
    builds = resolve(Koji(), [NVR, NVR], arch="x86_64")
    assert session.requests == 3
    assert builds[0].requires == ("coreutils",)
    assert builds[0].provides == ("openssl", "openssl-doc", "openssl-libs")


def test_hub_that_cannot_tell_digests_is_no_obstacle(session: Recorded) -> None:
    session.answers["getRPMChecksums"] = {"faultCode": 1000, "faultString": "Invalid method", "traceback": []}
    (build,) = resolve(Koji(), [NVR], arch="x86_64")
    assert build.digests == {}


def test_search_reads_recorded_answers(session: Recorded) -> None:
    (found,) = search(Koji(), "open", ["f29-updates"])
    assert (found.package, dict(found.builds)) == ("openssl", {"f29-updates": NVR})


def test_a_tag_that_the_hub_does_not_know_is_told_with_what_to_do(session: Recorded) -> None:
    session.answers["getLatestBuilds"] = {"faultCode": 1000, "faultString": "No such tag", "traceback": []}
    with pytest.raises(FetchError, match="f92-updates") as refused:
        search(Koji(), "open", ["f92-updates"], hint="correct --tag")
    assert refused.value.hint == "correct --tag"


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
