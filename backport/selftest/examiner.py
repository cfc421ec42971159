"""The examination of one clean root, step by step: the target's server, update, fresh server, commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from backport import probe, run
from backport.artifacts import Finding, Nevra, Verdict, is_for_debugging
from backport.probe.errors import WireError
from backport.probe.ledger import Ledger
from backport.probe.revocation import load_crls
from backport.probe.smtp import Conversation, converse
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.recipe import Command, Handshake, SelfTest, Starttls
from backport.roots.root import Daemon, ExtraRepository, Root
from backport.selftest import checks, inside, mail, mail_checks
from backport.selftest.configuration import Policy
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
from backport.selftest.policy import CryptoPolicy, judge_policy, read_policy
from backport.selftest.reading import read_inside

HELO = mail.HELO
_WORKERS = 4
"""Connections at a time of the examination from outside; Exim takes 20 (smtp_accept_max)."""
COMMAND_TIMEOUT = 120.0
"""Deadline in seconds of each program that runs inside the root."""

_EXIM_SAYS = "Mend what Exim itself says, which is the evidence."
_LISTENS = f"Exim listens on port {PORT}"
_BY_HAND = "Run it by hand in an updated system, and read what it says."
_LIBRARY = "libssl.so"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The packages under test, and the repository that brings them."""

    packages: tuple[Nevra, ...]
    repository: ExtraRepository
    beside: tuple[ExtraRepository, ...] = ()
    """What servers that update have besides: what is published already."""


@dataclass
class Examiner:
    """A root under examination; the steps are called in order, each at most once."""

    root: Root
    candidate: Candidate
    self_test: SelfTest
    files: ServerFiles
    workspace: Path
    ledger: Ledger
    headline: dict[str, str] = field(default_factory=dict)
    """What each stage came to, in a few words for people."""
    transcripts: list[str] = field(default_factory=list)
    replaced: list[Nevra] = field(default_factory=list)
    """The target's own packages of which the candidate repository has newer ones."""

    def before(self, tls: Starttls) -> None:
        """The negative control: what the target's own packages negotiate."""
        with self._step("before", bars=("before.",)), self._exim("before") as exim:
            self._talk(exim, "before", tls.before, tls.library)

    def update(self) -> bool:
        """Update the whole root from the candidate repository, as a server would, both gpgchecks on.

        False where dnf failed: then the root is to be used no more.
        """
        extra = (*self.candidate.beside, self.candidate.repository)
        candidates = self.candidate.packages
        wanted = self.self_test.update
        names = {nevra.name for nevra in candidates}
        with self.ledger.step(
            "update.installed",
            expected="dnf updates from the candidate repository",
            bars=("policy.", "after.", "library.", "transport.", "certificate.", "mail.", "command."),
            advice="Mend what dnf names: a server would fail in the same way.",
        ):
            self.replaced += [nevra for nevra in self.root.installed() if nevra.name in names]
            log = self.workspace / "update.log"
            self.root.update(extra=extra, log=log)
            if not wanted and names.isdisjoint(nevra.name for nevra in self.root.installed()):
                # The target never had any of them: they are not updated but installed.
                wanted = tuple(sorted(name for name in names if not is_for_debugging(name)))
            if wanted:
                self.root.install(wanted, extra=extra, log=log)
            inside.judge_update(self.ledger, self.root.installed(), candidates, wanted)
        return self.ledger.verdict("update.installed") is not Verdict.ERROR

    def after(self, tls: Starttls) -> None:
        """A fresh daemon after the update, seen by clients, from inside, and by the mail that it passes on.

        The daemon is started after the update, since programs read openssl.cnf only then. What does not
        disturb each other is done side by side.
        """
        policy = read_policy(self._read)
        judge_policy(self.ledger, policy)
        bars = ("after.", "library.", "transport.", "certificate.", "mail.")
        with self._step("after", bars=bars), self._exim("after") as exim:
            conversation = self._talk(exim, "after", tls.after, tls.library)
            tasks: list[Callable[[], None]] = [
                partial(self._from_outside, exim, tls.after, policy),
                partial(self._library, exim, tls.library),
                partial(self._botnet_rules, exim),
                partial(self._coarse_rule, exim),
            ]
            if conversation:
                checks.judge_chain(self.ledger, conversation.session)
                checks.judge_hostname(self.ledger, conversation.session, HOST)
                tasks += [
                    partial(self._mail, exim, tls.after),
                    partial(self._refusals, exim, tls.refused, policy),
                    partial(self._second_opinion, exim.daemon, tls.after),
                ]
            else:
                self.ledger.bar(mail_checks.NEED_TLS, f"after.starttls: {self.headline['after']}")
            self._side_by_side(tasks)

    def commands(self) -> None:
        """The recipe's own programs, in the updated root."""
        for command in self.self_test.commands:
            self._command(command)

    def _step(self, stage: str, *, bars: tuple[str, ...]) -> contextlib.AbstractContextManager[None]:
        return self.ledger.step(
            f"{stage}.exim",
            expected=_LISTENS,
            bars=bars,
            advice=_EXIM_SAYS,
        )

    @contextlib.contextmanager
    def _exim(self, stage: str) -> Iterator[Exim]:
        with running_exim(self.root, self.files, log=self.workspace / f"exim-{stage}.log") as exim:
            self.ledger.record(f"{stage}.exim", Finding.passed(expected=_LISTENS, found=_LISTENS))
            yield exim

    def _talk(self, exim: Exim, stage: str, expected: Handshake, library: str) -> Conversation | None:
        transcript = Transcript()
        try:
            offer = Offer(servername=HOST, trust=self.files.trust)
            conversation = converse(exim.dial, offer, helo=HELO, transcript=transcript)
        except WireError as trouble:
            checks.judge_trouble(self.ledger, stage, trouble, log=exim.log())
            self.headline[stage] = trouble.message
            return None
        finally:
            self._keep(f"{stage}: a default client", transcript)
        checks.judge_handshake(self.ledger, stage, conversation, expected)
        session, owner = conversation.session, self._installed(library)
        self.headline[stage] = f"{session.protocol} {session.cipher} ({_named(owner, library)})"
        return conversation

    def _side_by_side(self, tasks: Sequence[Callable[[], None]]) -> None:
        kept = len(self.transcripts)
        with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
            for future in [pool.submit(task) for task in tasks]:
                future.result()
        self.transcripts[kept:] = sorted(self.transcripts[kept:])

    def _from_outside(self, exim: Exim, expected: Handshake, policy: CryptoPolicy | None) -> None:
        """Everything that can be seen without access to the server, with as many connections as it takes."""
        subject = probe.Subject(
            dial=exim.dial,
            host=HOST,
            servername=HOST,
            helo=HELO,
            expectation=probe.Expectation(protocol=expected.protocol, cipher=expected.cipher),
            trust=self.files.trust,
            crls=load_crls(self.files.revocation_list),
            staple=True,
            connections=None,
            workers=_WORKERS,
        )
        report = probe.examine(subject)
        checks.adopt_probe(self.ledger, report.checks, policy)
        self.transcripts.append(f"from outside: {report.transcript}")

    def _botnet_rules(self, exim: Exim) -> None:
        greeting = mail.greet_as_botnet(exim)
        mail_checks.judge_helo(self.ledger, greeting)
        hasty = mail.skip_the_greeting(exim)
        mail_checks.judge_greeting(self.ledger, hasty)
        senders = mail.offer_senders(exim, mail.REFINED)
        mail_checks.judge_senders(self.ledger, "mail.sender-botnet.refined", mail.REFINED, senders)
        self._keep("mail: a client that greets as a botnet", greeting.transcript)
        self._keep("mail: a client that does not greet", hasty.transcript)
        self._keep("mail: senders under the refined rule", senders.transcript)

    def _coarse_rule(self, exim: Exim) -> None:
        """The other form of the same rule, by a second server: one configuration holds one of them."""
        check_id = "mail.sender-botnet.coarse"
        trial, log = mail.coarse_trial(exim.files.trial), self.workspace / "exim-coarse.log"
        with (
            self.ledger.step(check_id, expected="a second Exim listens", advice=_EXIM_SAYS),
            running_exim(
                self.root, exim.files.beside(trial, {Policy.SENDER_BOTNET_COARSE}), log=log, beside=exim
            ) as coarse,
        ):
            senders = mail.offer_senders(coarse, mail.COARSE)
            mail_checks.judge_senders(self.ledger, check_id, mail.COARSE, senders)
            self._keep("mail: senders under the coarse rule", senders.transcript)

    def _mail(self, exim: Exim, expected: Handshake) -> None:
        clear, transfer = mail.ask_in_clear(exim), mail.transfer(exim)
        mail_checks.judge_recipients(self.ledger, clear, transfer.dialogue)
        mail_checks.judge_unknown(self.ledger, transfer.dialogue)
        mail_checks.judge_transfer(self.ledger, transfer, expected)
        self._keep("mail: a recipient in clear", clear.transcript)
        self._keep("mail: messages over TLS", transfer.dialogue.transcript)

    def _refusals(self, exim: Exim, protocols: Sequence[str], policy: CryptoPolicy | None) -> None:
        for protocol in protocols:
            checks.judge_refusal(self.ledger, protocol, self._attempt(exim, protocol), policy)

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
        candidate = next((nevra for nevra in self.candidate.packages if nevra.name == name), None)
        with self.ledger.step(
            "library.maps",
            expected="the daemon's memory map",
            bars=("library.owner",),
            advice=_EXIM_SAYS,
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
        words = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *argv]
        command = run.Command(words, timeout=COMMAND_TIMEOUT, what=f"{argv[0]} failed", accept=None)
        completed = self.root.run(command, user="root", beside=beside, binds=self.files.binds)
        return ProgramResult(exit_code=completed.exit_code, output=completed.text)

    def _installed(self, name: str) -> Nevra | None:
        return next((nevra for nevra in self.root.installed() if nevra.name == name), None)

    def _read(self, path: str) -> str | None:
        try:
            return read_inside(self.root, path).decode("utf-8", "replace")
        except OSError:
            return None

    def _keep(self, heading: str, transcript: Transcript) -> None:
        self.transcripts.append(f"{heading}\n{transcript.text()}")


def _named(nevra: Nevra | None, name: str) -> str:
    return f"{nevra.name}-{nevra.evr}" if nevra else f"no {name}"
