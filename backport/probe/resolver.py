"""Questions to one resolver of the DNS, each bounded in time and size, and what its answers are worth.

That an answer is signed is the resolver's word (the AD bit, RFC 4035 section 3.2.3). It is believed of a
resolver on this host, or of one that was named, and only where it validates at all (RFC 7672 section 2.1.1).
"""

from __future__ import annotations

import ipaddress
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode

from backport.probe.transcript import printable

TIMEOUT = 5.0
"""Seconds for one question, by UDP and, where the answer is cut short, TCP."""
TRIES = 2
RECORDS = 100
"""How many records of an answer are looked at; a message has 64 KiB at most."""
QUESTIONS = 400
"""How many questions an examination may ask."""
_PAYLOAD = 1232
"""Octets of a UDP answer that no way has to cut in pieces (DNS flag day 2020)."""
_UNREADABLE = "the answer cannot be read"
_CONFIGURATION = Path("/etc/resolv.conf")


class State(Enum):
    """What came back to a question."""

    FOUND = auto()
    EMPTY = auto()
    """The name has no such record."""
    NO_NAME = auto()
    """The name does not exist (NXDOMAIN)."""
    FAILED = auto()
    """Nothing that can be used."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a resolver says of one name and type."""

    name: str
    state: State
    records: tuple[Any, ...] = ()
    """dnspython's records, RECORDS at most."""
    count: int = 0
    """How many there are."""
    secure: bool = False
    """Whether a resolver that is believed has verified the answer's signatures, or those of its absence."""
    bogus: bool = False
    """Whether its signatures do not verify."""
    alias: str = ""
    """The name that CNAMEs lead to, where there are any."""
    malformed: bool = False
    """Whether an answer came that cannot be read."""
    words: str = ""
    """Why it failed."""


class Resolver:
    """A resolver at ``address`` and ``port``; ``named`` says whether the caller chose it himself.

    Thread-safe: every question is asked once.
    """

    def __init__(self, address: str, port: int = 53, *, named: bool = False) -> None:
        self.address, self.port = address, port
        self.believed = named or ipaddress.ip_address(address).is_loopback
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], Future[Answer]] = {}
        self._pool = ThreadPoolExecutor(max_workers=16)

    @classmethod
    def of_system(cls) -> Resolver:
        """The first one of /etc/resolv.conf, else one on this host (resolv.conf(5))."""
        try:
            lines = _CONFIGURATION.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for words in map(str.split, lines):
            if words[:1] == ["nameserver"] and len(words) > 1:
                try:
                    return cls(str(ipaddress.ip_address(words[1])))
                except ValueError:
                    continue
        return cls("127.0.0.1")

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @cached_property
    def distrust(self) -> str:
        """Why nothing that it says counts as signed; empty where it does."""
        if not self.believed:
            return (
                f"the resolver {self} is not on this host: whoever is on the way can set the AD bit; a "
                "validating resolver that is reached safely is named by --resolver"
            )
        if not self.ask(".", "SOA").secure:
            return f"the resolver {self} does not validate DNSSEC: its answer about the root has no AD bit"
        return ""

    def ask(self, name: str, kind: str) -> Answer:
        """What it says of a name and a type of record, such as ``MX``. Nothing is raised."""
        return self.begin(name, kind).result()

    def begin(self, name: str, kind: str) -> Future[Answer]:
        """The same, without waiting."""
        with self._lock:
            known = self._asked.get((name, kind))
            if known is None:
                known = self._asked[name, kind] = (
                    self._pool.submit(self._answer, name, kind)
                    if len(self._asked) < QUESTIONS
                    else _settled(_failed(name, f"not asked: more than {QUESTIONS} questions"))
                )
            return known

    def _answer(self, name: str, kind: str) -> Answer:
        response = self._exchange(name, kind)
        if isinstance(response, str):
            return Answer(
                name=name, state=State.FAILED, words=response, malformed=response.startswith(_UNREADABLE)
            )
        if response.rcode() == dns.rcode.SERVFAIL:
            # Where it can answer without validation, the signatures are wrong (RFC 4035 section 3.2.2).
            unchecked = self._exchange(name, kind, unchecked=True)
            if not isinstance(unchecked, str) and unchecked.rcode() in {
                dns.rcode.NOERROR,
                dns.rcode.NXDOMAIN,
            }:
                return _failed(name, "its DNSSEC signatures do not verify (bogus)", bogus=True)
        if response.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
            return _failed(name, f"the resolver answers {dns.rcode.to_text(response.rcode())}")
        return self._read(name, response)

    def _read(self, name: str, response: dns.message.QueryMessage) -> Answer:
        try:
            chain = response.resolve_chaining()
        except dns.exception.DNSException as problem:
            return _failed(name, f"its CNAMEs lead to no end: {_words(problem)}")
        records = tuple(chain.answer or ())
        gone = response.rcode() == dns.rcode.NXDOMAIN
        return Answer(
            name=name,
            state=State.FOUND if records else State.NO_NAME if gone else State.EMPTY,
            records=records[:RECORDS],
            count=len(records),
            secure=self.believed and bool(response.flags & dns.flags.AD),
            alias=text_of(chain.canonical_name) if chain.cnames else "",
        )

    def _exchange(self, name: str, kind: str, *, unchecked: bool = False) -> dns.message.QueryMessage | str:
        """The response, or why there is none."""
        problem = "no answer"
        for _ in range(TRIES):
            try:
                query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD)
                query.flags |= dns.flags.AD | (dns.flags.CD if unchecked else 0)
                response, _ = dns.query.udp_with_fallback(
                    query, self.address, timeout=TIMEOUT, port=self.port, ignore_unexpected=True
                )
            except dns.exception.Timeout:
                problem = f"the resolver {self} does not answer within {TIMEOUT:g} s"
            except OSError as trouble:
                problem = f"the resolver {self} cannot be asked: {trouble.strerror or type(trouble).__name__}"
            except Exception as trouble:  # noqa: BLE001  # a hostile answer may make the parser raise anything
                problem = f"{_UNREADABLE}: {_words(trouble)}"
            else:
                if isinstance(response, dns.message.QueryMessage):
                    return response
                problem = "the answer is to no question"
        return problem


def text_of(name: Any) -> str:
    r"""A name of the DNS in lower case, without its final dot; what is odd in it is escaped (RFC 4343)."""
    return str(name.to_text(omit_final_dot=True)).lower()


def texts(answer: Answer) -> list[str]:
    """The strings of TXT records, each record's joined; octets that are not ASCII come escaped."""
    return [b"".join(record.strings).decode("ascii", "backslashreplace") for record in answer.records]


def _failed(name: str, words: str, *, bogus: bool = False) -> Answer:
    return Answer(name=name, state=State.FAILED, words=words, bogus=bogus)


def _settled(answer: Answer) -> Future[Answer]:
    done: Future[Answer] = Future()
    done.set_result(answer)
    return done


def _words(problem: Exception) -> str:
    return printable(str(problem) or type(problem).__name__, 120)
