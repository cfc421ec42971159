"""The examination of one clean root, step by step: stock server, update, fresh server, commands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backport.artifacts import Nevra, SignedRpms
from backport.errors import SelfTestError
from backport.recipe import Command, Handshake, SelfTest, Starttls
from backport.root import Daemon, ExtraRepository, Root
from backport.selftest import checks, inside
from backport.selftest.client import Conversation, converse
from backport.selftest.exim import (
    ADDRESS,
    CONFIGURATION,
    HOST,
    PORT,
    PROGRAM,
    Exim,
    ServerFiles,
    running_exim,
)
from backport.selftest.inside import ProgramResult
from backport.selftest.ledger import Ledger
from backport.selftest.tls import Offer, Session
from backport.selftest.transcript import Transcript
from backport.selftest.trouble import WireError
from backport.settings import Key

HELO = "client.selftest.example"
COMMAND_TIMEOUT = 120.0
"""Deadline in seconds of each program that runs inside the root."""

_LISTENS = f"Exim listens on port {PORT}"
_BY_HAND = "Run it by hand in an updated system, and read what it says."
_LIBRARY = "libssl.so"
_CANDIDATE = "backport-candidate"


@dataclass
class Examiner:
    """A root under examination; the steps are called in order, each at most once."""

    root: Root
    signed: SignedRpms
    self_test: SelfTest
    files: ServerFiles
    workspace: Path
    ledger: Ledger
    headline: dict[str, str] = field(default_factory=dict)
    """What each stage came to, in a few words for people."""
    transcripts: list[str] = field(default_factory=list)
    stock: list[Nevra] = field(default_factory=list)
    """The target's own packages of which the candidate repository has newer ones."""

    def before(self, tls: Starttls) -> None:
        """The negative control: what the target's own packages negotiate."""
        with self._step("before", bars=("before.",)), self._exim("before") as exim:
            self._talk(exim, "before", tls.before, tls.library)

    def update(self, candidate: Path) -> bool:
        """Update the whole root from the candidate repository, as a server would, both gpgchecks on.

        False where dnf failed: then the root is to be used no more.
        """
        key = Key(fingerprint=self.signed.fingerprint, file=self.signed.public_key)
        extra = (ExtraRepository.of_folder(_CANDIDATE, candidate, keys=(key,), repo_gpgcheck=True),)
        wanted = self.self_test.update
        with self.ledger.step(
            "update.installed",
            expected="dnf updates from the candidate repository",
            bars=("after.", "library.", "command."),
            advice="Read dnf's log: it tells which package could not be updated, or verified, and why.",
        ):
            names = {rpm.nevra.name for rpm in self.signed.rpms}
            self.stock += [nevra for nevra in self.root.installed() if nevra.name in names]
            log = self.workspace / "update.log"
            self.root.update(extra=extra, log=log, error=SelfTestError)
            if wanted:
                self.root.install(wanted, extra=extra, log=log, error=SelfTestError)
            candidates = [rpm.nevra for rpm in self.signed.rpms]
            inside.judge_update(self.ledger, self.root.installed(), candidates, wanted)
        return not self.ledger.has_error("update.installed")

    def after(self, tls: Starttls) -> None:
        """A fresh daemon after the update, seen by clients and from inside."""
        with self._step("after", bars=("after.", "library.")), self._exim("after") as exim:
            conversation = self._talk(exim, "after", tls.after, tls.library)
            if conversation:
                checks.judge_chain(self.ledger, conversation.session)
                checks.judge_hostname(self.ledger, conversation.session, HOST)
                for protocol in tls.refused:
                    checks.judge_refusal(self.ledger, protocol, self._attempt(exim, protocol))
                self._second_opinion(exim.daemon, tls.after)
            self._library(exim, tls.library)

    def commands(self) -> None:
        """The recipe's own programs, in the updated root."""
        for command in self.self_test.commands:
            self._command(command)

    def _step(self, stage: str, *, bars: tuple[str, ...]) -> contextlib.AbstractContextManager[None]:
        return self.ledger.step(
            f"{stage}.exim",
            expected=_LISTENS,
            bars=bars,
            advice="Read what Exim itself says.",
        )

    @contextlib.contextmanager
    def _exim(self, stage: str) -> Iterator[Exim]:
        with running_exim(self.root, self.files, log=self.workspace / f"exim-{stage}.log") as exim:
            self.ledger.compare(f"{stage}.exim", good=True, expected=_LISTENS, found=_LISTENS, advice="")
            yield exim

    def _talk(self, exim: Exim, stage: str, expected: Handshake, library: str) -> Conversation | None:
        transcript = Transcript()
        try:
            offer = Offer(servername=HOST, trust=self.files.trust)
            conversation = converse(exim.dial, offer, helo=HELO, transcript=transcript)
        except WireError as trouble:
            checks.judge_trouble(self.ledger, stage, trouble)
            self.headline[stage] = trouble.message
            return None
        finally:
            self._keep(f"{stage}: a default client", transcript)
        checks.judge_handshake(self.ledger, stage, conversation, expected)
        session, owner = conversation.session, self._installed(library)
        self.headline[stage] = f"{session.protocol} {session.cipher} ({_named(owner, library)})"
        return conversation

    def _attempt(self, exim: Exim, protocol: str) -> Session | WireError:
        transcript = Transcript()
        try:
            offer = Offer.only(protocol, servername=HOST)
            return converse(exim.dial, offer, helo=HELO, transcript=transcript).session
        except WireError as outcome:
            return outcome
        finally:
            self._keep(f"after: a client that offers {protocol} alone", transcript)

    def _second_opinion(self, daemon: Daemon, expected: Handshake) -> None:
        argv = (
            "openssl", "s_client", "-connect", f"{ADDRESS}:{PORT}", "-starttls", "smtp", "-brief",
            "-CAfile", self.files.trust_inside, "-servername", HOST, "-verify_hostname", HOST,
            "-verify_return_error",
        )  # fmt: skip
        with self.ledger.step("after.s-client", expected="openssl s_client runs", advice=_BY_HAND):
            inside.judge_s_client(self.ledger, self._run(argv, beside=daemon), expected)

    def _library(self, exim: Exim, name: str) -> None:
        candidate = next((rpm.nevra for rpm in self.signed.rpms if rpm.nevra.name == name), None)
        with self.ledger.step(
            "library.maps",
            expected="the daemon's memory map",
            bars=("library.owner",),
            advice="Find out from Exim's log why it has ended.",
        ):
            files = inside.mapped_files(exim.maps(), _LIBRARY)
            inside.judge_maps(self.ledger, files)
            if files:
                owner = self.root.owner_of(files[0].path)
                inside.judge_owner(self.ledger, files[0].path, owner, candidate, name)
        with self.ledger.step(
            "library.runtime-version",
            expected="exim -d -bV runs",
            advice="Run it by hand and read what it says.",
        ):
            result = self._run((PROGRAM, "-C", CONFIGURATION, "-d", "-bV"))
            inside.judge_runtime_version(self.ledger, result, candidate)

    def _command(self, command: Command) -> None:
        with self.ledger.step(
            checks.command_id(command),
            expected="the program runs",
            advice=_BY_HAND,
        ):
            inside.judge_command(self.ledger, command, self._run(command.run))

    def _run(self, argv: Sequence[str], *, beside: Daemon | None = None) -> ProgramResult:
        """A program's exit code and all that it prints on both streams, in its own order."""
        completed = self.root.run(
            ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv],
            timeout=COMMAND_TIMEOUT, error=SelfTestError, user="root", beside=beside, binds=self.files.binds,
            accept=None, what=f"{argv[0]} failed",
        )  # fmt: skip
        return ProgramResult(exit_code=completed.exit_code, output=completed.text)

    def _installed(self, name: str) -> Nevra | None:
        return next((nevra for nevra in self.root.installed() if nevra.name == name), None)

    def _keep(self, heading: str, transcript: Transcript) -> None:
        self.transcripts.append(f"{heading}\n{transcript.text()}")


def _named(nevra: Nevra | None, name: str) -> str:
    return f"{nevra.name}-{nevra.evr}" if nevra else f"no {name}"
