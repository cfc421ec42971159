"""A real Exim in a clean root: its files, and the daemon while it runs on a loopback of its own.

The daemon starts as root in a sandbox that no program can gain privileges in, so that set-user-id has
no effect there: what Exim starts anew for a delivery goes on as Exim's own user. The configuration
says so (``deliver_drop_privilege``); nothing under test depends on another user.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backport.files import write_atomically
from backport.roots.root import Bind, Root
from backport.run import Command
from backport.selftest.authority import Authority
from backport.selftest.configuration import ALL_POLICIES, Policy, Server, Trial, render_configuration
from backport.selftest.daemon import ADDRESS, START_TIMEOUT, Running, read_inside, started
from backport.selftest.sink import Behaviour, Sink

DOMAIN = "selftest.example"
HOST = f"mail.{DOMAIN}"
"""The server's name; ``example`` is reserved for such use (RFC 2606)."""
PORT = 25
PROGRAM = "/usr/sbin/exim"
CONFIGURATION = "/etc/exim/exim.conf"
SPOOL = "/var/spool/exim-selftest"

_FILES = "/etc/exim-selftest"
_LOGS = ("paniclog", "mainlog")
_SINKS = {behaviour: f"127.0.0.{number}" for number, behaviour in enumerate(Behaviour, start=11)}


def new_trial() -> Trial:
    """A server with a spool of its own, so that no other one's log and hints count for it."""
    return Trial(
        address=ADDRESS,
        port=PORT,
        spool=f"{SPOOL}-{secrets.token_hex(4)}",
        trust=f"{_FILES}/root.pem",
        routes={f"{behaviour}.{DOMAIN}": address for behaviour, address in _SINKS.items()},
    )


def new_sinks() -> tuple[Sink, ...]:
    """A fresh peer of each kind; mail for ``<behaviour>.selftest.example`` is routed to it."""
    return tuple(Sink(behaviour=behaviour, address=address) for behaviour, address in _SINKS.items())


@dataclass(frozen=True, kw_only=True)
class ServerFiles:
    """Exim's configuration, certificate and key in a folder of the host, bound into the root."""

    folder: Path
    trial: Trial

    @classmethod
    def write(
        cls,
        folder: Path,
        *,
        authority: Authority,
        contents: Mapping[str, bytes] | None = None,
        policies: Collection[Policy] = ALL_POLICIES,
    ) -> ServerFiles:
        """Files of a server that is right in every respect, save where ``contents`` has another one.

        Their names are ``exim.conf``, ``chain.pem``, ``key.pem``, ``ocsp.der`` and, for clients,
        ``root.pem`` and ``crl.pem``; ``sink.pem`` is for the servers that it sends mail to.
        """
        trial = new_trial()
        leaf = authority.issue([HOST])
        peer = authority.issue([f"{behaviour}.{DOMAIN}" for behaviour in Behaviour], key=leaf.key)
        server = Server(
            host=HOST,
            certificate=f"{_FILES}/chain.pem",
            private_key=f"{_FILES}/key.pem",
            ocsp_answer=f"{_FILES}/ocsp.der",
            trial=trial,
        )
        configuration = render_configuration(policies, server, purpose="for a self-test")
        files = {
            "exim.conf": configuration.encode(),
            "chain.pem": authority.chain(leaf),
            "key.pem": leaf.key_pem,
            "ocsp.der": authority.ocsp_answer(leaf),
            "root.pem": authority.root.pem,
            "crl.pem": authority.crl(),
            "sink.pem": authority.chain(peer) + peer.key_pem,
            **(contents or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        for name, content in files.items():
            # Exim reads the key as its own user; it vouches for nothing outside this test.
            write_atomically(folder / name, content, mode=0o644)
        return cls(folder=folder, trial=trial)

    def beside(self, trial: Trial, policies: Collection[Policy]) -> ServerFiles:
        """The files of another server, with the same certificate, in a folder beside these."""
        folder = self.folder.with_name(f"{self.folder.name}-{trial.port}")
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        server = Server(
            host=HOST, certificate=f"{_FILES}/chain.pem", private_key=f"{_FILES}/key.pem", trial=trial
        )
        contents = {name: (self.folder / name).read_bytes() for name in ("chain.pem", "key.pem", "root.pem")}
        contents["exim.conf"] = render_configuration(policies, server, purpose="for a self-test").encode()
        for name, content in contents.items():
            write_atomically(folder / name, content, mode=0o644)
        return ServerFiles(folder=folder, trial=trial)

    @property
    def trust(self) -> Path:
        """The root certificate that clients trust, on the host."""
        return self.folder / "root.pem"

    @property
    def revocation_list(self) -> bytes:
        """The list of the certificate's issuer, in PEM."""
        return (self.folder / "crl.pem").read_bytes()

    @property
    def trust_inside(self) -> str:
        """The same, inside the root."""
        return self.trial.trust

    @property
    def binds(self) -> tuple[Bind, ...]:
        """What programs in the root must see."""
        return (
            Bind(host=self.folder, inside=_FILES),
            Bind(host=self.folder / "exim.conf", inside=CONFIGURATION),
        )


@dataclass(frozen=True, kw_only=True)
class Exim(Running):
    """An Exim that listens."""

    files: ServerFiles

    def log(self) -> str:
        """The end of its main log; nothing before there is one."""
        return self._text(self.files.trial.log)

    def mailbox(self) -> str:
        """The end of the file that local mail is appended to; nothing before there is one."""
        return self._text(self.files.trial.mailbox)

    def wait_for_log(self, pattern: str, *, timeout: float) -> str:
        """The main log, once ``pattern`` is found in one of its lines or ``timeout`` seconds are over."""
        deadline = time.monotonic() + timeout
        wanted = re.compile(pattern, re.MULTILINE)
        while True:
            text = self.log()
            if wanted.search(text) or time.monotonic() > deadline:
                return text
            time.sleep(0.01)

    def queues(self, message_id: str) -> bool:
        """Whether a message is in its queue."""
        header = f"{self.files.trial.spool}/input/{message_id}-H"
        with contextlib.suppress(OSError):
            return self.root.locate(header).is_file()
        return False

    def _text(self, path: str) -> str:
        with contextlib.suppress(OSError):
            return read_inside(self.root, path).decode("utf-8", "replace")
        return ""


@contextlib.contextmanager
def running_exim(root: Root, files: ServerFiles, *, log: Path, beside: Exim | None = None) -> Iterator[Exim]:
    """A fresh daemon that listens while the block lasts; ``log`` gets what it prints.

    It has a loopback of its own, or that of another one (``beside``), on a port of its own.
    Raises SelfTestError when it does not start; then ``log`` also holds Exim's own logs.
    """
    command = Command([PROGRAM, "-C", CONFIGURATION, "-bdf"], timeout=START_TIMEOUT, log=log)
    neighbour = beside.daemon if beside else None
    with started(root, command, beside=neighbour, binds=files.binds) as (daemon, network):
        exim = Exim(root=root, files=files, daemon=daemon, network=network, port=files.trial.port)
        exim.wait_until_listening("Exim", logs=[f"{files.trial.spool}/log/{name}" for name in _LOGS])
        yield exim
