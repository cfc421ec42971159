"""The kind ``starttls``: a real Exim, seen by clients, from inside and by the mail that it passes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from backport import probe
from backport.artifacts import Finding, Nevra
from backport.probe.errors import WireError
from backport.probe.revocation import load_crls
from backport.probe.smtp import Conversation, converse
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.recipe import Handshake, Starttls
from backport.roots.root import Daemon
from backport.selftest import checks, inside, mail, mail_checks
from backport.selftest.configuration import Policy
from backport.selftest.daemon import ADDRESS
from backport.selftest.examiner import BY_HAND, Examiner
from backport.selftest.exim import CONFIGURATION, HOST, PORT, PROGRAM, Exim, ServerFiles, running_exim
from backport.selftest.policy import CryptoPolicy, judge_policy, read_policy

HELO = mail.HELO
_WORKERS = 4
"""Connections at a time of the examination from outside; Exim takes 20 (smtp_accept_max)."""
_EXIM_SAYS = "Mend what Exim itself says, which is the evidence."
_LISTENS = f"Exim listens on port {PORT}"
_LIBRARY = "libssl.so"


class StarttlsKind:
    """An Exim under examination."""

    def __init__(self, examiner: Examiner, asked: Starttls, files: ServerFiles | None = None) -> None:
        self.examiner, self.tls = examiner, asked
        folder = examiner.workspace / "exim"
        self.files = files or ServerFiles.write(folder, authority=examiner.authority)

    @staticmethod
    def plan(asked: Starttls) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The checks, id to title, before the update and after it."""
        return checks.plan_before(asked), checks.plan_after(asked)

    def before(self) -> None:
        """The negative control: what the target's own packages negotiate."""
        self.examiner.progress.note("STARTTLS with the target's own packages")
        with self._step("before", bars=("before.",)), self._exim("before") as exim:
            self._talk(exim, "before", self.tls.before, self.tls.library)

    def after(self) -> None:
        """A fresh daemon after the update, seen by clients, from inside, and by the mail that it passes on.

        The daemon is started after the update, since programs read openssl.cnf only then. What does not
        disturb each other is done side by side.
        """
        self.examiner.progress.note("STARTTLS after the update")
        policy = read_policy(self.examiner.read)
        judge_policy(self.examiner.ledger, policy)
        bars = ("after.", "library.", "transport.", "certificate.", "mail.")
        with self._step("after", bars=bars), self._exim("after") as exim:
            conversation = self._talk(exim, "after", self.tls.after, self.tls.library)
            tasks: list[Callable[[], None]] = [
                partial(self._from_outside, exim, self.tls.after, policy),
                partial(self._library, exim, self.tls.library),
                partial(self._botnet_rules, exim),
                partial(self._coarse_rule, exim),
            ]
            if conversation:
                checks.judge_chain(self.examiner.ledger, conversation.session)
                checks.judge_hostname(self.examiner.ledger, conversation.session, HOST)
                tasks += [
                    partial(self._mail, exim, self.tls.after),
                    partial(self._refusals, exim, self.tls.refused, policy),
                    partial(self._second_opinion, exim.daemon, self.tls.after),
                ]
            else:
                self.examiner.ledger.bar(
                    mail_checks.NEED_TLS, f"after.starttls: {self.examiner.headline['after']}"
                )
            self._side_by_side(tasks)

    def _step(self, stage: str, *, bars: tuple[str, ...]) -> contextlib.AbstractContextManager[None]:
        return self.examiner.ledger.step(
            f"{stage}.exim",
            expected=_LISTENS,
            bars=bars,
            advice=_EXIM_SAYS,
        )

    @contextlib.contextmanager
    def _exim(self, stage: str) -> Iterator[Exim]:
        with running_exim(
            self.examiner.root, self.files, log=self.examiner.workspace / f"exim-{stage}.log"
        ) as exim:
            self.examiner.ledger.record(f"{stage}.exim", Finding.passed(expected=_LISTENS, found=_LISTENS))
            yield exim

    def _talk(self, exim: Exim, stage: str, expected: Handshake, library: str) -> Conversation | None:
        transcript = Transcript()
        try:
            offer = Offer(servername=HOST, trust=self.files.trust)
            conversation = converse(exim.dial, offer, helo=HELO, transcript=transcript)
        except WireError as trouble:
            checks.judge_trouble(self.examiner.ledger, stage, trouble, log=exim.log())
            self.examiner.headline[stage] = trouble.message
            return None
        finally:
            self.examiner.keep(f"{stage}: a default client", transcript)
        checks.judge_handshake(self.examiner.ledger, stage, conversation, expected)
        session, owner = conversation.session, self.examiner.installed(library)
        self.examiner.headline[stage] = f"{session.protocol} {session.cipher} ({_named(owner, library)})"
        return conversation

    def _side_by_side(self, tasks: Sequence[Callable[[], None]]) -> None:
        kept = len(self.examiner.transcripts)
        with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
            for future in [pool.submit(task) for task in tasks]:
                future.result()
        self.examiner.transcripts[kept:] = sorted(self.examiner.transcripts[kept:])

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
        checks.adopt_probe(self.examiner.ledger, report.checks, policy)
        self.examiner.transcripts.append(f"from outside: {report.transcript}")

    def _botnet_rules(self, exim: Exim) -> None:
        greeting = mail.greet_as_botnet(exim)
        mail_checks.judge_helo(self.examiner.ledger, greeting)
        hasty = mail.skip_the_greeting(exim)
        mail_checks.judge_greeting(self.examiner.ledger, hasty)
        senders = mail.offer_senders(exim, mail.REFINED)
        mail_checks.judge_senders(self.examiner.ledger, "mail.sender-botnet.refined", mail.REFINED, senders)
        self.examiner.keep("mail: a client that greets as a botnet", greeting.transcript)
        self.examiner.keep("mail: a client that does not greet", hasty.transcript)
        self.examiner.keep("mail: senders under the refined rule", senders.transcript)

    def _coarse_rule(self, exim: Exim) -> None:
        """The other form of the same rule, by a second server: one configuration holds one of them."""
        check_id = "mail.sender-botnet.coarse"
        trial, log = mail.coarse_trial(exim.files.trial), self.examiner.workspace / "exim-coarse.log"
        with (
            self.examiner.ledger.step(check_id, expected="a second Exim listens", advice=_EXIM_SAYS),
            running_exim(
                self.examiner.root,
                exim.files.beside(trial, {Policy.SENDER_BOTNET_COARSE}),
                log=log,
                beside=exim,
            ) as coarse,
        ):
            senders = mail.offer_senders(coarse, mail.COARSE)
            mail_checks.judge_senders(self.examiner.ledger, check_id, mail.COARSE, senders)
            self.examiner.keep("mail: senders under the coarse rule", senders.transcript)

    def _mail(self, exim: Exim, expected: Handshake) -> None:
        clear, transfer = mail.ask_in_clear(exim), mail.transfer(exim)
        mail_checks.judge_recipients(self.examiner.ledger, clear, transfer.dialogue)
        mail_checks.judge_unknown(self.examiner.ledger, transfer.dialogue)
        mail_checks.judge_transfer(self.examiner.ledger, transfer, expected)
        self.examiner.keep("mail: a recipient in clear", clear.transcript)
        self.examiner.keep("mail: messages over TLS", transfer.dialogue.transcript)

    def _refusals(self, exim: Exim, protocols: Sequence[str], policy: CryptoPolicy | None) -> None:
        for protocol in protocols:
            checks.judge_refusal(self.examiner.ledger, protocol, self._attempt(exim, protocol), policy)

    def _attempt(self, exim: Exim, protocol: str) -> Session | WireError:
        transcript = Transcript()
        try:
            offer = Offer.only(protocol, servername=HOST)
            return converse(exim.dial, offer, helo=HELO, transcript=transcript).session
        except WireError as outcome:
            return outcome
        finally:
            self.examiner.keep(f"after: a client that offers {protocol} alone", transcript)

    def _second_opinion(self, daemon: Daemon, expected: Handshake) -> None:
        argv = (
            "openssl", "s_client", "-connect", f"{ADDRESS}:{PORT}", "-starttls", "smtp", "-brief",
            "-CAfile", self.files.trust_inside, "-servername", HOST, "-verify_hostname", HOST,
            "-verify_return_error",
        )  # fmt: skip
        with self.examiner.ledger.step("after.s-client", expected="openssl s_client runs", advice=BY_HAND):
            inside.judge_s_client(
                self.examiner.ledger, self.examiner.run(argv, beside=daemon, binds=self.files.binds), expected
            )

    def _library(self, exim: Exim, name: str) -> None:
        candidate = self.examiner.candidate_of(name)
        with self.examiner.ledger.step(
            "library.maps",
            expected="the daemon's memory map",
            bars=("library.owner",),
            advice=_EXIM_SAYS,
        ):
            files = inside.mapped_files(exim.maps(), _LIBRARY)
            inside.judge_maps(self.examiner.ledger, files)
            if files:
                owner = self.examiner.root.owner_of(files[0].path)
                inside.judge_owner(self.examiner.ledger, files[0].path, owner, candidate, name)
        with self.examiner.ledger.step(
            "library.runtime-version",
            expected="exim -d -bV runs",
            advice="Run it by hand and read what it says.",
        ):
            result = self.examiner.run((PROGRAM, "-C", CONFIGURATION, "-d", "-bV"), binds=self.files.binds)
            inside.judge_runtime_version(self.examiner.ledger, result, candidate)


def _named(nevra: Nevra | None, name: str) -> str:
    return f"{nevra.name}-{nevra.evr}" if nevra else f"no {name}"
