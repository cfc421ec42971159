"""What tests of the self-test share: the backported OpenSSL as a candidate, and examiners for roots."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backport.artifacts import Check
from backport.probe.ledger import Ledger
from backport.recipe import SelfTest, Starttls, load_recipe
from backport.roots.root import Root, clean_root
from backport.selftest import candidate_of, plan
from backport.selftest.authority import Authority
from backport.selftest.configuration import ALL_POLICIES, Policy
from backport.selftest.examiner import Examiner
from backport.selftest.exim import ServerFiles
from backport.selftest.starttls import StarttlsKind
from backport.site import Signing
from backport.target import Target
from tests.e2e import candidates
from tests.e2e.candidates import Candidate
from tests.lab.layout import Lab

RECIPES = Path(__file__).parents[2] / "specs"
POLICY = "/etc/crypto-policies/back-ends/opensslcnf.config"
EXAMINED = ("policy.", "after.", "library.", "transport.", "certificate.", "mail.")
"""Prefixes of the checks that an examination of a running server comes to."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """One candidate, and everything that an examination of it takes."""

    candidate: Candidate
    target: Target
    self_test: SelfTest
    authority: Authority
    signing: Signing
    cache: Path

    @property
    def tls(self) -> Starttls:
        assert self.self_test.starttls
        return self.self_test.starttls

    def examiner(
        self,
        root: Root,
        workspace: Path,
        contents: Mapping[str, bytes] | None = None,
        *,
        folder: Path | None = None,
        policies: Collection[Policy] = ALL_POLICIES,
    ) -> OneExim:
        files = ServerFiles.write(
            workspace / "exim", authority=self.authority, contents=contents, policies=policies
        )
        examiner = Examiner(
            root=root,
            candidate=candidate_of(self.candidate.signed, folder or self.candidate.folder),
            wanted=self.self_test.update,
            workspace=workspace,
            ledger=Ledger(plan(self.self_test)),
            after=tuple(StarttlsKind.plan(self.tls)[1]),
        )
        return OneExim(examiner, self.tls, files)


class OneExim(StarttlsKind):
    """The examination of one Exim, and of the update before it."""

    @property
    def ledger(self) -> Ledger:
        return self.examiner.ledger

    def update(self) -> bool:
        return self.examiner.update()


@contextlib.contextmanager
def stock_root(parts: Parts, workspace: Path) -> Iterator[Root]:
    """A root with the target's own packages."""
    packages = parts.self_test.install
    with clean_root(parts.target, packages=packages, cache=parts.cache, workspace=workspace) as root:
        yield root


@contextlib.contextmanager
def updated_root(parts: Parts, workspace: Path) -> Iterator[Root]:
    """A root that has been updated from the candidate repository."""
    with stock_root(parts, workspace) as root:
        assert parts.examiner(root, workspace).update()
        yield root


def make_parts(lab: Lab, target: Target, *, cache: Path, folder: Path) -> Parts:
    built = candidates.build_openssl(lab, folder / "built")
    signing = Signing(gnupghome=folder / "gnupg")
    return Parts(
        candidate=candidates.make_candidate(built, signing=signing, target=target, folder=folder / "signed"),
        target=target,
        self_test=load_recipe(RECIPES, "openssl").self_test,
        authority=Authority.create(),
        signing=signing,
        cache=cache,
    )


def stopping(found: tuple[Check, ...], prefixes: tuple[str, ...] = EXAMINED) -> set[str]:
    """The checks that failed; those of steps that a test leaves out do not count."""
    return {check.id for check in found if check.stops and check.id.startswith(prefixes)}


def by_id(found: tuple[Check, ...], check_id: str) -> Check:
    return next(check for check in found if check.id == check_id)
