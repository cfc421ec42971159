"""Each rule of `backport exim-config` by dialogue: with the lab's Exim and with Debian's own, of today."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from backport.probe.errors import Closed, Deadline
from backport.probe.smtp import SmtpClient
from backport.probe.tls import Offer
from backport.probe.transcript import Transcript
from backport.probe.wire import Wire
from backport.recipe import load_recipe
from backport.roots.dnf import Dnf
from backport.roots.root import Root, clean_root
from backport.run import Command
from backport.selftest import mail
from backport.selftest.authority import Authority
from backport.selftest.configuration import ALL_POLICIES, Policy, render_configuration
from backport.selftest.configuration import Server as Printed
from backport.selftest.exim import CONFIGURATION, HOST, PROGRAM, Exim, ServerFiles, running_exim
from backport.selftest.mail import LOCAL, SENDER, UNKNOWN, recipient
from backport.selftest.sink import PORT, Behaviour
from backport.target import Target
from tests.e2e.examined import RECIPES
from tests.e2e.test_maillog import MANY_SELECTORS, maillog
from tests.lab.gnutls_exim import ensure

GOOD = recipient(Behaviour.GOOD).partition("@")[2]
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"


@pytest.fixture(scope="module", params=["lab", "debian"])
def root(
    request: pytest.FixtureRequest, f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Root]:
    """A root with an Exim: the lab's with OpenSSL, and Debian's own with GnuTLS."""
    folder = tmp_path_factory.mktemp("root")
    if request.param == "lab":
        packages = load_recipe(RECIPES, "openssl").self_test.install
        with clean_root(f28, packages=packages, cache=root_cache, workspace=folder) as made:
            yield made
        return
    tree = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    path = shutil.copytree(tree, folder / "tree", symlinks=True)
    (path / "etc/exim").mkdir()
    yield Root(target=f28, path=path, log=folder / "root.log", dnf=cast("Dnf", None))


@dataclass
class Server:
    """A running Exim, and how to talk to it."""

    exim: Exim

    @contextlib.contextmanager
    def client(self, *, tls: bool = False, greeting: str | None = "client.example") -> Iterator[SmtpClient]:
        deadline = Deadline(10)
        with Wire(self.exim.dial(deadline), deadline) as wire:
            client = SmtpClient(wire, Transcript())
            assert client.reply("the banner").code == 220
            if tls:
                assert client.command("EHLO client.example").code == 250
                assert client.command("STARTTLS").code == 220
                client.start_tls(Offer(servername=HOST))
            if greeting:
                assert client.command(f"EHLO {greeting}").code == 250
            yield client

    def says(self, *commands: str, tls: bool = False, greeting: str | None = "client.example") -> list[int]:
        """The codes of the replies; 0 where the server has closed the connection."""
        codes: list[int] = []
        with self.client(tls=tls, greeting=greeting) as client:
            for command in commands:
                try:
                    codes.append(client.command(command).code)
                except Closed:
                    codes.append(0)
        return codes

    def submit(self, to: str) -> str:
        """Hand in a message; gives its id."""
        with self.client(tls=True) as client:
            assert client.command(f"MAIL FROM:<{SENDER}>").code == 250
            assert client.command(f"RCPT TO:<{to}>").code == 250
            assert client.command("DATA").code == 354
            done = str(client.command("Subject: test", "", "Nothing but a test.", "."))
        return done.rpartition("id=")[2].split()[0]

    def fate(self, message: str) -> str:
        """What came of a message: ``bounced``, or the line after which it is still in the queue."""
        self.exim.wait_for_log(rf" {message} (Completed|==)", timeout=10)
        # A bounce follows at once where the retry rule has no times.
        log = self.exim.wait_for_log(rf" {message} Completed", timeout=1)
        if f" {message} Completed" in log:
            assert f" {message} ** " in log
            return "bounced"
        assert self.exim.queues(message)
        return next(line for line in log.splitlines() if f" {message} == " in line)

    def run(self, *arguments: str) -> str:
        """What Exim says to these arguments."""
        command = Command([PROGRAM, "-C", CONFIGURATION, *arguments], timeout=60)
        return self.exim.root.run(command, user="root", binds=self.exim.files.binds).text


Serving = Callable[..., contextlib.AbstractContextManager[Server]]


@pytest.fixture
def serving(root: Root, tmp_path: Path) -> Serving:
    """Starts an Exim with the printed configuration, and edits of it."""
    authority = Authority.create()

    @contextlib.contextmanager
    def start(
        policies: Collection[Policy] = ALL_POLICIES,
        *,
        keep_trying: str | None = None,
        edits: Sequence[tuple[str, str]] = (),
    ) -> Iterator[Server]:
        files = ServerFiles.write(tmp_path / "exim", authority=authority, policies=policies)
        settings = files.folder / "exim.conf"
        text = settings.read_text()
        if keep_trying:
            printed = render_configuration(policies, Printed(), purpose="", keep_trying=keep_trying)
            text = text.partition("begin retry")[0] + "".join(printed.partition("begin retry")[1:])
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        settings.write_text(text)
        with running_exim(root, files, log=tmp_path / "exim.log") as exim:
            server = Server(exim)
            assert server.run("-bV")
            yield server

    return start


@pytest.fixture
def server(serving: Serving) -> Iterator[Server]:
    with serving() as running:
        yield running


@contextlib.contextmanager
def breaking(exim: Exim, how: Callable[[socket.socket], None]) -> Iterator[None]:
    """A server that offers STARTTLS, says 220 to it, and breaks the handshake."""
    address = exim.files.trial.routes[recipient(Behaviour.FAILED_HANDSHAKE).partition("@")[2]]
    listener = exim.network.inside(lambda: socket.create_server((address, PORT)))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    connection.sendall(b"220 sink ESMTP\r\n")
                    connection.recv(1000)
                    connection.sendall(b"250-sink\r\n250 STARTTLS\r\n")
                    connection.recv(1000)
                    connection.sendall(b"220 go ahead\r\n")
                    connection.recv(1)
                    how(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def reset(connection: socket.socket) -> None:
    """End the connection by a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def alert(connection: socket.socket) -> None:
    connection.sendall(ALERT)


@pytest.mark.parametrize("how", [reset, alert])
@pytest.mark.parametrize("keep_trying", [None, "2h"])
def test_a_handshake_that_fails_bounces_the_mail_or_keeps_it_for_a_while(
    serving: Serving, how: Callable[[socket.socket], None], keep_trying: str | None
) -> None:
    with serving(keep_trying=keep_trying) as server, breaking(server.exim, how):
        fate = server.fate(server.submit(recipient(Behaviour.FAILED_HANDSHAKE)))
    assert "defer (-37)" in fate if keep_trying else fate == "bounced"


@pytest.mark.parametrize("tls", [False, True])
def test_an_unknown_recipient_is_refused_before_the_message_comes(serving: Serving, tls: bool) -> None:
    with serving(ALL_POLICIES - {Policy.REQUIRE_TLS_INBOUND}) as server:
        for sender in ("", "stranger@client.example"):
            commands = (f"MAIL FROM:<{sender}>", f"RCPT TO:<{UNKNOWN}>", f"RCPT TO:<{LOCAL}>")
            assert server.says(*commands, tls=tls) == [250, 550, 250]


@pytest.mark.parametrize(
    "commands",
    [(), ("EHLO",), ("EHLO not(valid",), ("HELO [ylmf-pc]",), ("EHLO client.example", "EHLO a b c")],
    ids=["none", "empty", "rejected", "brackets", "rejected later"],
)
def test_nobody_sends_who_has_not_greeted(server: Server, commands: tuple[str, ...]) -> None:
    assert server.says(*commands, f"MAIL FROM:<{SENDER}>", greeting=None)[-1] == 503


def test_after_starttls_it_takes_a_greeting_of_its_own(server: Server) -> None:
    mail = f"MAIL FROM:<{SENDER}>"
    assert server.says(mail, "EHLO client.example", mail, tls=True, greeting=None) == [503, 250, 250]


def test_without_the_rule_a_rejected_greeting_does_not_count(serving: Serving) -> None:
    """From 4.95 on, Exim itself asks for a greeting, but takes an earlier one for enough."""
    with serving(ALL_POLICIES - {Policy.REQUIRE_HELO}) as server:
        assert server.says("EHLO a b c", f"MAIL FROM:<{SENDER}>") == [501, 250]


@pytest.mark.parametrize(
    "name", ["ylmf-pc", "YLMF-PC", "ylmf-pc.", "Ylmf-Pc..", ".ylmf-pc", "\tylmf-pc", "ylmf-pc \t"]
)
@pytest.mark.parametrize("verb", ["EHLO", "HELO"])
def test_a_botnet_s_greeting_ends_the_connection_however_it_is_spelt(
    server: Server, verb: str, name: str
) -> None:
    assert server.says(f"{verb} {name}", "NOOP", greeting=None) == [550, 0]


@pytest.mark.parametrize("name", ["ylmf-pc.example.org", "my-ylmf-pc", "ylmf-pc2"])
def test_other_names_pass(server: Server, name: str) -> None:
    assert server.says(f"EHLO {name}", "NOOP", greeting=None) == [250, 250]


@pytest.mark.parametrize(
    "sender",
    [
        "<Anastasia123@x.example>",
        '<"Anastasia123"@x.example>',
        '<"Anast\\asia123"@x.example>',
        '<" Anastasia123 "@x.example>',
        '<"Anastasia 1 2 3"@x.example>',
        "<Anastasia123(comment)@x.example>",
        "<(comment)Anastasia123@x.example>",
        "<@relay.example:Anastasia123@x.example>",
        "<Anastasia123%y.example@x.example>",
        '<"Anastasia123@y.example"@x.example>',
        "<y.example!Anastasia123@x.example>",
        "Anastasia123@x.example",
        "A Name <Anastasia123@x.example>",
    ],
)
def test_a_botnet_s_sender_ends_the_connection_however_it_is_spelt(server: Server, sender: str) -> None:
    assert server.says(f"MAIL FROM:{sender}", f"MAIL FROM:<{SENDER}>") == [550, 0]


@pytest.mark.parametrize(
    "sender", ["", "Anastasia@x.example", "Anastasia123456@x.example", "anastasia123@x.example",
               "Anastasia@anastasia123.example", '"Maria Anastasia123"@x.example']
)  # fmt: skip
def test_other_senders_pass(server: Server, sender: str) -> None:
    assert server.says(f"MAIL FROM:<{sender}>", "RSET") == [250, 250]


def test_the_coarse_rule_drops_too(serving: Serving) -> None:
    with serving(ALL_POLICIES - {Policy.SENDER_BOTNET} | {Policy.SENDER_BOTNET_COARSE}) as server:
        for sender in ("Anastasia", '"Anastasia"', "Anastasia.Kulikovwa", "y.example!Anastasia"):
            assert server.says(f"MAIL FROM:<{sender}@x.example>", "NOOP") == [550, 0]
        assert server.says("MAIL FROM:<anastasia123@x.example>") == [250]


def test_a_refused_connection_and_a_full_mailbox_have_their_own_retry_rules(serving: Serving) -> None:
    with serving(edits=[("\n  file = ", "\n  quota = 10\n  file = ")]) as server:
        refused = server.fate(server.submit(recipient(Behaviour.GOOD)))
        full = server.fate(server.submit(LOCAL))
        rules = {
            name: server.run("-brt", "x.example", name)
            for name in ("refused_A", "refused", "quota", "timeout_connect")
        }
    assert "Connection refused" in refused
    assert "mailbox is full" in full
    assert all(name in rules[name] for name in ("refused_A", "refused", "quota"))
    assert "F,4d" in rules["timeout_connect"]
    assert len(set(rules.values())) == 4


@pytest.mark.parametrize("selectors", ["", MANY_SELECTORS], ids=["few", "many"])
def test_maillog_finds_every_failure_of_tls(serving: Serving, selectors: str) -> None:
    edits = [
        ("+smtp_connection", f"+smtp_connection {selectors}"),
        # The first host offers no TLS, the second one takes the mail.
        (f"{GOOD} 127.0.0.14", f"{GOOD} 127.0.0.11:127.0.0.14"),
    ]
    with serving(edits=edits) as server:
        mail.ask_in_clear(server.exim)
        mail.transfer(server.exim)
        report = json.loads(maillog("--json", str(server.exim.root.locate(server.exim.files.trial.log)))[0])
    assert {(one["direction"], one["peer"], one["count"]) for one in report["failures"]} == {
        ("in", "127.0.0.1", 1),
        ("out", "127.0.0.11", 2),
        ("out", "127.0.0.12", 1),
        ("out", "127.0.0.13", 1),
    }
    delivered = [one for one in report["peers"] if one["direction"] == "out"]
    assert [(one["peer"], one["messages"]) for one in delivered] == [("127.0.0.14", 1)]
    assert report["unclear"]["lines"] == 0
