"""The kind ``service``: any daemon of the target, before and after the update, asked on its port."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from backport import run
from backport.artifacts import Finding, Verdict
from backport.files import write_atomically
from backport.probe.errors import Deadline, NoAnswer, WireError
from backport.probe.smtp import converse
from backport.probe.tls import Offer, Session
from backport.probe.transcript import Transcript
from backport.probe.wire import Wire
from backport.recipe import Answer, Service
from backport.roots.root import Bind
from backport.selftest import inside
from backport.selftest.commands import found_in
from backport.selftest.daemon import START_TIMEOUT, Running, started
from backport.selftest.examiner import Examiner

HOST = "service.selftest.example"
"""The name in the certificate; ``example`` is reserved for such use (RFC 2606)."""
FILES = "/etc/backport-selftest"
"""Where the daemon finds the certificate, inside the root."""
ANSWER_TIMEOUT = 10.0
"""Seconds that the whole answer may take."""
_BANNER = 4096
"""Octets read of what a service says."""
_WHEN = {"before": "with the target's own packages", "after": "after the update"}
_SAYS = "Mend what the daemon itself says, which is the evidence."


class ServiceKind:
    """The daemons of one recipe, one after the other."""

    def __init__(self, examiner: Examiner, asked: Sequence[Service]) -> None:
        self.examiner, self.asked = examiner, asked

    @staticmethod
    def plan(asked: Sequence[Service]) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """The checks, id to title, before the update and after it."""
        before = [one for one in asked if one.before]
        after = {id_: title for one in asked for id_, title in _plan(one, "after").items()}
        return {id_: title for one in before for id_, title in _plan(one, "before").items()}, after

    def before(self) -> None:
        """The negative control, where the recipe has one."""
        for service in self.asked:
            if service.before:
                self._examine(service, "before", service.before)

    def after(self) -> None:
        """A fresh daemon of each service."""
        for service in self.asked:
            self._examine(service, "after", service.after)

    def _examine(self, service: Service, stage: str, wanted: Answer) -> None:
        own, ledger, listens = (
            _ids(service, stage),
            self.examiner.ledger,
            f"it listens on port {service.port}",
        )
        self.examiner.progress.note(f"{service.id} {_WHEN[stage]}")
        with (
            ledger.step(
                f"{own}.start", expected=listens, bars=(f"{own}.",), advice=_SAYS, verdict=Verdict.FAIL
            ),
            self._running(service, stage) as running,
        ):
            ledger.record(f"{own}.start", Finding.passed(listens, expected=listens))
            with ledger.step(f"{own}.answer", expected=_words(wanted), advice=_SAYS):
                ledger.record(f"{own}.answer", self._answer(service, stage, wanted, running))
            if stage == "after" and service.library:
                with ledger.step(f"{own}.library", expected="the daemon's memory map", advice=_SAYS):
                    ledger.record(f"{own}.library", self._library(running, service.library))

    @contextlib.contextmanager
    def _running(self, service: Service, stage: str) -> Iterator[Running]:
        examiner = self.examiner
        folder = examiner.workspace / f"service-{service.id}-{stage}"
        folder.mkdir(mode=0o755, parents=True)
        leaf = examiner.authority.issue([HOST])
        authority = examiner.authority
        contents = {"chain": authority.chain(leaf), "key": leaf.key_pem, "root": authority.root.pem}
        binds = [Bind(host=folder / "tls", inside=FILES)]
        (folder / "tls").mkdir(mode=0o755)
        for name, content in contents.items():
            # Daemons read the key as users of their own; it vouches for nothing outside this test.
            write_atomically(folder / "tls" / f"{name}.pem", content, mode=0o644)
        for number, (path, text) in enumerate(service.files.items()):
            write_atomically(folder / str(number), _filled(text, service), mode=0o644)
            binds.append(Bind(host=folder / str(number), inside=path))
        log = examiner.workspace / f"service-{service.id}-{stage}.log"
        # By the shell, so that a program that is missing is the daemon's failure and not the sandbox's.
        argv = ["/bin/sh", "-c", 'exec "$@"', "sh", *(_filled(word, service) for word in service.run)]
        command = run.Command(argv, timeout=START_TIMEOUT, log=log)
        with started(examiner.root, command, binds=binds) as (daemon, network):
            running = Running(root=examiner.root, daemon=daemon, network=network, port=service.port)
            running.wait_until_listening(service.id)
            yield running

    def _answer(self, service: Service, stage: str, wanted: Answer, running: Running) -> Finding:
        transcript, heading = Transcript(), f"{service.id} {_WHEN[stage]}"
        try:
            session, said = self._talk(service, wanted, running, transcript)
        except WireError as problem:
            said = running.daemon.log.read_text("utf-8", "replace")
            self.examiner.headline[heading] = problem.message
            return Finding.unless(
                [problem.message],
                expected=_words(wanted),
                found="",
                evidence=said.splitlines()[-20:],
                advice=_SAYS,
            )
        finally:
            self.examiner.keep(heading, transcript)
        negotiated = (session.protocol, session.cipher) if session else (None, None)
        found = " ".join(filter(None, negotiated)) + (f" {said.splitlines()[0]!r}" if said else "")
        self.examiner.headline[heading] = found.strip()
        return Finding.judged(
            good=negotiated[0] == wanted.protocol
            and wanted.cipher in {None, negotiated[1]}
            and found_in(said, wanted.banner, what=f"what {service.id} says"),
            expected=_words(wanted),
            found=found.strip() or "nothing was said",
            evidence=said,
            advice=f"Correct the recipe's service.{stage}, or find out why {service.id} answers otherwise.",
        )

    def _talk(
        self, service: Service, wanted: Answer, running: Running, transcript: Transcript
    ) -> tuple[Session | None, str]:
        """What is negotiated, and said. Raises WireError."""
        offer = Offer(servername=HOST)
        if service.ask == "starttls-smtp":
            talk = converse(
                running.dial, offer, helo=f"client.{HOST}", transcript=transcript, timeout=ANSWER_TIMEOUT
            )
            return talk.session, str(talk.banner)
        deadline = Deadline(ANSWER_TIMEOUT)
        with Wire(running.dial(deadline), deadline) as wire:
            transcript.note("Connected to server")
            session = wire.start_tls(offer) if service.ask == "tls" else None
            if session:
                transcript.note(f"TLS: {session.protocol} {session.cipher}")
            if service.say:
                wire.send(service.say.encode())
                transcript.sent(service.say.splitlines()[0])
            said = _said(wire, wanted.banner) if wanted.banner else ""
            transcript.received(said.splitlines() or [""])
            return session, said

    def _library(self, running: Running, name: str) -> Finding:
        """Whether what is mapped of a package's files is on disk, and the candidate's."""
        mapped = [one for one in inside.mapped_files(running.maps(), "lib") if ".so" in one.path]
        owned = [(one, owner) for one in mapped if (owner := self.examiner.root.owner_of(one.path))]
        of_it = [(one, owner) for one, owner in owned if owner.name == name]
        candidate = self.examiner.candidate_of(name)
        return Finding.judged(
            good=bool(of_it) and all(owner == candidate and not one.deleted for one, owner in of_it),
            expected=str(candidate or f"a {name} in the candidate repository"),
            found=", ".join(sorted({str(owner) for _, owner in of_it})) or f"no library of {name} is mapped",
            evidence="\n".join(one.path for one in mapped),
            advice=f"See by `ldd` which libraries it takes, and by `dnf update {name}` which it should.",
        )


def _said(wire: Wire, pattern: str) -> str:
    """What a service says, until the pattern is found in it, it ends, or goes silent. Raises WireError."""
    said = b""
    while len(said) < _BANNER:
        try:
            received = wire.receive()
        except NoAnswer:
            if not said:
                raise
            break
        said = (said + received)[:_BANNER]
        text = said.decode("utf-8", "replace")
        if not received or found_in(text, pattern, what="what the service says"):
            break
    return said.decode("utf-8", "replace")


def _filled(text: str, service: Service) -> str:
    """A text of the recipe with what only the self-test knows in the place of its names."""
    known = {name: f"{FILES}/{name}.pem" for name in ("chain", "key", "root")} | {
        "host": HOST,
        "port": str(service.port),
    }
    for name, value in known.items():
        text = text.replace(f"@{name.upper()}@", value)
    return text


def _ids(service: Service, stage: str) -> str:
    return f"service.{service.id}.{stage}"


def _plan(service: Service, stage: str) -> dict[str, str]:
    own, when = _ids(service, stage), _WHEN[stage]
    planned = {
        f"{own}.start": f"{service.id} starts {when}",
        f"{own}.answer": f"what {service.id} answers {when}",
    }
    if stage == "after" and service.library:
        planned[f"{own}.library"] = f"{service.id} has mapped the candidate's {service.library}"
    return planned


def _words(wanted: Answer) -> str:
    """What is expected, in a few words."""
    banner = f"what matches {wanted.banner}" if wanted.banner else ""
    return " ".join(filter(None, (wanted.protocol, wanted.cipher, banner)))
