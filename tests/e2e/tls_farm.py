"""Servers of every kind with STARTTLS: an SMTP front before the lab's OpenSSL 1.1.1 with weak ciphers.

Each connection gets an `s_server` of its own, so that any number may come side by side.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from backport.selftest.authority import Authority, Identity, Lifetime, new_key

HOST = "mail.selftest.example"
_NEWEST = ("ssl3", "tls1", "tls1_1", "tls1_2", "tls1_3")
_AEAD = "ECDHE+AESGCM:@SECLEVEL=0"
_BOTH = ("tls1_2", "tls1_3")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One server: its versions, its suites, its certificates, and what is wrong with it.

    ``wrong`` holds the checks that must fail, with ``?`` behind those that must warn; every other
    check must pass or be skipped.
    """

    name: str
    wrong: str = ""
    versions: tuple[str, ...] = _BOTH
    ciphers: str = _AEAD
    options: tuple[str, ...] = ()
    certificate: str = "good"

    @property
    def expected(self) -> tuple[set[str], set[str]]:
        """What fails, and what warns."""
        words = self.wrong.split()
        return {one for one in words if one[-1] != "?"}, {one[:-1] for one in words if one[-1] == "?"}


@dataclass
class Farm:
    """What all servers share: the program, an authority, and the files of every certificate."""

    program: Path
    folder: Path
    authority: Authority = field(default_factory=Authority.create)
    _made: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.trust.write_bytes(self.authority.root.pem)
        for bits in (1024, 2048):
            command: list[str | Path] = [
                self.program,
                "dhparam",
                "-dsaparam",
                "-out",
                self.folder / f"dh{bits}.pem",
                str(bits),
            ]
            subprocess.run(command, check=True, capture_output=True, timeout=120)

    @property
    def trust(self) -> Path:
        return self.folder / "root.pem"

    def arguments(self, kind: Kind) -> list[str | Path]:
        """The options of ``s_server`` for a kind of server."""
        off = [f"-no_{version}" for version in _NEWEST if version not in kind.versions]
        options = [one.format(folder=self.folder) for one in kind.options]
        return [*off, "-cipher", kind.ciphers, *options, *_CERTIFICATES[kind.certificate](self)]

    def files(
        self, name: str, leaf: Identity | EcdsaLeaf, chain: bytes, *, second: bool = False
    ) -> list[str | Path]:
        """A leaf with its key and the rest of its chain, as options."""
        where = self.folder / name
        parts = {"cert": leaf.pem, "key": leaf.key_pem, "chain": chain or leaf.pem}
        for part, content in parts.items():
            where.with_suffix(f".{part}").write_bytes(content)
        d = "d" if second else ""
        found: list[str | Path] = [
            f"-{d}cert",
            where.with_suffix(".cert"),
            f"-{d}key",
            where.with_suffix(".key"),
        ]
        return [*found, f"-{d}cert_chain", where.with_suffix(".chain")] if chain else found

    def rest(self) -> bytes:
        return self.authority.intermediate.pem


@dataclass(frozen=True, kw_only=True)
class EcdsaLeaf:
    """A leaf with a key on P-256."""

    pem: bytes
    key_pem: bytes


def ecdsa_leaf(authority: Authority, name: str) -> EcdsaLeaf:
    """A leaf of the intermediate's."""
    issuer = authority.intermediate
    return _certified(ec.generate_private_key(ec.SECP256R1()), name, issuer.certificate.subject, issuer.key)


def _certified(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> EcdsaLeaf:
    subject, lifetime = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), Lifetime.days(30)
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), serial, lifetime.start, lifetime.end)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    for extension in (names, authority_key, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])):
        builder = builder.add_extension(extension, critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return EcdsaLeaf(pem=certificate.public_bytes(serialization.Encoding.PEM), key_pem=pem)


def _sha1_leaf(farm: Farm) -> list[str | Path]:
    """The lab's OpenSSL still signs with SHA-1."""
    options = farm.files("sha1", farm.authority.issue([HOST]), farm.rest())
    issuer = farm.authority.intermediate
    (farm.folder / "signer.pem").write_bytes(issuer.pem + issuer.key_pem)
    (farm.folder / "san.cnf").write_text(f"subjectAltName = DNS:{HOST}\n")
    (farm.folder / "req.cnf").write_text("[req]\ndistinguished_name = dn\n[dn]\n")
    commands = (
        f"req -new -config req.cnf -key sha1.key -subj /CN={HOST} -out sha1.csr",
        (
            "x509 -req -sha1 -in sha1.csr -CA signer.pem -CAkey signer.pem -set_serial 7 -extfile san.cnf "
            "-out sha1.cert"
        ),
    )
    for command in commands:
        subprocess.run(
            [farm.program, *command.split()], cwd=farm.folder, check=True, capture_output=True, timeout=60
        )
    return options


def _self_signed(farm: Farm) -> list[str | Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    return farm.files("self", _certified(key, HOST, name, key), b"")


def _good(farm: Farm) -> list[str | Path]:
    return farm.files("good", farm.authority.issue([HOST], lifetime=Lifetime.days(30)), farm.rest())


def _leaf(name: str, **options: object) -> Callable[[Farm], list[str | Path]]:
    def make(farm: Farm) -> list[str | Path]:
        given = {"names": [HOST], "lifetime": Lifetime.days(30), **options}
        return farm.files(name, farm.authority.issue(**given), farm.rest())  # type: ignore[arg-type]  # as named

    return make


def _two(first: str, second: str) -> Callable[[Farm], list[str | Path]]:
    def make(farm: Farm) -> list[str | Path]:
        rsa = farm.authority.issue([first], lifetime=Lifetime.days(30))
        options = farm.files("two-rsa", rsa, farm.rest())
        return options + farm.files("two-ecdsa", ecdsa_leaf(farm.authority, second), farm.rest(), second=True)

    return make


def _sent(name: str, chain: Callable[[Farm], bytes]) -> Callable[[Farm], list[str | Path]]:
    return lambda farm: farm.files(
        name, farm.authority.issue([HOST], lifetime=Lifetime.days(30)), chain(farm)
    )


_CERTIFICATES: dict[str, Callable[[Farm], list[str | Path]]] = {
    "good": _good,
    "expired": _leaf("expired", lifetime=Lifetime.days(1, since=-3)),
    "future": _leaf("future", lifetime=Lifetime.days(30, since=3)),
    "soon": _leaf("soon", lifetime=Lifetime.days(90, since=-80)),
    "other host": _leaf("other", names=["other.example"]),
    "final dot": _leaf("dot", names=[f"{HOST}."]),
    "wildcard": _leaf("wildcard", names=["*.selftest.example"]),
    "short key": _leaf("short", key=new_key(1024)),
    "sha1": _sha1_leaf,
    "self-signed": _self_signed,
    "leaf alone": _sent("alone", lambda farm: b""),
    "with root": _sent("root", lambda farm: farm.rest() + farm.authority.root.pem),
    "disordered": _sent("disordered", lambda farm: farm.authority.root.pem + farm.rest()),
    "stranger in it": _sent("stranger", lambda farm: farm.rest() + Authority.create("stranger").root.pem),
    "ecdsa": lambda farm: farm.files("ecdsa", ecdsa_leaf(farm.authority, HOST), farm.rest()),
    "two": _two(HOST, HOST),
    "two, rsa for another host": _two("other.example", HOST),
    "two, ecdsa for another host": _two(HOST, "other.example"),
}


@contextlib.contextmanager
def serving(farm: Farm, kind: Kind) -> Iterator[int]:
    """A server of this kind while the block lasts; gives its port on loopback."""
    arguments = [str(one) for one in farm.arguments(kind)]
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    ended = threading.Event()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection, _ = listener.accept()
                threading.Thread(
                    target=_attend, args=(connection, farm.program, arguments), daemon=True
                ).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _attend(connection: socket.socket, program: Path, arguments: list[str]) -> None:
    with connection, contextlib.suppress(OSError), tempfile.TemporaryDirectory() as folder:
        connection.settimeout(30)
        connection.sendall(b"220 farm ESMTP\r\n")
        while line := connection.recv(4096):  # whatever is behind a command in the same write is forgotten
            if line.upper().startswith(b"STARTTLS"):
                break
            connection.sendall(
                b"250-farm\r\n250 STARTTLS\r\n" if line[:4].upper() == b"EHLO" else b"250 ok\r\n"
            )
        else:
            return
        path = f"{folder}/s"
        command: list[str | Path] = [
            program,
            "s_server",
            "-quiet",
            "-naccept",
            "1",
            "-unix",
            path,
            *arguments,
        ]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as server:
            try:
                _relay(connection, path, server)
            finally:
                server.kill()


def _relay(connection: socket.socket, path: str, server: subprocess.Popen[bytes]) -> None:
    with socket.socket(socket.AF_UNIX) as inner:
        for _ in range(400):
            with contextlib.suppress(OSError):
                inner.connect(path)
                break
            time.sleep(0.02)
        connection.sendall(b"220 go ahead\r\n")
        threading.Thread(target=_answer, args=(server,), daemon=True).start()
        back = threading.Thread(target=_copy, args=(inner, connection), daemon=True)
        back.start()
        _copy(connection, inner)
        back.join(30)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(16384):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _answer(server: subprocess.Popen[bytes]) -> None:
    """SMTP inside TLS, as far as a probe goes."""
    assert server.stdin is not None
    assert server.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for line in server.stdout:
            server.stdin.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 farm\r\n")
            server.stdin.flush()
