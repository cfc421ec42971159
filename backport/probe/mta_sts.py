"""MTA-STS (RFC 8461) and TLS-RPT (RFC 8460): a domain's records and policy, judged as senders read them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from backport.artifacts import Finding, Verdict
from backport.probe.addresses import Place, is_global
from backport.probe.certificate_checks import judge_chain
from backport.probe.errors import Deadline, WireError
from backport.probe.resolver import Answer, State, texts
from backport.probe.tls import Offer
from backport.probe.transcript import printable
from backport.probe.web import exchange
from backport.probe.wire import Wire

SIZE_LIMIT = 64 * 1024
"""Octets of a policy (RFC 8461 section 3.3)."""
TIMEOUT = 20.0
"""Seconds for fetching it; a sender waits a minute at most (RFC 8461 section 3.3)."""
MOST_AGE = 31_557_600
"""Seconds that a policy may hold at most (RFC 8461 section 3.2)."""
SHORT_AGE = 86_400
PATTERNS = 100
"""How many of a policy's patterns are looked at."""

_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_FIELD = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(?P<value>[\x21-\x3a\x3c\x3e-\x7e]+)")
_PATTERN = re.compile(r"(\*\.)?[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+", re.IGNORECASE)
_NO_POLICY = "senders take the domain to have no policy"
_RECORD = "one record, v=STSv1 with an id"
_POLICY = "a policy that senders can read"


class Mode(StrEnum):
    """What a policy asks of a sender (RFC 8461 section 5)."""

    ENFORCE = "enforce"
    TESTING = "testing"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy as it was read; ``notes`` is what is odd in it."""

    mode: Mode
    max_age: int
    patterns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def covers(self, host: str) -> bool:
        """Whether the host is among its mail exchangers; ``*`` is one label (RFC 8461 section 4.1)."""
        wanted = {host.lower(), f"*.{host.lower().partition('.')[2]}"}
        return not wanted.isdisjoint(self.patterns)


def judge_record(answer: Answer) -> Finding:
    """The record `_mta-sts.DOMAIN` (RFC 8461 section 3.1)."""
    if answer.state is State.FAILED:
        return _bad(_RECORD, f"{answer.words}: {_NO_POLICY}", "Mend the domain's zone.")
    found = [one for one in texts(answer) if re.match(r"v=STSv1\s*(;|$)", one)]
    if not found:
        return Finding.skipped("none: senders that honour MTA-STS encrypt where they can")
    advice = f"Publish one TXT record at {answer.name}, such as `v=STSv1; id=20260101T000000;`."
    if len(found) > 1:
        return _bad(_RECORD, f"{len(found)} records: {_NO_POLICY} (RFC 8461 section 3.1)", advice)
    fields = _fields(found[0])
    values = [value for name, value in fields or () if name == "id"]
    if fields is None or len(values) != 1 or not _ID.fullmatch(values[0]):
        return _bad(_RECORD, f"{printable(found[0], 120)}: {_NO_POLICY} (RFC 8461 section 3.1)", advice)
    return Finding(verdict=Verdict.PASS, expected=_RECORD, found=found[0])


def _fields(record: str) -> list[tuple[str, str]] | None:
    """The fields behind the version, by the grammar of RFC 8461 section 3.1; None where it is not kept."""
    parts = [part.strip(" \t") for part in record.split(";")[1:]]
    if parts and not parts[-1]:
        parts.pop()
    matches = [_FIELD.fullmatch(part) for part in parts]
    return [(one["name"], one["value"]) for one in matches if one] if all(matches) and parts else None


def fetch(
    domain: str, addresses: Sequence[tuple[int, str]], offer: Offer, *, private: bool
) -> tuple[Policy | None, Finding]:
    """The policy from `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 section 3.3), judged.

    ``offer`` names the trust. ``private`` lets it connect to addresses that the Internet does not know.
    """
    host = f"mta-sts.{domain}"
    advice = f"Serve it at https://{host}/.well-known/mta-sts.txt, with a certificate for that name."
    allowed = [one for one in addresses if private or is_global(one[1])]
    if not allowed:
        what = "all its addresses are inside a private network" if addresses else "it has no address"
        return None, _unfetched(f"{host}: {what}", advice)
    deadline = Deadline(TIMEOUT)
    try:
        with Wire(Place(host, 443, found=tuple(allowed))(deadline), deadline) as wire:
            session = wire.start_tls(replace(offer, servername=host))
            wrong = (
                {
                    name.removeprefix("certificate."): one.found
                    for name, one in judge_chain(session, host, dt.datetime.now(dt.UTC)).items()
                    if one.verdict is Verdict.FAIL and not name.endswith(("order", "signature", "key"))
                }
                if session.chain
                else {"certificate": "it cannot be read"}
            )
            if wrong:
                words = "; ".join(f"{name}: {found}" for name, found in wrong.items())
                return None, _unfetched(f"the certificate of {host} is not valid: {words}", advice)
            response, body = exchange(wire, host, "/.well-known/mta-sts.txt", limit=SIZE_LIMIT)
    except WireError as problem:
        return None, _unfetched(f"{host}: {problem.message}", advice)
    if response.status != 200:
        led = " (a redirection is not followed)" if 300 <= response.status < 400 else ""
        return None, _unfetched(f"{host} answers {response.status}{led}", advice)
    return _judged(body, response.getheader("Content-Type") or "")


def _judged(body: bytes, content_type: str) -> tuple[Policy | None, Finding]:
    try:
        policy = read_policy(body)
    except ValueError as problem:
        return None, _unfetched(str(problem), "Correct the policy's text (RFC 8461 section 3.2).")
    notes = list(policy.notes)
    if content_type.partition(";")[0].strip().lower() != "text/plain":
        notes.append(f"it comes as {content_type or 'nothing'}, which senders may refuse: text/plain is due")
    if policy.max_age < SHORT_AGE and policy.mode is not Mode.NONE:
        notes.append(f"max_age {policy.max_age} is less than a day: weeks are due")
    listed = ", ".join(policy.patterns) or "no mx"
    return policy, Finding(
        verdict=Verdict.WARN if notes else Verdict.PASS,
        expected=_POLICY,
        found="; ".join([f"mode {policy.mode}, max_age {policy.max_age}, {listed}", *notes]),
        advice="Correct the policy as RFC 8461 sections 3.2 and 3.3 have it.",
    )


def read_policy(body: bytes) -> Policy:
    r"""A policy's text (RFC 8461 section 3.2). Raises ValueError, with the reason in words.

    >>> read_policy(b"version: STSv1\nmode: testing\nmx: *.example.org\nmax_age: 604800\n").patterns
    ('*.example.org',)
    """
    found, patterns, notes = _lines_of(body)
    mode, age = found.get("mode", ""), found.get("max_age", "")
    if found.get("version") != "STSv1":
        raise ValueError("the policy has no `version: STSv1`")
    if mode not in list(Mode):
        raise ValueError(f"the policy's mode is {mode[:40]!r}, not enforce, testing or none")
    if not re.fullmatch(r"[0-9]{1,10}", age) or int(age) > MOST_AGE:
        raise ValueError(f"the policy's max_age is {age[:40]!r}, not a number up to {MOST_AGE}")
    if mode != Mode.NONE and not patterns:
        raise ValueError("the policy names no mx, which its mode demands")
    odd = [one for one in patterns[:PATTERNS] if not _PATTERN.fullmatch(one)]
    notes += [f"mx {one[:80]!r} is no name, nor *. and a name" for one in odd]
    if len(patterns) > PATTERNS:
        notes.append(f"{len(patterns)} mx: the first {PATTERNS} are looked at")
    return Policy(mode=Mode(mode), max_age=int(age), patterns=tuple(patterns[:PATTERNS]), notes=tuple(notes))


def _lines_of(body: bytes) -> tuple[dict[str, str], list[str], list[str]]:
    """A policy's fields, its mail exchangers, and what is odd. Raises ValueError."""
    try:
        lines = body.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError("the policy is no text in UTF-8") from None
    found: dict[str, str] = {}
    patterns: list[str] = []
    notes: list[str] = []
    for line in filter(str.strip, lines):
        name, colon, value = (part.strip(" \t") for part in line.partition(":"))
        if not colon:
            notes.append(f"the line {line[:40]!r} is no field")
        elif name == "mx":
            patterns.append(value.lower())
        elif name in found:
            notes.append(f"{name[:32]} comes twice: the first counts")
        else:
            found[name] = value
    return found, patterns, notes


def coverage(policy: Policy, hosts: Sequence[str]) -> Finding:
    """The policy's patterns against the domain's mail exchangers, both ways."""
    left_out = [host for host in hosts if not policy.covers(host)]
    idle = [
        one
        for one in policy.patterns
        if not any(replace(policy, patterns=(one,)).covers(host) for host in hosts)
    ]
    refused = f"a sender that honours MTA-STS refuses {', '.join(left_out)} (RFC 8461 section 4.1)"
    words = [refused] if left_out else []
    words += [f"no MX fits {', '.join(idle)}"] if idle else []
    hard = bool(left_out) and policy.mode is Mode.ENFORCE
    return Finding(
        verdict=Verdict.FAIL if hard else Verdict.WARN if words else Verdict.PASS,
        expected="every MX is in the policy",
        found="; ".join(words) or f"{len(hosts)} of {len(hosts)}",
        advice="Add these hosts to the policy, then change the record's id."
        if left_out
        else "Take out what is gone, once no sender's copy of the policy needs it.",
    )


def delivery(policy: Policy, host: str, wrong: str) -> Finding:
    """Whether a sender that honours the policy delivers to a server; ``wrong`` is what its TLS lacks."""
    problems = [
        *([] if policy.covers(host) else ["its name is not in the policy"]),
        *([wrong] if wrong else []),
    ]
    does = "refuses this MX" if policy.mode is Mode.ENFORCE else "delivers, and reports a failure"
    otherwise = Verdict.FAIL if policy.mode is Mode.ENFORCE else Verdict.WARN
    return Finding(
        verdict=otherwise if problems else Verdict.PASS,
        expected="in the policy, with a trusted certificate for its name",
        found=f"a sender that honours MTA-STS {does}: {'; '.join(problems)} (RFC 8461 section 4)"
        if problems
        else f"a sender that honours MTA-STS delivers ({policy.mode})",
        advice="Add the host to the policy, and have a public authority issue a certificate for its name.",
    )


def judge_reporting(answer: Answer, *, wanted: bool) -> Finding:
    """The record `_smtp._tls.DOMAIN` (RFC 8460 section 3); ``wanted`` where DANE or MTA-STS is in force."""
    expected = "one record, v=TLSRPTv1 with rua"
    advice = f"Publish one TXT record at {answer.name}: `v=TLSRPTv1; rua=mailto:tls@example.org`."
    if answer.state is State.FAILED:
        return _bad(expected, answer.words, "Mend the domain's zone.")
    found = [one for one in texts(answer) if re.match(r"v=TLSRPTv1\s*(;|$)", one)]
    if not found:
        return (
            Finding(
                verdict=Verdict.WARN,
                expected=expected,
                found="none: nobody is told of mail that senders hold back",
                advice=advice,
            )
            if wanted
            else Finding.skipped("none, and no policy that senders could report about")
        )
    problem = f"{len(found)} records" if len(found) > 1 else _reporting_problem(found[0])
    if problem:
        return _bad(expected, f"{problem}: senders do not report (RFC 8460 section 3)", advice)
    return Finding(verdict=Verdict.PASS, expected=expected, found=found[0])


def _reporting_problem(record: str) -> str:
    parts = [part.strip(" \t") for part in record.split(";")[1:]]
    places = [part.partition("=")[2] for part in parts if part.partition("=")[0].strip() == "rua"]
    if len(places) != 1:
        return "no rua" if not places else "rua comes twice"
    for uri in map(str.strip, places[0].split(",")):
        try:
            scheme, rest = urlsplit(uri).scheme, uri.partition(":")[2]
        except ValueError:
            scheme, rest = "", ""
        good = "@" in rest if scheme == "mailto" else scheme == "https" and rest.startswith("//")
        if not good or "!" in uri:
            return f"{uri[:80]!r} is neither mailto: nor https:"
    return ""


def _unfetched(found: str, advice: str) -> Finding:
    return _bad(_POLICY, f"{found}: {_NO_POLICY}, or go by an old copy (RFC 8461 section 3.3)", advice)


def _bad(expected: str, found: str, advice: str) -> Finding:
    return Finding(verdict=Verdict.FAIL, expected=expected, found=found, advice=advice)
