"""Mail domains of every kind on loopback: their zones, their mail exchangers and their policies."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL

from backport.probe.resolver import Resolver
from backport.selftest.authority import Authority, Identity, Lifetime, new_key
from tests.e2e.dns_lab import resolving
from tests.e2e.smtp_stub import Peer, context, good, serving

MAIL, CLEAR, DEAD, WEB = "127.0.53.1", "127.0.53.2", "127.0.53.3", "127.0.53.4"
OTHER = "ab" * 32
NEXT = "cd" * 32


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One domain: its records, the checks that must fail and, with ``?``, those that must warn.

    A name without a dot at its end is below the domain; ``@`` is the domain itself. Checks of exchangers and
    servers are told without their names.
    """

    name: str
    records: str
    wrong: str = ""
    policy: str | None = None
    """The policy's text; None where there is none."""
    zone: str = "example."
    passes: str = ""
    """Checks that must pass."""

    @property
    def domain(self) -> str:
        return f"{self.name}.{self.zone}".rstrip(".")


@dataclass
class Policies:
    """What the web server answers, by host: status, headers, body."""

    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Domains:
    """All that runs."""

    resolver: Resolver
    trust: Path
    policies: Policies


def spki(leaf: Identity) -> bytes:
    return leaf.certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _clear(peer: Peer) -> None:
    peer.say("220 mail.example ESMTP\r\n")
    while peer.hear():
        peer.say("250 mail.example\r\n")


def leaves(authority: Authority) -> dict[str, Identity]:
    """The exchangers' certificates by their names below ``mx.example``."""
    key = new_key()
    made = {
        name: authority.issue([f"{name}.mx.example"], key=key, lifetime=Lifetime.days(60))
        for name in ("good", "wrong", "ta", "usage1", "mixed", "agile", "brittle", "torn", "alias")
    }
    made["expired"] = authority.issue(["expired.mx.example"], key=key, lifetime=Lifetime.days(1, since=-3))
    made["ta-name"] = authority.issue(["elsewhere.example"], key=key, lifetime=Lifetime.days(60))
    made["ta-domain"] = authority.issue(["ta-domain.example"], key=key, lifetime=Lifetime.days(60))
    made["plain"] = authority.issue(["plain.mx.example"], key=key, lifetime=Lifetime.days(60))
    return made


def hosts(authority: Authority, made: dict[str, Identity]) -> str:
    """The exchangers' own records."""
    good, key = made["good"], sha256(spki(made["good"]))
    ta = sha256(authority.intermediate.certificate.public_bytes(serialization.Encoding.DER))
    wide = hashlib.sha512(b"another").hexdigest()
    tlsa = {
        "good": [f"3 1 1 {key}", f"3 1 1 {NEXT}"],
        "wrong": [f"3 1 1 {OTHER}"],
        "ta": [f"2 0 1 {ta}"],
        "ta-name": [f"2 0 1 {ta}"],
        "ta-domain": [f"2 0 1 {ta}"],
        "expired": [f"3 1 1 {key}"],
        "usage1": [f"1 1 1 {key}"],
        "mixed": [f"1 1 1 {key}", f"3 1 1 {key}"],
        "agile": [f"3 1 1 {key}", f"3 1 2 {wide}"],
        "brittle": [f"3 0 1 {made['brittle'].certificate.fingerprint(hashes.SHA256()).hex()}"],
        "torn": [f"3 1 1 {key}"],
        "clear": [f"3 1 1 {key}"],
        "dead": [f"3 1 1 {key}"],
    }
    where = {"clear": CLEAR, "dead": DEAD}
    assert good.certificate
    lines = [f"{name}.mx 60 IN A {where.get(name, MAIL)}" for name in {*made, *where} - {"alias"}]
    lines += [f"_25._tcp.{name}.mx 60 IN TLSA {one}" for name, each in tlsa.items() for one in each]
    return "\n".join(
        [
            *lines,
            "alias.mx 60 IN CNAME good.mx",
            "both.mx 60 IN A 127.0.53.1",
            "both.mx 60 IN A 192.0.2.1",
            "",
        ]
    )


def zone(kinds: list[Kind], name: str) -> str:
    """The records of a zone's domains."""
    lines = []
    for kind in (one for one in kinds if one.zone == name):
        for line in filter(None, map(str.strip, kind.records.splitlines())):
            owner, _, rest = line.partition(" ")
            lines.append(f"{kind.name if owner == '@' else f'{owner}.{kind.name}'} 60 IN {rest}")
        if kind.policy is not None:
            lines.append(f"mta-sts.{kind.name} 60 IN A {WEB}")
            if "_mta-sts" not in kind.records:
                lines.append(f'_mta-sts.{kind.name} 60 IN TXT "v=STSv1; id=1;"')
    return "\n".join([*lines, ""])


def _by_name(contexts: dict[str, SSL.Context]) -> SSL.Context:
    """A context that takes another's certificate by the name that the client asks for."""
    first = contexts["good"]

    def choose(connection: SSL.Connection) -> None:
        asked = (connection.get_servername() or b"").decode().removesuffix(".mx.example")
        connection.set_context(contexts.get(asked, first))

    first.set_tlsext_servername_callback(choose)
    return first


@contextlib.contextmanager
def _web(authority: Authority, folder: Path, kinds: list[Kind], policies: Policies) -> Iterator[None]:
    names = [f"mta-sts.{kind.domain}" for kind in kinds if kind.name != "policy-name"]
    leaf = authority.issue(names)
    (folder / "web.pem").write_bytes(authority.chain(leaf) + leaf.key_pem)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            status, headers, body = policies.pages.get(str(self.headers["Host"]), (404, {}, b""))
            self.send_response(status if self.path == "/.well-known/mta-sts.txt" else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as http.server has it
            """Say nothing."""

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "web.pem")
    with ThreadingHTTPServer((WEB, 443), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def serving_domains(folder: Path, kinds: list[Kind], altered: dict[str, str]) -> Iterator[Domains]:
    """Everything that the domains need, while the block lasts."""
    authority = Authority.create()
    (folder / "root.pem").write_bytes(authority.root.pem)
    made = leaves(authority)
    contexts = {}
    for name, leaf in made.items():
        (folder / name).mkdir()
        contexts[name] = context(leaf, leaf.pem + authority.intermediate.pem, folder / name)
    policies = Policies()
    for kind in (one for one in kinds if one.policy is not None):
        policies.pages[f"mta-sts.{kind.domain}"] = (
            200,
            {"Content-Type": "text/plain"},
            (kind.policy or "").encode(),
        )
    zones = {
        "example.": hosts(authority, made) + zone(kinds, "example."),
        "plain.": zone(kinds, "plain."),
        "bogus.": zone(kinds, "bogus."),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(serving(good, _by_name(contexts), where=(MAIL, 25)))
        stack.enter_context(serving(_clear, where=(CLEAR, 25)))
        stack.enter_context(_web(authority, folder, kinds, policies))
        resolver = stack.enter_context(resolving(folder, zones, altered=altered))
        yield Domains(resolver=resolver, trust=folder / "root.pem", policies=policies)
