"""What is asked after the default client, one connection each, in which a TLS library speaks.

`backport.probe.legacy` has the questions that no library can ask any more. One connection may answer
several questions, and may leave some open: then others follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from backport.artifacts import Finding, Verdict
from backport.probe import transport
from backport.probe.hello import Hello
from backport.probe.ledger import Ledger
from backport.probe.smtp import Contact, Stage
from backport.probe.tls import Offer, Session
from backport.probe.transport import BEST, SUITES, Expectation

ODD_GROUPS = (
    "?MLKEM512:?brainpoolP512r1tls13:X25519:P-256:P-384",
    "brainpoolP512r1tls13:X25519:P-256:P-384",
)
"""A group that servers do not have by default, then what every server has; the first list is for OpenSSL
since 3.5, the second for those before."""
SMALL_GROUPS = ("X25519:P-256:P-384",)
"""Groups whose key share leaves the ClientHello in one packet."""
LENIENT = Offer(oldest="TLSv1", ciphers="ALL:@SECLEVEL=0", groups=SMALL_GROUPS)
"""Whatever the client's library can do at all: TLS 1.0, small keys, small groups."""

ORDER = "transport.cipher-order"
RETRY = "transport.hello-retry"
INJECTION = "transport.injection"
RESUMPTION = "transport.resumption"
GROUP = "transport.key-exchange"
LARGE = "transport.large-hello"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One connection: what the client offers, and the checks that its outcome is judged as.

    ``judge`` gives the questions that it leaves open; ``more`` is how many connections they may take.
    """

    title: str
    checks: tuple[str, ...]
    judge: Callable[[Ledger, Contact], Sequence[Question] | None]
    offer: Offer | None = None
    hello: Hello | None = None
    injects: bool = False
    more: int = 0


def titles(*, direct_tls: bool) -> dict[str, str]:
    """Every check that these questions answer, id to title."""
    return {
        ORDER: "suite of a client that lists AES_128 first",
        RETRY: "a client whose first key share is not taken",
        LARGE: "a ClientHello of two packets is taken",
        **({} if direct_tls else {INJECTION: "a command smuggled behind STARTTLS"}),
        RESUMPTION: "a client that comes back with its session",
        **{suite_id(suite): f"a client that has {suite} alone" for suite in SUITES},
    }


def suite_id(suite: str) -> str:
    """The id of the check of one suite alone, such as ``transport.suite-tls_aes_256_gcm_sha384``."""
    return f"transport.suite-{suite.lower()}"


def later_questions(ledger: Ledger, first: Contact, expectation: Expectation) -> Iterator[Question]:
    """What is asked where connections are left, the most telling first."""
    session = first.session
    modern = session is not None and session.protocol == BEST
    if modern:
        yield _order_and_retry(expectation)
    else:
        found = session.protocol if session else "the handshake failed"
        for check_id in (ORDER, RETRY, *map(suite_id, SUITES)):
            ledger.record(check_id, Finding.skipped(f"a matter of {BEST} alone: {found}"))
    if session and first.resumable:
        yield _resumption(first, session)
    else:
        ledger.record(RESUMPTION, Finding.skipped("there is no session to come back with"))
    if modern:
        yield from (_suite_alone(suite, expectation) for suite in SUITES)


def _order_and_retry(expectation: Expectation) -> Question:
    def judge(ledger: Ledger, contact: Contact) -> None:
        retried = transport.hello_retry(contact)
        ledger.record(RETRY, retried)
        failed = retried.verdict in {Verdict.FAIL, Verdict.ERROR}
        order = Finding.skipped(f"{RETRY}: {retried.found}") if failed else None
        ledger.record(ORDER, order or transport.cipher_order(contact, expectation))

    return Question(
        title="a client that lists AES_128 first, and a key share first that servers do not take",
        checks=(ORDER, RETRY),
        offer=Offer(suites=":".join(reversed(SUITES)), groups=ODD_GROUPS),
        judge=judge,
    )


def odd_injection(expectation: Expectation) -> Question:
    """Smuggling by the client that `_order_and_retry` is about: where it goes well, it answers both.

    Where it does not, each is asked by itself: a failure could be for either.
    """
    alone = _order_and_retry(expectation)

    def judge(ledger: Ledger, contact: Contact) -> Sequence[Question]:
        if contact.session is None and contact.stage is not Stage.ACCEPTED:
            return (injection(Offer()),)
        ledger.record(INJECTION, transport.injection(contact))
        return alone.judge(ledger, contact) or () if contact.session else ()

    return replace(
        alone,
        title=f"{alone.title}, and sends NOOP in the same write as STARTTLS",
        checks=(INJECTION,),
        judge=judge,
        injects=True,
        more=1,
    )


def injection(offer: Offer) -> Question:
    """``offer`` is one that works where nothing is smuggled."""
    return Question(
        title="a client that sends NOOP in the same write as STARTTLS",
        checks=(INJECTION,),
        offer=offer,
        judge=lambda ledger, contact: ledger.record(INJECTION, transport.injection(contact)),
        injects=True,
    )


def small_hello(first: Contact) -> Question:
    """Where the default client got no session: is it for the size of its ClientHello?"""
    return Question(
        title="a client whose ClientHello is small",
        checks=(LARGE,),
        offer=Offer(groups=SMALL_GROUPS),
        judge=lambda ledger, contact: ledger.record(LARGE, transport.large_hello_breaks(first, contact)),
    )


def _resumption(first: Contact, session: Session) -> Question:
    return Question(
        title="a client that comes back with its session",
        checks=(RESUMPTION,),
        offer=Offer(resume=first.resumable),
        judge=lambda ledger, contact: ledger.record(RESUMPTION, transport.resumption(contact, session)),
    )


def _suite_alone(suite: str, expectation: Expectation) -> Question:
    check_id = suite_id(suite)
    return Question(
        title=f"a client that has {suite} alone",
        checks=(check_id,),
        offer=Offer(suites=suite, oldest=BEST),
        judge=lambda ledger, contact: ledger.record(
            check_id, transport.suite_alone(contact, suite, expectation)
        ),
    )
