"""`backport probe` as an admin runs it, against Debian's own Exim."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from backport.selftest.authority import Authority
from tests.conformity import check_document
from tests.e2e.gnutls_exim import HOST, State, running
from tests.lab.gnutls_exim import ensure


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backport", "probe", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_good_and_a_wrong_expectation(tmp_path: Path) -> None:
    tree = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    authority = Authority.create()
    leaf = authority.issue([HOST])
    root = tmp_path / "root.pem"
    root.write_bytes(authority.root.pem)
    files = {name: tmp_path / name for name in ("junit.xml", "transcript.txt")}
    with running(tree, tmp_path / "exim", State(chain=authority.chain(leaf), key=leaf.key_pem)) as place:
        common = (f"127.0.0.1:{place.port}", "--servername", HOST, "--ca", str(root))
        good = run(
            *common, "--expect", "TLSv1.3:TLS_AES_256_GCM_SHA384", "--json",
            "--junit", str(files["junit.xml"]), "--transcript", str(files["transcript.txt"]),
        )  # fmt: skip
        wrong = run(*common, "--expect", "TLSv1.2")
    assert (good.returncode, good.stderr) == (0, "")
    document = json.loads(good.stdout)
    check_document("probe", document)
    assert document["passed"]
    assert document["connections"] <= 8
    assert document["session"]["protocol"] == "TLSv1.3"
    assert len(ET.parse(files["junit.xml"]).findall(".//testcase")) == len(document["checks"])
    assert files["transcript.txt"].read_text().splitlines() == document["transcript"]
    assert wrong.returncode == 1
    assert "Certificate 1 of 3 in chain: Cert VALIDATED: ok" in wrong.stdout
    assert wrong.stdout.splitlines()[-1].endswith("not passed: transport.protocol")
    assert "transport.protocol: Correct --expect" in wrong.stdout


def test_nothing_that_listens_is_a_check_that_fails() -> None:
    done = run("[::1]:9", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    check_document("probe", document)
    failed = [check["id"] for check in document["checks"] if check["verdict"] == "fail"]
    assert failed == ["transport.connect"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a b",), "no host name"),
        (("host:0",), "no port"),
        (("host:70000",), "no port"),
        (("http://host",), "no host"),
        (("no-such-name.invalid",), "no address"),
        (("127.0.0.1", "--ca", "/nowhere.pem"), "cannot be read"),
        (("127.0.0.1", "--ca", "/etc/passwd"), "no certificate in PEM"),
        (("127.0.0.1", "--crl", "/etc/passwd"), "no revocation list"),
        (("127.0.0.1", "--crl", "/"), "cannot be read"),
        (("127.0.0.1", "--expect", "TLS1.3"), "no protocol"),
        (("127.0.0.1", "--expect", "TLSv1.3:TLS_AES"), "no suite"),
        (("127.0.0.1", "--servername", "a b"), "no host name"),
        (("127.0.0.1", "--timeout", "0"), "--timeout"),
        (("127.0.0.1:9", "--junit", "/"), "cannot be written"),
        (("127.0.0.1:9", "--junit", "/proc/junit.xml"), "cannot be written"),
        (("127.0.0.1:9", "--transcript", "/etc/passwd/transcript"), "cannot be written"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert "Traceback" not in done.stderr
