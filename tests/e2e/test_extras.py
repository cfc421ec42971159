"""The wheel with its base dependencies alone: examining works, everything else says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backport.bindings import LIBRARIES, PACKAGES
from backport.selftest.authority import Authority
from tests.e2e.gnutls_exim import HOST, State, running
from tests.lab.gnutls_exim import ensure

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that sees nothing of the system's, with the wheel and what it cannot do without."""
    folder = tmp_path_factory.mktemp("base")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    wheel = [*pip, f"--wheel-dir={folder}", str(ROOT)]
    subprocess.run(wheel, check=True, timeout=300)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    install = [str(folder / "venv/bin/pip"), "install", "--quiet", str(built)]
    subprocess.run(install, check=True, timeout=600)
    return folder / "venv"


def backport(venv: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [venv / "bin/backport", *words], capture_output=True, text=True, timeout=120, check=False, cwd=venv,
        env={"PATH": os.defpath, "TERM": "dumb", **environment},
    )  # fmt: skip


def test_nothing_of_the_extra_and_of_the_system_is_there(venv: Path) -> None:
    names = (*PACKAGES, *LIBRARIES)
    text = f"from importlib.util import find_spec; print([n for n in {names!r} if find_spec(n)])"
    found = subprocess.run([venv / "bin/python", "-c", text], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize(
    "words",
    [("--help",), ("--version",), ("probe", "--help"), ("maillog", "--help"), ("exim-config", "--help"),
     ("build", "--help"), ("schema", "probe"), ("schema", "recipe")],
    ids=" ".join,
)  # fmt: skip
def test_what_examines_and_explains_needs_no_extra(venv: Path, words: tuple[str, ...]) -> None:
    done = backport(venv, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_server_is_probed(venv: Path, tmp_path: Path) -> None:
    tree = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    authority = Authority.create()
    leaf = authority.issue([HOST])
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root.pem)
    with running(tree, tmp_path / "exim", State(chain=authority.chain(leaf), key=leaf.key_pem)) as place:
        done = backport(
            venv, "probe", f"127.0.0.1:{place.port}", "--servername", HOST, "--ca", str(root), "--json"
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["session"]["protocol"] == "TLSv1.3"


def test_a_mail_log_is_read(venv: Path, tmp_path: Path) -> None:
    log = tmp_path / "mainlog"
    log.write_text("2026-11-01 06:00:00 exim 4.98 daemon started: pid=7, -q30m\n")
    done = backport(venv, "maillog", str(log), "--json")
    assert (done.returncode, done.stdout[:1]) == (0, "{")


def test_a_shell_completes(venv: Path) -> None:
    done = backport(venv, _BACKPORT_COMPLETE="complete_bash", COMP_WORDS="backport pr", COMP_CWORD="1")
    assert "probe" in done.stdout


@pytest.mark.parametrize(
    "words",
    [("fetch", "openssl"), ("plan", "openssl", "--target", "f28"), ("keys", "show"), ("search", "x"),
     ("build", "openssl", "--target", "f28"), ("mock-config", "openssl"), ("repo", "list", "--target", "f28"),
     ("verify-provenance", "/nowhere")],
    ids=" ".join,
)  # fmt: skip
def test_everything_else_names_what_is_missing_and_what_to_type(venv: Path, words: tuple[str, ...]) -> None:
    done = backport(venv, *words)
    assert done.returncode == 9
    assert "not installed for" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
