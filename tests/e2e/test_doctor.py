"""The doctor's questions to a real host: programs, namespaces, links, keys and a hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from backport.artifacts import Check, Verdict
from backport.doctor import Probes, examine_host
from backport.errors import BackportError, FetchError, HostError
from backport.settings import Key
from backport.site import Koji, Site
from backport.sources.koji.builds import KojiSource

ROOT = Path(__file__).parents[2]


def gpg(home: Path, *arguments: str) -> str:
    command = ["gpg", "--batch", "--homedir", str(home), "--pinentry-mode", "loopback", "--passphrase", ""]
    return subprocess.run(
        [*command, *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    gpg(home, "--quick-generate-key", "Doctor <doctor@localhost>", "rsa2048", "sign", "never")
    (home / "public.asc").write_text(gpg(home, "--armor", "--export"))
    yield home
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True, timeout=60)


@pytest.fixture(scope="module")
def fingerprint(home: Path) -> str:
    listing = gpg(home, "--with-colons", "--list-keys").splitlines()
    return next(line.split(":")[9] for line in listing if line.startswith("fpr:"))


class _Hub(BaseHTTPRequestHandler):
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@contextmanager
def hub(value: str) -> Iterator[Koji]:
    """A server on loopback that gives one XML-RPC answer to everything."""
    handler = type("Handler", (_Hub,), {"answer": f"<methodResponse>{value}</methodResponse>".encode()})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Koji(hub=f"http://127.0.0.1:{server.server_port}/kojihub")
        finally:
            server.shutdown()
            thread.join()


VERSION = (
    "<params><param><value><array><data><value><array><data><value><string>1.35.3</string></value>"
    "</data></array></value></data></array></value></param></params>"
)


def test_this_host_passes_with_a_key_and_a_hub(tmp_path: Path, home: Path, fingerprint: str) -> None:
    key = Key(fingerprint=fingerprint, file=home / "public.asc")
    (tmp_path / "targets").mkdir()
    defaults = Site()
    with hub(VERSION) as koji:
        site = Site(
            koji=koji,
            keys={"mine": key},
            paths=defaults.paths.model_copy(
                update={
                    "cache": tmp_path / "cache",
                    "repository": tmp_path / "repository",
                    "targets": tmp_path / "targets",
                }
            ),
            signing=defaults.signing.model_copy(update={"gnupghome": home}),
        )
        checks = {check.id: check for check in examine_host(site)}
    well = [name for name, check in checks.items() if check.verdict is Verdict.PASS]
    unwell = [check for name, check in checks.items() if name not in well and not name.startswith("space.")]
    assert unwell == []
    assert checks["hub"].found == "Koji 1.35.3"
    assert fingerprint in checks["key.signing"].found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["targets"]


def test_a_container_and_dnfs_command_for_build_dependencies_are_really_tried() -> None:
    probes = Probes()
    assert probes.mock_builddep()
    if probes.which("systemd-nspawn") is None:
        with pytest.raises(HostError):
            probes.mock_container()
    else:
        probes.mock_container()


def test_a_hub_that_talks_nonsense_is_told() -> None:
    nonsense = VERSION.replace("<string>1.35.3</string>", "<int>7</int>")
    with hub(nonsense) as koji, pytest.raises(FetchError, match="makes no sense"):
        KojiSource(koji=koji).version()


def test_a_hub_that_is_not_there_is_told() -> None:
    with hub(VERSION) as koji:
        pass
    with pytest.raises(FetchError, match="Connection refused"):
        KojiSource(koji=koji).version()


def test_a_key_file_with_another_key_is_told(home: Path) -> None:
    with pytest.raises(BackportError, match="not just the pinned"):
        Probes().check_key(Key(fingerprint="A" * 40, file=home / "public.asc"))


def test_links_across_file_systems_are_really_tried(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    probes = Probes()
    assert probes.can_link(tmp_path / "a", tmp_path / "b")
    assert probes.can_link(tmp_path, tmp_path)
    assert not probes.can_link(tmp_path / "a", Path("/dev/shm"))
    assert not probes.can_link(tmp_path / "a", Path("/proc"))
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "b"]


def test_programs_are_looked_for_where_they_will_be_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "only-mine").write_text("#!/bin/sh\n")
    (tmp_path / "only-mine").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert Probes().which("only-mine") is None
    assert Probes().which("sh") is not None


def test_the_doctor_speaks_where_the_bindings_are_missing() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('rpm', 'createrepo_c', 'koji')));"
        "from backport.doctor import examine_host; from backport.site import Site;"
        "print(*(check.id for check in examine_host(Site()) if check.stops))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert {"module.rpm", "module.createrepo_c", "module.koji"} <= set(done.stdout.split())


def test_bindings_stay_whole_where_warnings_are_errors() -> None:
    code = (
        "from backport.doctor import examine_host; from backport.site import Site;"
        "examine_host(Site()); import solv; solv.Pool()"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_bindings_outlive_the_filters_of_warnings() -> None:
    code = (
        "import sys; from backport.bindings import import_bindings; import_bindings('solv').Pool();"
        "tables = [module for name, module in sys.modules.items() if name.startswith('swig_runtime_data')];"
        "assert tables; [vars(table).clear() for table in tables]"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_checks_are_plain_data() -> None:
    assert all(isinstance(check, Check) for check in examine_host(Site(), probes=Probes(source_version=str)))
