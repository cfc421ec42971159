"""A page as a busy target has it, and the same with text that wants to be more than text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from backport.artifacts import Check, Verdict
from backport.repository.advisories import Advisory, Reference
from backport.repository.builds import Build
from backport.repository.page import Event, Notice, Page, Tests

NOW = datetime(2026, 11, 24, 4, 10, tzinfo=UTC)
NASTY = "</code></td><script>alert(1)</script>\" onload='x'"
LONG = "x" * 300


def example() -> Page:
    """Two builds, an advisory, a self-test and three changes."""
    return Page(
        target="f28", summary="Fedora 28", base_url="https://repo.example.org/backports/f28",
        fingerprint="0123456789ABCDEF0123456789ABCDEF01234567", public_key="RPM-GPG-KEY-backport",
        generation="20261124T041000Z-0123456789ab", made=NOW,
        builds=BUILDS,
        notices=(Notice(time=NOW, title="Withdrawn: nginx 1-1", text="Hosts: dnf distro-sync nginx"),),
        tests=(
            Tests(
                recipe="openssl", checks=_CHECKS, tested=NOW,
                headline=(
                    "before: TLSv1.2, ECDHE-RSA-AES256-GCM-SHA384", "after: TLSv1.3, TLS_AES_256_GCM_SHA384"
                ),
                transcript="S: 220 mail.example.org ESMTP Exim 4.90_1\nC: EHLO client\nS: 250 STARTTLS\n",
            ),
            Tests(recipe="hello", checks=_CHECKS[:1], tested=NOW, transcript="S: hello\n"),
        ),
        advisories=(_ADVISORY,),
        history=(
            Event(time=NOW, action="publish", generation="20261124T041000Z-0123456789ab"),
            Event(
                time=NOW - timedelta(days=2), action="rollback", generation="20261122T041000Z-aaaaaaaaaaaa"
            ),
            Event(
                time=NOW - timedelta(days=3), action="publish", generation="20261121T041000Z-bbbbbbbbbbbb"
            ),
        ),
        evidence=(
            ("provenance.json", "Provenance, in-toto and SLSA"),
            ("test-results.json", "Test results, in-toto"),
            ("sbom.cdx.json", "Bill of materials, CycloneDX"),
        ),
    )  # fmt: skip


def hostile(text: str = NASTY) -> Page:
    """The example with the same text wherever text comes from elsewhere."""
    page = example()
    reference = Reference(kind="other", id=text, url=f"javascript:alert(1)//{text}")
    return replace(
        page, summary=text, base_url=text, public_key=text,
        notices=(Notice(time=NOW, title=text, text=text),),
        tests=tuple(
            replace(
                one, recipe=text, headline=(text, text), transcript=text * 3,
                checks=tuple(
                    replace(check, id=text, title=text, found=text, advice=text) for check in one.checks
                ),
            )
            for one in page.tests
        ),
        builds=tuple(
            replace(one, name=text, evr=text, origin=text, source=text, packages=((text, text),))
            for one in BUILDS
        ),
        advisories=(
            replace(_ADVISORY, id=text, title=text, description=text, references=(reference,)),
            replace(_ADVISORY, references=(replace(reference, url=f"https://example.org/{text}"),)),
        ),
        history=tuple(replace(event, action=text, generation=text) for event in page.history),
        evidence=((text, text),),
    )  # fmt: skip


def _build(name: str, evr: str, origin: str, packages: tuple[str, ...]) -> Build:
    return Build(
        name=name, evr=evr, origin=origin, source=f"source/{name}.src.rpm",
        packages=tuple((f"x86_64/{package}.rpm", package) for package in packages),
    )  # fmt: skip


BUILDS = (
    _build(
        "crypto-policies", "20181026-1.gitd42aaa6.fc28.bp1",
        "crypto-policies-20181026-1.gitd42aaa6.fc29", ("crypto-policies",),
    ),
    replace(
        _build(
            "openssl", "1:1.1.1a-1.fc28.bp1", "openssl-1.1.1a-1.fc29",
            ("openssl", "openssl-devel", "openssl-libs", "openssl-perl", "openssl-static"),
        ),
        debug=7,
    ),
)  # fmt: skip
_CHECKS = (
    Check(
        id="starttls.after", title="A STARTTLS handshake negotiates TLS 1.3", verdict=Verdict.PASS,
        found="TLSv1.3, TLS_AES_256_GCM_SHA384, X25519",
    ),
    Check(
        id="starttls.chain", title="The chain is that of the test's authority", verdict=Verdict.PASS,
        found="leaf, intermediate, root",
    ),
    Check(id="starttls.refused", title="TLS 1.0 is refused", verdict=Verdict.PASS, found="alert"),
    Check(
        id="library", title="The daemon maps the library of the package", verdict=Verdict.PASS,
        found="/usr/lib64/libssl.so.1.1.1a of openssl-libs-1:1.1.1a-1.fc28.bp1.x86_64",
    ),
    Check(
        id="gate.abi", title="No symbol of the replaced library is gone", verdict=Verdict.WARN,
        found="2 removed: SSL_add_ssl_module, SSL_test_functions",
        advice="a warning by the recipe: internal symbols that no package of the target uses",
    ),
    Check(
        id="gate.files", title="No file conflicts", verdict=Verdict.SKIPPED,
        advice="nothing else is installed",
    ),
)  # fmt: skip
_ADVISORY = Advisory(
    id="BACKPORT-2026-1a2b3c4d", kind="security", severity="Important",
    title="OpenSSL 1.1.1 with TLS 1.3, from Fedora 29",
    description="Mail servers on Fedora 28 negotiate TLS 1.3.\nSettles CVE-2018-0735.", issued=NOW,
    publisher="A <a@example.org>", packages=(),
    references=(
        Reference(kind="cve", id="CVE-2018-0735", url="https://www.cve.org/CVERecord?id=CVE-2018-0735"),
    ),
)  # fmt: skip
