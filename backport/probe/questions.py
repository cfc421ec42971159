"""What is asked after the default client, one connection each, the most telling first.

One connection may answer several questions: a server that takes no version of an old client's range
refuses each of them, and who decides about suites is seen as well after a HelloRetryRequest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from backport.artifacts import Verdict
from backport.probe import transport
from backport.probe.ledger import Finding, Ledger
from backport.probe.smtp import Contact
from backport.probe.tls import Offer, Session
from backport.probe.transport import BEST, OLD_PROTOCOLS, SUITES, Expectation

OLDER = "TLSv1.2"
ODD_GROUPS = (
    "?MLKEM512:?brainpoolP512r1tls13:X25519:P-256:P-384",
    "brainpoolP512r1tls13:X25519:P-256:P-384",
)
"""A group that servers do not have by default, then what every server has; the first list is for OpenSSL
since 3.5, the second for those before."""

ORDER = "transport.cipher-order"
RETRY = "transport.hello-retry"
SERVES = f"transport.serves-{OLDER.lower()}"
INJECTION = "transport.injection"
RESUMPTION = "transport.resumption"


@dataclass(frozen=True, kw_only=True)
class Question:
    """One connection: what the client offers, and the checks that its outcome is judged as."""

    title: str
    checks: tuple[str, ...]
    offer: Offer
    judge: Callable[[Ledger, Contact], None]
    injects: bool = False


def titles(*, direct_tls: bool) -> dict[str, str]:
    """Every check that these questions answer, id to title."""
    return {
        ORDER: "suite of a client that lists AES_128 first",
        RETRY: "a client whose first key share is not taken",
        **{transport.refusal_id(version): f"{version} is refused" for version in OLD_PROTOCOLS},
        SERVES: f"a client that has no more than {OLDER} is served",
        **({} if direct_tls else {INJECTION: "a command smuggled behind STARTTLS"}),
        RESUMPTION: "a client that comes back with its session",
        **{suite_id(suite): f"a client that has {suite} alone" for suite in SUITES},
    }


def suite_id(suite: str) -> str:
    """The id of the check of one suite alone, such as ``transport.suite-tls_aes_256_gcm_sha384``."""
    return f"transport.suite-{suite.lower()}"


def questions(
    ledger: Ledger, first: Contact, expectation: Expectation, *, direct_tls: bool
) -> Iterator[Question]:
    """What is left to ask after the first contact; what that answered already is recorded."""
    session = first.session
    modern = session is not None and session.protocol == BEST
    if modern:
        yield _order_and_retry(expectation)
    else:
        found = session.protocol if session else "the handshake failed"
        for check_id in (ORDER, RETRY, *map(suite_id, SUITES)):
            ledger.record(check_id, Finding.skipped(f"a matter of {BEST} alone: {found}"))
    yield _old_protocols()
    if session and session.protocol == OLDER:
        ledger.record(SERVES, transport.still_serves(first, OLDER))
    else:
        yield _older()
    if not direct_tls:
        yield _injection()
    if session and first.resumable:
        yield _resumption(first, session)
    else:
        ledger.record(RESUMPTION, Finding.skipped("there is no session to come back with"))
    if modern:
        yield from (_suite_alone(suite, expectation) for suite in SUITES)
    yield _oldest_alone(OLD_PROTOCOLS[0])


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


def _old_protocols() -> Question:
    return Question(
        title=f"a client that offers {' and '.join(OLD_PROTOCOLS)} alone",
        checks=tuple(map(transport.refusal_id, OLD_PROTOCOLS)),
        offer=Offer.only(OLD_PROTOCOLS[-1], oldest=OLD_PROTOCOLS[0]),
        judge=transport.refuses_old,
    )


def _oldest_alone(version: str) -> Question:
    """What the question about all old versions leaves open, for where there is a connection more."""
    check_id = transport.refusal_id(version)
    return Question(
        title=f"a client that offers {version} alone",
        checks=(check_id,),
        offer=Offer.only(version),
        judge=lambda ledger, contact: ledger.record(check_id, transport.refuses_alone(contact)),
    )


def _older() -> Question:
    return Question(
        title=f"a client that offers {OLDER} alone",
        checks=(SERVES,),
        offer=Offer(newest=OLDER),
        judge=lambda ledger, contact: ledger.record(SERVES, transport.still_serves(contact, OLDER)),
    )


def _injection() -> Question:
    return Question(
        title="a client that sends NOOP in the same write as STARTTLS",
        checks=(INJECTION,),
        offer=Offer(),
        judge=lambda ledger, contact: ledger.record(INJECTION, transport.injection(contact)),
        injects=True,
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
