"""Source packages over real sockets: few calls, resumed downloads, and no bad package accepted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import koji as koji_client
import pytest

from backport.artifacts import Nevra, SourceRpm
from backport.errors import FetchError
from backport.prepare import source_data
from backport.progress import Progress, Silent
from backport.settings import Key
from backport.site import Koji
from backport.sources.download import download
from backport.sources.fetch import fetch, find_cached
from backport.sources.koji.builds import resolve, search
from backport.sources.koji.copies import KojiCopy
from backport.sources.lock import check_lock, load_lock, write_lock
from backport.sources.offers import Offer
from backport.web import Limits
from tests.e2e import tiny
from tests.e2e.small_koji import CHANGELOG_TIME, Signer, SmallKoji, tool
from tests.lab.koji import FileTrouble, HubTrouble, KojiServer, unused_url

NVR = "tiny-1.0-1.fc29"
FILE = f"{NVR}.src.rpm"
OTHER_NVR = "other-2.0-1.fc29"
UNSIGNED_NVR = "unsigned-1.0-1.fc29"
BINARIES: list[dict[str, object]] = [
    {
        "name": "tiny-libs",
        "arch": "x86_64",
        "requires": [["libc.so.6", 0, ""]],
        "provides": [["tiny-libs", 8, "1"]],
    },
    {"name": "tiny-debuginfo", "arch": "x86_64", "requires": [["never-asked", 0, ""]], "provides": []},
    {"name": "tiny-s390", "arch": "s390x", "requires": [["other-arch", 0, ""]], "provides": []},
]


@dataclass
class Listener(Silent):
    """Progress as it was told."""

    notes: list[str] = field(default_factory=list)
    transfers: list[tuple[str, int, int | None]] = field(default_factory=list)

    def note(self, message: str) -> None:
        self.notes.append(message)

    def transfer(self, what: str, done: int, total: int | None) -> None:
        self.transfers.append((what, done, total))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallKoji]:
    folder = tmp_path_factory.mktemp("koji")
    signer = Signer(home=folder / "gnupg")
    signer.make("release")
    signer.make("stranger")
    koji = SmallKoji(folder=folder / "koji", signer=signer)
    koji.add("tiny-0.9-1.fc29", age=9)
    koji.add(NVR, age=8, binaries=BINARIES)
    koji.add(OTHER_NVR, age=7, key="stranger")
    koji.add(UNSIGNED_NVR, age=6, key=None)
    koji.write("states.json", {"tiny-1.1-1.fc29": koji_client.BUILD_STATES["FAILED"],
                               "tiny-1.2-1.fc29": koji_client.BUILD_STATES["BUILDING"]})  # fmt: skip
    koji.write("tags.json", {"f29": ["tiny-0.9-1.fc29", OTHER_NVR], "f29-updates": [NVR]})
    koji.write("inheritance.json", {"f29-updates": ["f29"]})
    yield koji
    signer.close()


@pytest.fixture(scope="module")
def running(small: SmallKoji) -> Iterator[KojiServer]:
    with KojiServer(small.folder) as server:
        yield server


@pytest.fixture
def server(running: KojiServer) -> Iterator[KojiServer]:
    """The server with no faults and no memory of earlier calls."""
    running.hub_trouble = HubTrouble()
    running.calls.clear()
    running.requests.clear()
    yield running
    running.file_troubles.clear()


@pytest.fixture
def koji(server: KojiServer) -> Koji:
    return Koji(hub=server.hub_url, files=server.files_url, timeout=5, retries=3, total_timeout=60)


@pytest.fixture
def keys(small: SmallKoji) -> list[Key]:
    return [small.signer.keys["release"]]


def one(koji: Koji, nvr: str = NVR) -> Offer:
    (build,) = resolve(koji, [nvr], arch="x86_64")
    return build


def take(koji: Koji, cache: Path, keys: list[Key], build: Offer | None = None) -> SourceRpm:
    return fetch(build or one(koji), cache=cache, keys=keys, progress=Listener())


def refusal(koji: Koji, cache: Path, keys: list[Key], build: Offer | None = None) -> str:
    """The message of a refused package, of which nothing may be left."""
    with pytest.raises(FetchError) as refused:
        take(koji, cache, keys, build)
    assert refused.value.hint
    assert not list((cache / "sources").glob("sha256/*/*"))
    assert not list((cache / "sources").glob("arriving/*.rpm"))
    return refused.value.message


def signed_copy(small: SmallKoji, key: str = "release", nvr: str = NVR) -> Path:
    name, version, release = nvr.rsplit("-", 2)
    folder = small.folder / "packages" / name / version / release
    return folder / "data" / "signed" / small.keyid(key) / "src" / f"{nvr}.src.rpm"


# Resolving


def test_one_build_takes_three_requests(server: KojiServer, koji: Koji, small: SmallKoji) -> None:
    build = one(koji)
    assert server.calls == ["multiCall"] * 3
    assert str(build.nevra) == "tiny-1:1.0-1.fc29.src"
    digest = hashlib.sha256(signed_copy(small).read_bytes()).hexdigest()
    assert [(copy.key, copy.sha256) for copy in build.copies] == [(small.keyid("release"), digest)]
    assert build.build_requires == ("/usr/bin/cmp", "zlib-devel")


def test_many_builds_take_three_requests(server: KojiServer, koji: Koji) -> None:
    builds = resolve(koji, [NVR, OTHER_NVR, "tiny-0.9-1.fc29"], arch="x86_64")
    assert server.calls == ["multiCall"] * 3
    assert [build.nevra.nvr for build in builds] == [NVR, OTHER_NVR, "tiny-0.9-1.fc29"]
    assert (builds[0].requires, builds[0].provides) == (("libc.so.6",), ("tiny-libs",))


def test_unknown_build_is_told_with_those_there_are(server: KojiServer, koji: Koji) -> None:
    with pytest.raises(FetchError) as refused:
        resolve(koji, ["tiny-1.0-2.fc29"], arch="x86_64", tag="f29-updates")
    assert refused.value.message == f"tiny-1.0-2.fc29 is not on {server.hub_url} (did you mean {NVR}?)"
    assert NVR in str(refused.value.hint)
    assert server.calls == ["multiCall"] * 2


def test_build_of_an_unknown_package(koji: Koji) -> None:
    with pytest.raises(FetchError) as refused:
        resolve(koji, ["tinny-1.0-1.fc29"], arch="x86_64")
    assert refused.value.hint == "it has no build of tinny at all"


@pytest.mark.parametrize(("nvr", "state"), [("tiny-1.1-1.fc29", "FAILED"), ("tiny-1.2-1.fc29", "BUILDING")])
def test_incomplete_build_is_refused_by_its_state(koji: Koji, nvr: str, state: str) -> None:
    with pytest.raises(FetchError, match=f"{nvr} is {state} .*not COMPLETE"):
        resolve(koji, [nvr], arch="x86_64")


def test_hub_that_is_down(koji: Koji) -> None:
    away = koji.model_copy(update={"hub": unused_url(), "retries": 0})
    with pytest.raises(FetchError, match="the connection failed: Connection refused"):
        one(away)


def test_slow_hub_is_not_waited_for(server: KojiServer, koji: Koji) -> None:
    server.hub_trouble.delay = 2.0
    with pytest.raises(FetchError, match=r"no answer within 0\.2 s"):
        one(koji.model_copy(update={"timeout": 0.2, "retries": 0}))


def test_unavailable_hub_is_asked_again_within_bounds(server: KojiServer, koji: Koji) -> None:
    server.hub_trouble.unavailable = 1
    assert one(koji).nevra.nvr == NVR
    server.calls.clear()
    server.hub_trouble.unavailable = 9
    with pytest.raises(FetchError, match="HTTP status 503"):
        one(koji.model_copy(update={"retries": 1}))
    assert server.calls == ["503", "503"]


def test_an_outage_that_the_hub_tells_of_is_waited_for_within_bounds(server: KojiServer, koji: Koji) -> None:
    server.hub_trouble.offline = 2
    assert one(koji).nevra.nvr == NVR
    server.calls.clear()
    server.hub_trouble.offline = 9
    with pytest.raises(FetchError, match="in 2 attempts: is offline, it says: database outage") as refused:
        one(koji.model_copy(update={"retries": 1}))
    assert server.calls == ["multiCall"] * 2
    assert "maintenance or outage" in str(refused.value.hint)


@pytest.mark.parametrize(
    "trouble",
    [
        HubTrouble(body=b"<html>Please log in</html>"),
        HubTrouble(body=b""),
        HubTrouble(body=b"\x00\xff" * 100),
        HubTrouble(endless=True),
        HubTrouble(answers={"getBuild": "yes"}),
        HubTrouble(answers={"getBuild": {"id": 1, "nvr": OTHER_NVR, "state": 1}}),
        HubTrouble(answers={"listRPMs": [{"arch": "src"}]}),
        HubTrouble(answers={"queryRPMSigs": [{"rpm_id": 999, "sigkey": "12345678"}]}),
        HubTrouble(answers={"queryRPMSigs": [{"rpm_id": 1, "sigkey": "../../etc"}]}),
        HubTrouble(answers={"getRPMChecksums": {"": {"sha256": "short"}}}),
    ],
    ids=repr,
)
def test_nonsense_is_told_as_nonsense(server: KojiServer, koji: Koji, trouble: HubTrouble) -> None:
    server.hub_trouble = trouble
    with pytest.raises(FetchError, match=r"makes no sense|an HTML page|more than 67108864 bytes") as refused:
        one(koji.model_copy(update={"retries": 0}))
    assert refused.value.message.isprintable()


def test_another_address_is_told_from_a_hub(server: KojiServer, koji: Koji) -> None:
    with pytest.raises(FetchError, match="HTTP status 404"):
        one(koji.model_copy(update={"hub": f"{server.url}/elsewhere", "retries": 0}))


def test_search_finds_packages_and_their_latest_builds(server: KojiServer, koji: Koji) -> None:
    (found,) = search(koji, "TIN", ["f29", "f29-updates"], tell=print)
    assert (found.package, found.builds) == ("tiny", {"f29": "tiny-0.9-1.fc29", "f29-updates": NVR})
    assert server.calls == ["multiCall"] * 2
    assert [found.package for found in search(koji, "*i*", ["f29"], tell=print)] == ["tiny", "unsigned"]
    assert search(koji, "nothing", ["f29"], tell=print) == ()


def test_search_in_an_unknown_tag(koji: Koji) -> None:
    told: list[str] = []
    (found,) = search(koji, "tiny", ["f99", "f29"], tell=told.append)
    assert found.builds == {"f29": "tiny-0.9-1.fc29"}
    assert "f99" in told[0]
    with pytest.raises(FetchError, match="No such tagInfo: 'f99'"):
        search(koji, "tiny", ["f99"], tell=print)


# Fetching


def test_package_is_fetched_verified_and_kept(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    listener = Listener()
    source = fetch(one(koji), cache=tmp_path, keys=keys, progress=listener)
    content = signed_copy(small).read_bytes()
    assert source.rpm.path == tmp_path / "sources" / "sha256" / source.rpm.sha256 / FILE
    assert source.rpm.path.read_bytes() == content
    assert source.signing_key == keys[0].fingerprint
    assert source.build_requires == ("/usr/bin/cmp", "zlib-devel")
    assert source.changelog_time == CHANGELOG_TIME
    assert source.url.endswith(f"data/signed/{small.keyid('release')}/src/{FILE}")
    assert listener.transfers[-1][:2] == (FILE, len(content))
    assert [request.status for request in server.requests] == [200]


def test_kept_package_is_not_fetched_again(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    first = take(koji, tmp_path, keys)
    assert take(koji, tmp_path, keys) == first
    assert len(server.requests) == 1


def test_kept_package_that_was_changed_is_fetched_again(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    first = take(koji, tmp_path, keys)
    first.rpm.path.write_bytes(first.rpm.path.read_bytes()[:-1] + b"x")
    assert take(koji, tmp_path, keys) == first
    assert len(server.requests) == 2
    assert hashlib.sha256(first.rpm.path.read_bytes()).hexdigest() == first.rpm.sha256


def test_hub_without_digests_leaves_the_signature_to_vouch(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    build = one(koji)
    assert [copy.sha256 for copy in build.copies] == [None]
    first = take(koji, tmp_path, keys, build)
    assert take(koji, tmp_path, keys, build) == first
    assert len(server.requests) == 1


def test_it_is_told_where_the_hub_states_no_digest(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    told = {}
    for stated in (True, False):
        server.hub_trouble.answers = {} if stated else {"getRPMChecksums": {}}
        listener = Listener()
        source = fetch(one(koji), cache=tmp_path, keys=keys, progress=listener)
        assert source.digest == ("" if stated else "not ") + "stated by the hub"
        told[source_data(source)["digest"]] = any("states no SHA-256" in note for note in listener.notes)
    assert told == {"stated by the hub": False, "not stated by the hub": True}


def test_download_goes_on_where_it_was_cut(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.file_troubles[FILE].extend([FileTrouble(cut=100_000), FileTrouble(cut=50_000)])
    source = take(koji, tmp_path, keys)
    assert source.rpm.path.read_bytes() == signed_copy(small).read_bytes()
    assert [request.range for request in server.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_later_run_goes_on_where_the_last_one_stopped(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(cut=100_000))
    with pytest.raises(FetchError, match="not fetched in one attempt"):
        take(koji.model_copy(update={"retries": 0}), tmp_path, keys)
    assert take(koji, tmp_path, keys).rpm.nevra.nvr == NVR
    assert [request.range for request in server.requests] == [None, "bytes=100000-"]


def test_whole_part_needs_no_further_bytes(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(cut=100_000))
    with pytest.raises(FetchError):
        take(koji.model_copy(update={"retries": 0}), tmp_path, keys)
    shutil.copy(signed_copy(small), tmp_path / "sources" / "arriving" / f"{FILE}.part")
    take(koji, tmp_path, keys)
    assert [request.status for request in server.requests] == [200, 416]


def test_server_without_ranges_sends_everything_again(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.file_troubles[FILE].extend([FileTrouble(cut=100_000), FileTrouble(no_ranges=True)])
    assert take(koji, tmp_path, keys).rpm.path.read_bytes() == signed_copy(small).read_bytes()
    assert [request.status for request in server.requests] == [200, 200]


def test_file_that_changes_between_attempts_is_started_anew(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    other = bytes(len(signed_copy(small).read_bytes()))
    server.file_troubles[FILE].append(FileTrouble(content=other, cut=100_000))
    assert take(koji, tmp_path, keys).rpm.path.read_bytes() == signed_copy(small).read_bytes()
    assert [request.status for request in server.requests] == [200, 200]


def test_part_that_is_too_long_is_started_anew(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(cut=100_000))
    with pytest.raises(FetchError):
        take(koji.model_copy(update={"retries": 0}), tmp_path, keys)
    (tmp_path / "sources" / "arriving" / f"{FILE}.part").write_bytes(bytes(10_000_000))
    assert take(koji, tmp_path, keys).rpm.path.read_bytes() == signed_copy(small).read_bytes()
    assert [request.status for request in server.requests] == [200, 416, 200]


def test_unavailable_file_server_is_asked_again_within_bounds(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    server.file_troubles[FILE].extend([FileTrouble(status=503)] * 9)
    message = refusal(koji.model_copy(update={"retries": 1}), tmp_path, keys)
    assert "not fetched in 2 attempts: HTTP status 503" in message
    assert [request.status for request in server.requests] == [503, 503]


def test_refusal_is_not_repeated(server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    server.file_troubles[FILE].append(FileTrouble(status=403))
    assert "HTTP status 403" in refusal(koji, tmp_path, keys)
    assert len(server.requests) == 1


def test_file_server_that_is_down(koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    away = koji.model_copy(update={"files": unused_url(), "retries": 0})
    assert "Connection refused" in refusal(away, tmp_path, keys)


def test_trickle_ends_at_the_deadline(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(delay=0.2))
    assert "not whole after 0.3 s" in refusal(koji.model_copy(update={"total_timeout": 0.3}), tmp_path, keys)


def test_endless_body_is_cut_off(server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    server.file_troubles[FILE].append(FileTrouble(endless=True))
    assert "bytes, which is more than it may have" in refusal(koji, tmp_path, keys)


def test_truncated_file_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    cut = FileTrouble(content=signed_copy(small).read_bytes()[:-1000])
    server.file_troubles[FILE].append(cut)
    assert refusal(koji, tmp_path, keys).startswith(f"{FILE}: cut short")
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(cut)
    assert "payload was changed or cut short" in refusal(koji, tmp_path, keys)


def test_file_changed_in_one_byte_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    content = bytearray(signed_copy(small).read_bytes())
    content[-1000] ^= 1
    server.file_troubles[FILE].append(FileTrouble(content=bytes(content)))
    message = refusal(koji, tmp_path, keys)
    assert hashlib.sha256(content).hexdigest() in message
    assert hashlib.sha256(signed_copy(small).read_bytes()).hexdigest() in message
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(FileTrouble(content=bytes(content)))
    assert "payload was changed" in refusal(koji, tmp_path, keys)


def test_wrong_package_in_the_file_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    other = signed_copy(small, nvr="tiny-0.9-1.fc29").read_bytes()
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(FileTrouble(content=other))
    assert "holds tiny-1:0.9-1.fc29.src instead of tiny-1:1.0-1.fc29.src" in refusal(koji, tmp_path, keys)


def test_binary_package_in_the_file_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    (binary,) = tiny.build(tmp_path / "binary", version="1.0", release="1.fc29").rpms
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(FileTrouble(content=binary.path.read_bytes()))
    assert refusal(koji, tmp_path, keys) == f"{FILE}: holds a binary package, not a source package"


def test_header_digest_of_the_hub_must_fit(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    build = one(koji)
    forged = replace(build, header_digest="0" * 32)
    assert "but the hub " + "0" * 32 in refusal(koji, tmp_path, keys, forged)


def test_what_is_no_package_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(FileTrouble(content=b"Gone " * 100))
    with pytest.raises(FetchError, match="not a package that rpm can read"):
        take(koji, tmp_path, keys)


def test_missing_signature_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    build = one(koji, UNSIGNED_NVR)
    assert "the hub knows of signatures by: nobody" in refusal(koji, tmp_path, keys, build)
    assert not server.requests
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    unsigned = small.folder / f"packages/tiny/1.0/1.fc29/src/{FILE}"
    server.file_troubles[FILE].append(FileTrouble(content=unsigned.read_bytes()))
    assert refusal(koji, tmp_path, keys) == f"{FILE}: not signed"


def test_signature_by_another_key_is_refused(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    message = refusal(koji, tmp_path, keys, one(koji, OTHER_NVR))
    assert f"the hub knows of signatures by: {small.keyid('stranger')}" in message
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    foreign = tmp_path / FILE
    shutil.copy(small.folder / f"packages/tiny/1.0/1.fc29/src/{FILE}", foreign)
    small.signer.sign(foreign, "stranger")
    server.file_troubles[FILE].append(FileTrouble(content=foreign.read_bytes()))
    message = refusal(koji, tmp_path, keys)
    assert f"signed by the key {small.signer.keys['stranger'].fingerprint}" in message


def test_lost_signed_copy_is_made_again_from_its_signature(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(status=404))
    listener = Listener()
    source = fetch(one(koji), cache=tmp_path, keys=keys, progress=listener)
    assert source.rpm.path.read_bytes() == signed_copy(small).read_bytes()
    assert [request.status for request in server.requests] == [404, 200, 200]
    assert any("putting its signature back on" in note for note in listener.notes)
    assert {path.name for path in (tmp_path / "sources").iterdir()} == {"arriving", "locks", "seen", "sha256"}
    assert not list((tmp_path / "sources" / "arriving").iterdir())


def test_changed_unsigned_copy_gets_no_signature(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    content = bytearray((small.folder / f"packages/tiny/1.0/1.fc29/src/{FILE}").read_bytes())
    content[-1000] ^= 1
    server.file_troubles[FILE].extend([FileTrouble(status=404), FileTrouble(content=bytes(content))])
    message = refusal(koji, tmp_path, keys)
    assert f"its SHA-256 is {hashlib.sha256(content).hexdigest()}, but the hub states" in message


def test_signature_of_another_package_does_not_fit(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path
) -> None:
    foreign = koji_client.rip_rpm_sighdr(str(signed_copy(small, nvr="tiny-0.9-1.fc29")))
    server.hub_trouble.answers = {"getRPMChecksums": {}}
    server.file_troubles[FILE].append(FileTrouble(status=404))
    server.file_troubles[f"{FILE}.sig"].append(FileTrouble(content=foreign))
    with pytest.raises(FetchError, match="its header states the digest"):
        take(koji, tmp_path, keys)


@pytest.mark.parametrize("left", ["signed copy", "signature"])
def test_a_package_on_another_volume_is_found_there(
    server: KojiServer, koji: Koji, keys: list[Key], small: SmallKoji, tmp_path: Path, *, left: str
) -> None:
    folder = small.folder / "packages" / "tiny"
    moved = small.folder / "vol" / "archive02" / "packages" / "tiny"
    moved.parent.mkdir(parents=True)
    build = one(koji)
    (copy,) = build.copies
    assert isinstance(copy, KojiCopy)
    assert copy.volume == ""
    content = signed_copy(small).read_bytes()
    folder.rename(moved)
    aside = moved / "1.0" / "1.fc29" / "data" / "signed"
    try:
        if left == "signature":
            aside.rename(moved / "aside")
        assert "not on the server" in refusal(koji, tmp_path, keys, build)
        archived = replace(build, copies=(replace(copy, volume="archive02"),))
        assert take(koji, tmp_path, keys, archived).rpm.path.read_bytes() == content
    finally:
        if left == "signature":
            (moved / "aside").rename(aside)
        moved.rename(folder)
        shutil.rmtree(small.folder / "vol")


def test_neither_signed_copy_nor_signature(
    server: KojiServer, koji: Koji, keys: list[Key], tmp_path: Path
) -> None:
    server.file_troubles[FILE].append(FileTrouble(status=404))
    server.file_troubles[f"{FILE}.sig"].append(FileTrouble(status=404))
    assert "neither the copy signed by" in refusal(koji, tmp_path, keys)


def test_cache_that_cannot_be_written(koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    (tmp_path / "sources").write_text("a file in the way")
    with pytest.raises(FetchError, match=r"cannot be kept: .*sources") as refused:
        take(koji, tmp_path, keys)
    assert "cache" in str(refused.value.hint)


def test_full_disk_is_told_as_such(server: KojiServer, tmp_path: Path) -> None:
    tool("mount", "-t", "tmpfs", "-o", "size=64k", "small", tmp_path)
    try:
        url = f"{server.files_url}/packages/tiny/1.0/1.fc29/src/{FILE}"
        limits = Limits(timeout=5, retries=0, total_timeout=10, size=10_000_000)
        with pytest.raises(FetchError, match=r"\.part: cannot be written: No space left on device"):
            download(url, tmp_path / FILE, limits=limits, progress=Listener())
    finally:
        tool("umount", tmp_path)


def test_wrong_kind_of_address_is_not_tried_twice(koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    local = koji.model_copy(update={"files": "file:///srv/koji"})
    assert "neither http nor https" in refusal(local, tmp_path, keys)


# The lock


def test_lock_refuses_everything_else(koji: Koji, keys: list[Key], tmp_path: Path) -> None:
    path = tmp_path / "tiny.lock.toml"
    assert load_lock(path) is None
    source = take(koji, tmp_path, keys)
    write_lock(path, [source])
    lock = load_lock(path)
    assert lock is not None
    check_lock(lock, one(koji), path=path)
    check_lock(lock, source, path=path)
    with pytest.raises(FetchError, match=f"locked to {NVR}, .*tiny-0.9-1.fc29"):
        check_lock(lock, one(koji, "tiny-0.9-1.fc29"), path=path)


# Another kind of source


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A source that is a file: it names no key, states no digest, and is wherever the file is."""

    file: Path
    key: str = ""
    sha256: str | None = None

    @property
    def url(self) -> str:
        return self.file.as_uri()

    def download(self, target: Path, *, scratch: Path, progress: Progress) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.file, target)

    def offer(self, nevra: Nevra) -> Offer:
        return Offer(
            nevra=nevra, identity=f"{nevra} on the shelf", size=1, copies=(self,), told_by="shelf",
            origin={"shelf": "upper"},
        )  # fmt: skip


def test_a_source_of_another_kind_is_verified_and_locked_alike(
    koji: Koji, small: SmallKoji, keys: list[Key], tmp_path: Path
) -> None:
    offer = Shelf(file=signed_copy(small)).offer(one(koji).nevra)
    source = fetch(offer, cache=tmp_path, keys=keys, progress=Listener())
    assert (source.digest, source.origin) == ("not stated by the shelf", {"shelf": "upper"})
    assert find_cached(offer, cache=tmp_path, keys=keys) == source
    write_lock(tmp_path / "lock", [source])
    lock = load_lock(tmp_path / "lock")
    assert lock is not None
    check_lock(lock, offer, path=tmp_path / "lock")
    changed = Shelf(file=signed_copy(small), sha256="0" * 64).offer(offer.nevra)
    with pytest.raises(FetchError, match="but the shelf states"):
        fetch(changed, cache=tmp_path, keys=keys, progress=Listener())
    with pytest.raises(FetchError, match="signed by"):
        fetch(offer, cache=tmp_path, keys=[small.signer.keys["stranger"]], progress=Listener())
