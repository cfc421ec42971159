"""The repository as it is served in production: by Debian's nginx, to Debian's dnf with a root of its own."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from backport import repodata
from backport.errors import HostError, ToolError
from backport.repository.rollback import rollback
from backport.repository.verification import verify
from backport.roots.root import ExtraRepository, clean_root
from backport.settings import Key
from backport.signing.detached import verify_file
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny
from tests.e2e.shelf import Publisher, Shelf
from tests.lab.nginx import serving

PUBLICATIONS = 30


@pytest.fixture
def publisher(signing: Signing, f28: Target) -> Iterator[Publisher]:
    """A publisher whose repository everybody can read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Publisher(repository=Path(folder, "repository"), signing=signing, target=f28, notes=[])


def can_write(compression: repodata.Compression) -> bool:
    return compression == "gz" or hasattr(repodata.bindings(), "ZSTD_COMPRESSION")


@pytest.mark.parametrize("compression", ["gz", "zstd"])
def test_dnf_installs_updates_and_is_led_back(
    publisher: Publisher, shelf: Shelf, root_cache: Path, tmp_path: Path, compression: repodata.Compression
) -> None:
    target = publisher.target.model_copy(update={"compression": compression})
    publisher = replace(publisher, target=target)
    if not can_write(compression):
        with pytest.raises(HostError, match="cannot write zstd metadata"):
            publisher.publish(shelf("first"))
        assert publisher.folder.current_id() is None
        assert not list(publisher.folder.generations.iterdir())
        return
    publisher.publish(shelf("first"))
    with serving(publisher.repository) as url:
        repository = ExtraRepository(
            id="backport", baseurl=f"{url}/f28/current/x86_64/", repo_gpgcheck=True,
            keys=(Key(fingerprint=shelf("first").signed.fingerprint, file=publisher.folder.public_key),),
        )  # fmt: skip
        with clean_root(publisher.target, cache=root_cache, workspace=tmp_path) as root:

            def install(name: str) -> None:
                log = tmp_path / "dnf.log"
                root.install([name], extra=(repository,), log=log)

            install("first-1-1.fc28.bp1.noarch")
            publisher.publish(shelf("first", "2"))
            install("first-2-1.fc28.bp1.noarch")
            installed = {header["name"]: header["version"] for header in root.headers()}
            assert installed["first"] == "2"
            rollback(publisher.place())
            with pytest.raises(ToolError):
                install("first-3-1.fc28.bp1.noarch")
        names = repodata.metadata_files(publisher.folder.current / "x86_64")
        assert {Path(name).suffix for name in names} == {".gz" if compression == "gz" else ".zst"}
        assert verify(publisher.folder, target).faults == ()
        # The link leads nginx to what clients may see, and to nothing that is work in progress.
        assert requests.get(f"{url}/f28/.lock", timeout=30).status_code == 403
        assert requests.get(f"{url}/f28/backport.repo", timeout=30).text.startswith("#")


def test_a_target_that_reads_more_by_now_gets_other_metadata(publisher: Publisher, shelf: Shelf) -> None:
    """Clients that have just read the old ``repomd.xml`` find what it names."""
    first = publisher.publish(shelf("first"))
    old = repodata.metadata_files(publisher.folder.current / "x86_64")
    target = publisher.target.model_copy(update={"compression": "zstd"})
    later = replace(publisher, target=target)
    if not can_write("zstd"):
        with pytest.raises(HostError, match="cannot write zstd metadata"):
            later.publish(shelf("second"))
        assert publisher.folder.current_id() == first.generation
        assert len(list(publisher.folder.generations.iterdir())) == 1
        return
    later.publish(shelf("second"))
    folder = publisher.folder.current / "x86_64"
    assert len(repodata.read_packages(folder)) == 2
    assert all(name.endswith(".zst") for name in repodata.metadata_files(folder))
    assert all((folder / name).is_file() for name in old)
    later.publish(shelf("first"))
    assert verify(publisher.folder, target).faults == ()


def test_a_client_that_never_pauses_gets_only_whole_states(publisher: Publisher, shelf: Shelf) -> None:
    names = [f"part{number:02}" for number in range(PUBLICATIONS)]
    whole = shelf("whole", more=names).signed
    publisher.publish(tiny.tested(replace(whole, srpms=(), rpms=whole.rpms[:1])))
    problems: list[BaseException] = []
    rounds: list[int] = []
    stop = threading.Event()

    def poll(url: str, folder: Path) -> None:
        try:
            with requests.Session() as session:
                while not stop.is_set():
                    rounds.append(read_once(session, url, folder, whole.public_key, whole.fingerprint))
        except BaseException as problem:  # noqa: BLE001  # told by the test's own thread
            problems.append(problem)

    with serving(publisher.repository) as url, tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=poll, args=(f"{url}/f28/current/x86_64", Path(folder)))
        thread.start()
        for rpm in whole.rpms[1:]:
            publisher.publish(tiny.tested(replace(whole, srpms=(), rpms=(rpm,))))
        stop.set()
        thread.join()
    assert problems == []
    assert max(rounds) > min(rounds) >= 1


def read_once(session: requests.Session, url: str, folder: Path, key: Path, fingerprint: str) -> int:
    """Fetch metadata and packages as dnf does; how many packages there are."""

    def fetch(name: str) -> bytes:
        answer = session.get(f"{url}/{name}", timeout=30)
        answer.raise_for_status()
        return answer.content

    (folder / "repodata").mkdir(exist_ok=True)
    repomd = folder / "repodata/repomd.xml"
    # dnf, too, asks again when the signature is that of the next generation.
    for attempt in range(5):
        repomd.write_bytes(fetch("repodata/repomd.xml"))
        (folder / "repodata/repomd.xml.asc").write_bytes(fetch("repodata/repomd.xml.asc"))
        try:
            verify_file(repomd, public_key=key, fingerprint=fingerprint)
            break
        except ToolError:
            if attempt == 4:
                raise
    for name in repodata.metadata_files(folder):
        (folder / name).write_bytes(fetch(name))
    assert {problem.kind for problem in repodata.check_repodata(folder)} == {"missing"}
    packages = repodata.read_packages(folder)
    for place, package in packages.items():
        assert len(fetch(place)) == package.size_package
    return len(packages)
