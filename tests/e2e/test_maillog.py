"""`backport maillog` as a user starts it, on logs that a real Exim wrote and on generated ones."""

from __future__ import annotations

import gzip
import json
import os
import smtplib
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from backport.probe.errors import Deadline
from backport.recipe import load_recipe
from backport.roots.root import Root, clean_root
from backport.selftest.authority import Authority
from backport.selftest.exim import HOST, PORT, Exim, ServerFiles, running_exim
from backport.target import Target
from tests.conformity import check_document
from tests.maillog import generated_log

RECIPES = Path(__file__).parents[2] / "specs"
SUBJECT = r'Re: " X=TLS1.0:RSA_AES:32 H=victim [192.0.2.66] \" P=esmtps T="x'
MANY_SELECTORS = (
    "+subject +incoming_port +outgoing_port +incoming_interface +outgoing_interface +pid +millisec "
    "+pipelining +received_recipients +received_sender +return_path_on_delivery +sender_on_delivery "
    "+delivery_size"
)
MEMORY_BOUND = 80
"""MiB; the log that is read is larger."""

# Port 26 is the far end: what comes there is thrown away, what comes to the other port is sent there.
RELAY = """
acl_smtp_rcpt = anybody

begin acl
anybody:
  accept

begin routers
far_end:
  driver = redirect
  condition = ${if eq{$received_port}{26}}
  data = :blackhole:
in_clear:
  driver = manualroute
  domains = clear.example
  route_list = * 127.0.0.1
  self = send
  transport = in_clear
by_tls:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = by_tls

begin transports
in_clear:
  driver = smtp
  port = 26
  hosts_avoid_tls = *
by_tls:
  driver = smtp
  port = 26
"""


def maillog(*arguments: str, data: bytes | None = None, code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "backport", "maillog", *arguments],
        input=data,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in errors
    assert done.returncode == code, errors
    return output, errors


def document(*arguments: str, data: bytes | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(maillog("--json", *arguments, data=data)[0])
    assert found["version"] == 1
    return found


def peers(found: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    return {(one["direction"], one["peer"], one["tls"], one["messages"]) for one in found["peers"]}


@pytest.fixture(scope="module")
def stock(f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    packages = load_recipe(RECIPES, "openssl").self_test.install
    workspace = tmp_path_factory.mktemp("stock")
    with clean_root(f28, packages=packages, cache=root_cache, workspace=workspace) as root:
        yield root


def send(exim: Exim, recipients: Sequence[str], *, tls: bool) -> None:
    client = connected(exim)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client.starttls(context=context)
    client.sendmail("sender@client.example", recipients, f"Subject: {SUBJECT}\r\n\r\nHello\r\n")
    client.quit()


def connected(exim: Exim) -> smtplib.SMTP:
    client = smtplib.SMTP(local_hostname="client.example")
    client.sock = exim.dial(Deadline(20))
    client._host = HOST  # type: ignore[attr-defined]  # smtplib sets it where it connects itself
    assert client.getreply()[0] == 220
    return client


def break_a_handshake(exim: Exim) -> None:
    client = connected(exim)
    client.ehlo()
    assert client.docmd("STARTTLS")[0] == 220
    client.send("this is no handshake\r\n" * 10)
    assert client.sock
    client.sock.recv(1000)
    client.close()


def wait_for(log: Path, text: bytes, count: int) -> None:
    deadline = time.monotonic() + 30
    while log.read_bytes().count(text) < count:
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)


@pytest.mark.parametrize("selectors", ["", MANY_SELECTORS], ids=["few", "many"])
def test_what_a_real_exim_logs(stock: Root, tmp_path: Path, selectors: str) -> None:
    files = ServerFiles.write(tmp_path / "exim", authority=Authority.create(), policies=())
    settings = files.folder / "exim.conf"
    text = (
        settings.read_text()
        .partition("acl_smtp_rcpt")[0]
        .replace(f"daemon_smtp_ports = {PORT}", f"daemon_smtp_ports = {PORT} : 26")
    )
    settings.write_text(text.replace("+smtp_connection", f"+smtp_connection {selectors}") + RELAY)
    log = stock.locate(files.trial.log)
    with running_exim(stock, files, log=tmp_path / "exim.log") as exim:
        send(exim, ["one@tls.example", "two@tls.example"], tls=True)
        send(exim, ["one@clear.example"], tls=False)
        break_a_handshake(exim)
        wait_for(log, b" Completed", 4)
        wait_for(log, b"TLS error on connection from", 1)
    assert (SUBJECT.encode()[:3] in log.read_bytes()) == ("+subject" in selectors)
    found = document(str(log))
    check_document("maillog", found)
    assert peers(found) == {
        ("in", "127.0.0.1", "none", 2),
        ("in", "127.0.0.1", "TLSv1.2", 2),
        ("out", "127.0.0.1", "none", 1),
        ("out", "127.0.0.1", "TLSv1.2", 1),
    }
    assert {suite for one in found["peers"] for suite in one["suites"]} == {"ECDHE-RSA-AES256-GCM-SHA384"}
    assert [(one["direction"], one["peer"], one["count"]) for one in found["failures"]] == [
        ("in", "127.0.0.1", 1)
    ]
    assert found["unclear"]["lines"] == 0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "main.log"
    path.write_bytes(b"\n".join(generated_log(20_000)))
    return path


def test_a_file_its_compressed_copy_and_standard_input_say_the_same(log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "main.log.1"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    expected = document(str(log))
    assert expected["lines"] == 20_000
    assert document(str(packed)) == expected
    assert document("-", data=log.read_bytes()) == expected
    assert document("-", data=packed.read_bytes()) == expected
    assert document(str(log), str(packed))["lines"] == 40_000


def test_peers_can_be_selected_and_ordered(log: Path) -> None:
    everything = document(str(log))["peers"]
    older = document("--below", "TLSv1.2", str(log))["peers"]
    assert older == [one for one in everything if one["tls"] in ("none", "TLSv1", "TLSv1.1")]
    assert {one["direction"] for one in document("--direction", "out", str(log))["peers"]} == {"out"}
    assert document("--current", str(log))["peers"] == [one for one in everything if one["current"]]
    assert document("--limit", "3", str(log))["peers"] == everything[:3]
    by_messages = [one["messages"] for one in document("--sort", "messages", str(log))["peers"]]
    assert by_messages == sorted(by_messages, reverse=True)
    late = document("--since", "2026-06-01", str(log))
    assert 0 < len(late["peers"]) < len(everything)
    assert all(one["last_seen"] >= "2026-06-01" for one in late["peers"])


def test_a_damaged_file_is_told_and_the_others_are_read(log: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "main.log.1.gz"
    damaged.write_bytes(gzip.compress(log.read_bytes())[:-5000])
    alone = document(str(log))
    output, errors = maillog("--json", str(log), str(damaged), code=2)
    found = json.loads(output)
    check_document("maillog", found)
    assert str(damaged) in errors
    assert [str(damaged) in reason for reason in found["unread"]] == [True]
    assert alone["unread"] == []
    assert 20_000 < found["lines"] < 40_000
    assert maillog(str(log), str(damaged), code=2)[0].startswith("direction")


def test_totals_are_those_of_the_peers_asked_for(log: Path) -> None:
    for options in (["--below", "TLSv1.2"], ["--current"], ["--direction", "in", "--below", "TLSv1.1"]):
        found = document(*options, str(log))
        counted: dict[tuple[str, str], int] = {}
        for one in found["peers"]:
            key = (one["direction"], one["tls"])
            counted[key] = counted.get(key, 0) + one["messages"]
        assert {(one["direction"], one["tls"]): one["messages"] for one in found["totals"]} == counted


def test_people_see_a_table_and_progress(log: Path) -> None:
    output, errors = maillog("--older-than", "TLSv1.2", "--limit", "2", str(log))
    assert output.splitlines()[0].split() == ["direction", "TLS", "peers", "messages"]
    assert "--limit shows more of them" in output
    assert f"reading {log}" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["/nonexistent/main.log"],
        ["/"],
        [__file__],
        [],
        ["--since", "yesterday", __file__],
        ["--below", "TLSv9", __file__],
        ["--limit", "0", __file__],
    ],
)
def test_what_cannot_be_done_is_an_error_of_usage(arguments: list[str]) -> None:
    output, errors = maillog(*arguments, code=2)
    assert output == ""
    assert errors


@pytest.mark.parametrize("hosts", [2000, 10_000_000], ids=["few hosts", "many hosts"])
def test_memory_does_not_grow_with_the_log(tmp_path: Path, hosts: int) -> None:
    path = tmp_path / "main.log"
    blocks = [b"\n".join(generated_log(20_000, seed=seed, hosts=hosts)) + b"\n" for seed in range(12)]
    # About 170 MB, of which the disk gets the compressed form.
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for block in blocks * 5:
            stream.write(block)
    code = (
        # ru_maxrss would begin with the peak of pytest itself, which forked this process.
        "import atexit, re, sys\nfrom pathlib import Path\n"
        "peak = lambda: re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1]\n"
        "from backport.__main__ import main\n"
        "atexit.register(lambda: print(peak(), file=sys.stderr))\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "maillog", "--json", str(path)],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout)["lines"] == 60 * 20_000
    assert int(done.stderr.split()[-1]) / 1024 < MEMORY_BOUND
