"""The stand-in for Koji answers as the real hub did when its answers were recorded."""

from __future__ import annotations

import json
import re
import xmlrpc.client
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import koji
import pytest
import requests

from tests.e2e.small_koji import Signer, SmallKoji
from tests.lab.koji import FileTrouble, KojiServer

RECORDINGS = {
    path.stem: json.loads(path.read_text())
    for path in (Path(__file__).parents[1] / "data/koji").glob("*.json")
}
CALLS = sorted(
    name
    for name, recording in RECORDINGS.items()
    if recording.get("method") and "not_xmlrpc" not in recording
)
NVR = "openssl-1.1.1a-1.fc29"
DRAFT = "hello-1.0-1.fc29,draft_71"


def binary(name: str, arch: str) -> dict[str, object]:
    return {
        "name": name,
        "arch": arch,
        "requires": [["coreutils", 0, ""]],
        "provides": [[name, 8, "1:1.1.1a-1.fc29"]],
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KojiServer]:
    """The builds and tags that the recorded hub had, with the same numbers."""
    folder = tmp_path_factory.mktemp("koji")
    signer = Signer(home=folder / "gnupg")
    signer.make("release")
    small = SmallKoji(folder=folder / "koji", signer=signer)
    three = [
        binary(name, arch)
        for name, arch in (("openssl-doc", "noarch"), ("openssl", "x86_64"), ("openssl-libs", "x86_64"))
    ]
    small.add("openssl-1.1.1-3.fc29", age=3, key=None, binaries=three)
    small.add(NVR, age=2, binaries=three)
    small.add("crypto-policies-20181026-1.gitd42aaa6.fc29", age=1, key=None, epoch=0)
    small.write("states.json", {"crypto-policies-20181122-66.fc29": koji.BUILD_STATES["BUILDING"],
                                DRAFT: koji.BUILD_STATES["COMPLETE"]})  # fmt: skip
    small.write("tags.json", {"f29": ["openssl-1.1.1-3.fc29", "crypto-policies-20181026-1.gitd42aaa6.fc29"],
                              "f29-updates": [NVR], "f29-build": []})  # fmt: skip
    small.write("inheritance.json", {"f29-updates": ["f29"], "f29-build": ["f29-updates"]})
    signer.close()
    with KojiServer(small.folder) as running:
        yield running


def shape(value: Any, key: str = "") -> Any:
    """The structure of an answer: keys all the way down, and one example of every kind of list member."""
    if isinstance(value, dict):
        keys = ("KEYID" if re.fullmatch("[0-9a-f]{8}", name) else name for name in value)
        return {name: shape(inner, name) for name, inner in zip(keys, value.values(), strict=True)}
    if isinstance(value, list):
        return sorted({json.dumps(shape(inner), sort_keys=True) for inner in value})
    return key or type(value).__name__


def types(value: Any, found: dict[str, set[str]], key: str = "") -> dict[str, set[str]]:
    """Which types every key's value was seen with."""
    if isinstance(value, dict):
        for name, inner in value.items():
            types(inner, found, name)
    elif isinstance(value, list):
        for inner in value:
            types(inner, found, key)
    elif key:
        found[key].add(type(value).__name__)
    return found


def ask(server: KojiServer, recording: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    session = koji.ClientSession(server.hub_url, opts={"timeout": 10, "max_retries": 0, "anon_retry": False})
    try:
        return session.callMethod(recording["method"], *recording["args"], **recording["kwargs"]), None
    except koji.GenericError as fault:
        return None, {"faultCode": fault.faultCode, "faultString": str(fault)}
    except xmlrpc.client.Fault as fault:
        return None, {"faultCode": fault.faultCode, "faultString": fault.faultString}


def snake(text: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text).lower()


@pytest.mark.parametrize("name", CALLS)
def test_answer_has_the_recorded_form(server: KojiServer, name: str) -> None:
    recording = RECORDINGS[name]
    result, fault = ask(server, recording)
    if recorded := recording.get("fault"):
        assert fault is not None
        assert fault["faultCode"] == recorded["faultCode"]
        assert snake(fault["faultString"]) == snake(recorded["faultString"])
        return
    assert fault is None
    assert shape(result) == shape(recording["result"])
    seen: dict[str, set[str]] = defaultdict(set)
    for other in RECORDINGS.values():
        types(other.get("result"), seen)
    for key, kinds in types(result, defaultdict(set)).items():
        assert kinds <= seen[key] or re.fullmatch("[0-9a-f]{8}", key), key


@pytest.mark.parametrize(
    "name", ["getBuild_nvr", "getBuild_missing", "getBuild_id_as_string", "getBuild_bad_nvr", "getAPIVersion"]
)
def test_bytes_on_the_wire_have_the_recorded_form(server: KojiServer, name: str) -> None:
    recording = RECORDINGS[name]
    answer = requests.post(server.hub_url, recording["request_xml"].encode(), timeout=10)
    assert answer.status_code == recording["http_status"]
    assert set(answer.headers) == set(recording["http_headers"])
    for header in ("Server", "Connection", "Koji-Version", "Content-Type"):
        assert answer.headers[header] == recording["http_headers"][header]
    assert tags(answer.text) == tags(recording["response_xml"])


def tags(text: str) -> list[str]:
    """An answer's markup, with the members of a struct in the order of their names."""
    members = sorted(re.findall(r"<member>.*?</member>", text, re.DOTALL))
    rest = re.sub(r"<member>.*?</member>", "", text, flags=re.DOTALL)
    values = re.sub(r">[^<\n]+</(string|int|double|boolean)>", r"></\1>", "".join([*members, rest]))
    return re.sub(r"<(double|int|nil/?|string)(></\1)?>", "", values).split("\n")


def test_times_are_text_without_a_fraction_that_is_zero(server: KojiServer) -> None:
    result, _ = ask(server, {"method": "getBuild", "args": [NVR], "kwargs": {}})
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?\+00:00", result["completion_time"])


@pytest.mark.parametrize(("body", "name"), [(b"not xml", "http_garbage_body"), (b"", "http_empty_body")])
def test_what_is_not_a_call_is_refused(server: KojiServer, body: bytes, name: str) -> None:
    answer = requests.post(server.hub_url, body, timeout=10)
    assert answer.status_code == RECORDINGS[name]["http_status"]
    assert answer.text == RECORDINGS[name]["response_xml"]


def test_hub_answers_posts_only(server: KojiServer) -> None:
    answer = requests.get(server.hub_url, timeout=10)
    assert (answer.status_code, answer.text) == (405, RECORDINGS["http_get"]["text"])
    assert answer.headers["Allow"] == "POST"


def url(server: KojiServer) -> str:
    return f"{server.files_url}/packages/openssl/1.1.1a/1.fc29/src/{NVR}.src.rpm"


def test_file_server_serves_whole_files_and_their_heads(server: KojiServer) -> None:
    content = server.files.joinpath(f"packages/openssl/1.1.1a/1.fc29/src/{NVR}.src.rpm").read_bytes()
    whole = requests.get(url(server), timeout=10)
    head = requests.head(url(server), timeout=10)
    assert (whole.status_code, whole.content) == (200, content)
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(content)), b"")


def test_file_server_serves_parts_of_the_same_version_only(server: KojiServer) -> None:
    whole = requests.get(url(server), timeout=10)
    same = {"Range": "bytes=100-", "If-Range": whole.headers["ETag"]}
    part = requests.get(url(server), headers=same, timeout=10)
    assert (part.status_code, part.content) == (206, whole.content[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(whole.content) - 1}/{len(whole.content)}"
    changed = requests.get(url(server), headers={**same, "If-Range": '"another"'}, timeout=10)
    assert (changed.status_code, changed.content) == (200, whole.content)
    past_end = requests.get(url(server), headers={"Range": f"bytes={len(whole.content)}-"}, timeout=10)
    assert (past_end.status_code, past_end.headers["Content-Range"]) == (416, f"bytes */{len(whole.content)}")


@pytest.mark.parametrize(
    "path", ["/packages/openssl/no-such-file", "/../gnupg/release.asc", "/%2e%2e/gnupg/release.asc"]
)
def test_file_server_serves_nothing_else(server: KojiServer, path: str) -> None:
    assert requests.get(f"{server.files_url}{path}", timeout=10).status_code == 404


def test_a_fault_is_injected_once(server: KojiServer) -> None:
    server.file_troubles[f"{NVR}.src.rpm"].append(FileTrouble(status=503))
    assert [requests.get(url(server), timeout=10).status_code for _ in range(2)] == [503, 200]


def test_a_draft_has_the_recorded_form(server: KojiServer) -> None:
    (recorded,) = RECORDINGS["draft_build"]["result"]
    (row,), _ = ask(server, {"method": "listBuilds", "args": ["hello"], "kwargs": {}})
    assert shape(row) == shape({**recorded, "extra": {"source": recorded["extra"]["source"]}})
    assert row["draft"] is recorded["draft"] is True
    form = r"hello-1\.0-1\.fc2[89](\.bp1)?,draft_71"
    assert re.fullmatch(form, row["nvr"])
    assert re.fullmatch(form, recorded["nvr"])


def test_an_outage_is_a_fault_with_status_200(server: KojiServer) -> None:
    server.hub_trouble.offline = 1
    with pytest.raises(koji.ServerOffline, match="database outage"):
        koji.ClientSession(server.hub_url, opts={"max_retries": 0}).getAPIVersion()
