"""The examiner's SMTP client against servers of every kind, on loopback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL import SSL

from backport.probe.certificates import is_named
from backport.probe.errors import CannotOffer, Closed, HandshakeFailed, NoAnswer, WireError
from backport.probe.smtp import NotSmtp, Refused, converse
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.probe.wire import Dial
from backport.selftest.authority import Authority, Lifetime, new_key
from tests.e2e.smtp_stub import Peer, Script, context, good, serving, simple_context

HOST = "mail.example.org"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture
def trust(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_bytes(authority.root.pem)
    return path


@pytest.fixture
def tls(authority: Authority, tmp_path: Path) -> SSL.Context:
    return simple_context(authority, tmp_path)


def talk(dial: Dial, offer: Offer | None = None, *, timeout: float = 15) -> Session:
    transcript = Transcript()
    return converse(
        dial, offer or Offer(servername=HOST), helo="client.test", transcript=transcript, timeout=timeout
    ).session


def test_whole_conversation_is_recorded(tls: SSL.Context, trust: Path) -> None:
    transcript = Transcript()
    with serving(good, tls) as dial:
        conversation = converse(
            dial, Offer(servername=HOST, trust=trust), helo="client.test", transcript=transcript
        )
    session = conversation.session
    assert (session.protocol, session.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    assert len(session.chain) == 3
    assert session.errors == ()
    assert is_named(session.chain[0], HOST)
    assert conversation.plain.features == {"SIZE", "STARTTLS", "HELP"}
    lines = transcript.text().splitlines()
    assert [line[10:] for line in lines[:8]] == [
        "Connected to server",
        "<-- 220 mail.example.org ESMTP",
        "We are allowed to connect",
        "--> EHLO client.test",
        "<-- 250-mail.example.org Hello / 250-SIZE 52428800 / 250-STARTTLS / 250 HELP",
        "We can use this server",
        "TLS is an option on this server",
        "--> STARTTLS",
    ]
    assert "Certificate 1 of 3 in chain: Cert VALIDATED: ok" in transcript.text()
    assert (
        "Cert Hostname VERIFIED (mail.example.org = mail.example.org | DNS:mail.example.org)"
        in transcript.text()
    )


@pytest.mark.parametrize("protocol", ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"])
def test_an_offer_of_one_protocol_gets_it_from_a_server_that_has_it(
    authority: Authority, tmp_path: Path, protocol: str
) -> None:
    leaf = authority.issue([HOST])
    old = context(leaf, authority.chain(leaf), tmp_path, oldest="TLSv1")
    with serving(good, old) as dial:
        assert talk(dial, Offer.only(protocol)).protocol == protocol


@pytest.mark.parametrize("protocol", ["TLSv1", "TLSv1.1"])
def test_an_old_protocol_is_refused_by_an_alert(tls: SSL.Context, protocol: str) -> None:
    with serving(good, tls) as dial, pytest.raises(HandshakeFailed, match="alert 70") as refusal:
        talk(dial, Offer.only(protocol))
    assert refusal.value.alert == 70


def test_an_offer_that_the_client_cannot_make_is_told_apart_from_a_refusal(tls: SSL.Context) -> None:
    impossible = Offer(oldest="TLSv1", newest="TLSv1", ciphers="ALL:@SECLEVEL=5")
    with serving(good, tls) as dial, pytest.raises(CannotOffer):
        talk(dial, impossible)


def _silent(peer: Peer) -> None:
    peer.hang()


def _silent_after_banner(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hang()


def _silent_in_handshake(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hear()
    peer.say("250-hello\r\n250 STARTTLS\r\n")
    peer.hear()
    peer.say("220 go ahead\r\n")
    peer.hang()


def _dripping(peer: Peer) -> None:
    while not peer.done.wait(0.05):
        peer.say("2")


def _long_line(peer: Peer) -> None:
    peer.say("220 " + "x" * 1_000_000 + "\r\n")
    peer.hang()


def _many_lines(peer: Peer) -> None:
    peer.say("220-hello\r\n" * 90_000)
    peer.hang()


def _garbage(peer: Peer) -> None:
    peer.say("\x00\xffHTTP/1.1 200 OK\r\n\r\n")
    peer.hang()


def _unwelcome(peer: Peer) -> None:
    peer.say("554 go away\r\n")


def _without_starttls(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hear()
    peer.say("250-hello\r\n250 SIZE 1\r\n")
    peer.hang()


def _unavailable(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hear()
    peer.say("250-hello\r\n250 STARTTLS\r\n")
    peer.hear()
    peer.say("454 TLS currently unavailable\r\n")
    peer.hang()


def _injecting(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hear()
    peer.say("250-hello\r\n250 STARTTLS\r\n")
    peer.hear()
    peer.say("220 go ahead\r\n250 injected\r\n")
    peer.tls()


def _closing(peer: Peer) -> None:
    peer.say("220 hello\r\n")


def _closing_in_handshake(peer: Peer) -> None:
    peer.say("220 hello\r\n")
    peer.hear()
    peer.say("250-hello\r\n250 STARTTLS\r\n")
    peer.hear()
    peer.say("220 go ahead\r\n")


def _two_codes(peer: Peer) -> None:
    peer.say("220-hello\r\n550 no\r\n")
    peer.hang()


SILENCE: dict[Script, float] = {_silent: 1, _dripping: 1, _silent_after_banner: 4, _silent_in_handshake: 4}
"""How long the scripts that keep silent are listened to, in seconds; what they do first takes far less."""


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        (_silent, NoAnswer, "the banner: no answer within"),
        (_silent_after_banner, NoAnswer, "the reply to EHLO: no answer within"),
        (_silent_in_handshake, NoAnswer, "no answer within"),
        (_dripping, NoAnswer, "the banner: no answer within"),
        (_long_line, NotSmtp, "the banner has a line of more than 4096 octets"),
        (_many_lines, NotSmtp, "the banner is longer than 65536 octets"),
        (_garbage, NotSmtp, "no SMTP reply: .x00"),
        (_two_codes, NotSmtp, "no SMTP reply: 550 no"),
        (_unwelcome, Refused, "does not welcome us: 554 go away"),
        (_without_starttls, Refused, "does not offer STARTTLS"),
        (_unavailable, Refused, "refuses STARTTLS: 454 TLS currently unavailable"),
        (_injecting, NotSmtp, "more in clear"),
        (_closing, Closed, "the reply to EHLO"),
        (_closing_in_handshake, Closed, "closed the connection"),
    ],
)
def test_every_way_to_go_wrong_has_its_name(
    tls: SSL.Context, script: Script, error: type[WireError], words: str
) -> None:
    with serving(script, tls) as dial, pytest.raises(error, match=words):
        talk(dial, timeout=SILENCE.get(script, 15))


Spoil = Callable[[Authority, Path], SSL.Context]


def _expired(authority: Authority, folder: Path) -> SSL.Context:
    leaf = authority.issue([HOST], lifetime=Lifetime.days(1, since=-3))
    return context(leaf, authority.chain(leaf), folder)


def _not_yet_valid(authority: Authority, folder: Path) -> SSL.Context:
    leaf = authority.issue([HOST], lifetime=Lifetime.days(1, since=2))
    return context(leaf, authority.chain(leaf), folder)


def _without_intermediate(authority: Authority, folder: Path) -> SSL.Context:
    leaf = authority.issue([HOST])
    return context(leaf, leaf.pem, folder)


def _weak(authority: Authority, folder: Path) -> SSL.Context:
    leaf = authority.issue([HOST], key=new_key(1024))
    return context(leaf, authority.chain(leaf), folder)


def _stranger(_authority: Authority, folder: Path) -> SSL.Context:
    return simple_context(Authority.create("stranger"), folder)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_expired, 10), (_not_yet_valid, 9), (_without_intermediate, 20), (_weak, 66), (_stranger, 19)],
)
def test_a_bad_chain_is_told_by_its_code_while_the_handshake_goes_on(
    authority: Authority, trust: Path, tmp_path: Path, spoil: Spoil, code: int
) -> None:
    with serving(good, spoil(authority, tmp_path)) as dial:
        session = talk(dial, Offer(servername=HOST, trust=trust))
    assert code in [error.code for error in session.errors]
    assert session.protocol == "TLSv1.3"
