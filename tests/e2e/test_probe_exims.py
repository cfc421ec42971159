"""`backport probe` as an admin runs it, against the lab's Exim with the stock and the backported OpenSSL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backport.roots.root import Root
from backport.selftest.daemon import ADDRESS
from backport.selftest.exim import HOST, PORT, Exim, running_exim
from tests.conformity import check_document
from tests.e2e.examined import Parts, stock_root, updated_root

EXPECT = "TLSv1.3:TLS_AES_256_GCM_SHA384"
SUITES = {
    "transport.suite-tls_aes_256_gcm_sha384", "transport.suite-tls_chacha20_poly1305_sha256",
    "transport.suite-tls_aes_128_gcm_sha256",
}  # fmt: skip
BEYOND_EIGHT = {
    *SUITES, "transport.resumption", "transport.refuses-sslv2",
}  # fmt: skip
"""What Exim, which refuses the smuggled command before TLS, leaves no connection for."""
POINTED_TO_BY_NOBODY = {"certificate.crl", "certificate.ocsp"}
OLD_PROTOCOLS = {"transport.refuses-tlsv1", "transport.refuses-tlsv1.1"}
OLD_LIBRARY = {"transport.protocol", "transport.cipher", *OLD_PROTOCOLS}
"""What gives the stock OpenSSL away: its best version and suite, and what no policy keeps it from."""


@pytest.fixture(scope="module")
def updated(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root that has been updated from the candidate repository; tests leave it as it was."""
    with updated_root(parts, tmp_path_factory.mktemp("updated")) as root:
        yield root


@pytest.fixture
def stock(parts: Parts, tmp_path: Path) -> Iterator[Root]:
    """A root with the target's own packages."""
    with stock_root(parts, tmp_path / "root") as root:
        yield root


def probe(exim: Exim, *options: str, expect: str = EXPECT, code: int) -> dict[str, Any]:
    """The JSON of the command, run where the server's loopback is."""
    files = exim.files.folder
    command = [
        "nsenter", f"--net=/proc/{exim.daemon.pid}/ns/net", sys.executable, "-m", "backport", "probe",
        f"{ADDRESS}:{PORT}", "--servername", HOST, "--ca", str(files / "root.pem"),
        "--crl", str(files / "crl.pem"), "--staple", "--expect", expect, "--json", *options,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "NO_COLOR": "1"}
    )
    assert (done.returncode, done.stderr) == (code, "")
    document: dict[str, Any] = json.loads(done.stdout)
    check_document("probe", document)
    return document


def of(document: dict[str, Any], *verdicts: str) -> set[str]:
    return {check["id"] for check in document["checks"] if check["verdict"] in verdicts}


def test_the_backported_library_is_what_an_admin_expects(parts: Parts, updated: Root, tmp_path: Path) -> None:
    files = parts.examiner(updated, tmp_path).files
    with running_exim(updated, files, log=tmp_path / "exim.log") as exim:
        document = probe(exim, code=0)
        log = exim.log()
    assert document["passed"]
    assert of(document, "fail", "error") == set()
    # Its policy, as Fedora's DEFAULT, has 3DES.
    assert of(document, "warn") == {"transport.cipher-order", "transport.weak-suites"}
    assert of(document, "skipped") == BEYOND_EIGHT | POINTED_TO_BY_NOBODY | {"certificate.second"}
    assert document["session"]["protocol"] == "TLSv1.3"
    assert document["session"]["cipher"] == "TLS_AES_256_GCM_SHA384"
    counts = re.findall(r"SMTP connection from \[127\.0\.0\.1\] \(TCP/IP connection count = (\d+)\)", log)
    assert len(counts) == document["connections"] == 8
    assert max(map(int, counts)) <= 6, "four at a time; Exim itself notices late that a client has gone"
    assert "<= " not in log
    assert "MAIL" not in "".join(document["transcript"])


def test_the_stock_library_fails_what_it_lacks_and_nothing_else(
    parts: Parts, stock: Root, tmp_path: Path
) -> None:
    files = parts.examiner(stock, tmp_path).files
    with running_exim(stock, files, log=tmp_path / "exim.log") as exim:
        document = probe(exim, code=1)
        contented = probe(exim, expect="TLSv1.2", code=1)
    assert of(document, "fail", "error") == OLD_LIBRARY
    only_tls_1_3 = {"transport.hello-retry", "transport.cipher-order", *SUITES}
    assert of(document, "skipped") >= POINTED_TO_BY_NOBODY | only_tls_1_3
    assert of(document, "warn") == set()
    assert document["session"]["protocol"] == "TLSv1.2"
    assert of(contented, "fail", "error") == OLD_PROTOCOLS


def test_a_daemon_that_was_not_restarted_after_the_update_is_told(
    parts: Parts, stock: Root, tmp_path: Path
) -> None:
    examiner = parts.examiner(stock, tmp_path)
    with running_exim(stock, examiner.files, log=tmp_path / "old.log") as exim:
        assert examiner.update()
        document = probe(exim, code=1)
    assert of(document, "fail", "error") == OLD_LIBRARY
    advice = {check["id"]: check["advice"] for check in document["checks"]}
    assert advice["transport.protocol"].startswith("Restart Exim")
    with running_exim(stock, examiner.files, log=tmp_path / "new.log") as exim:
        assert probe(exim, code=0)["passed"]
