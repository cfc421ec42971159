"""The proof of a publication, and the target's own rpmkeys, in real roots of the lab's release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backport.artifacts import Check, PublishedRepo, Rpm, TestedRpms, Verdict
from backport.errors import PublishError, SignError
from backport.files import digest_of
from backport.repository import proof
from backport.repository.generations import TargetFolder
from backport.repository.place import Place
from backport.repository.publish import Run, publish
from backport.roots.root import Root, clean_root
from backport.signing import sign
from backport.site import Signing
from backport.target import Target
from tests.e2e import tiny

URL = "https://repo.example.org/backport"


@pytest.fixture(scope="module")
def signing(tmp_path_factory: pytest.TempPathFactory) -> Signing:
    signing = Signing(gnupghome=tmp_path_factory.mktemp("gnupg") / "home")
    sign.init_key(signing, "Publisher <publisher@example.org>")
    return signing


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory, signing: Signing, f28: Target) -> TestedRpms:
    folder = tmp_path_factory.mktemp("tiny")
    built = tiny.build(folder / "built", subpackages=("tiny-more", "tiny-debuginfo"))
    return tiny.tested(sign.sign([built], signing=signing, target=f28, workspace=folder / "work"))


@dataclass(frozen=True, kw_only=True)
class Site:
    repository: Path
    signing: Signing
    target: Target
    cache: Path
    workspace: Path

    @property
    def folder(self) -> TargetFolder:
        return TargetFolder.of(self.repository, self.target.name)

    def publish(self, tested: TestedRpms, *, prove: proof.Prover = tiny.proven) -> PublishedRepo:
        place = Place(repository=self.repository, target=self.target, base_url=URL, signing=self.signing)
        return publish(Run(gated=tiny.gated(tested)), place, prove=prove)

    def prove(self, exhibit: proof.Exhibit) -> tuple[Check, ...]:
        return proof.prove(exhibit, target=self.target, cache=self.cache, workspace=self.workspace)

    def prove_published(self, tested: TestedRpms) -> tuple[Check, ...]:
        """What a client finds that installs these packages from what is published."""
        record = self.folder.published()
        assert record is not None
        exhibit = proof.Exhibit(
            folder=self.folder, record=record, content=self.folder.folder_of(record.id), url=URL,
            packages=tuple(one for one in tested.signed.rpms if "debug" not in one.nevra.name),
        )  # fmt: skip
        return self.prove(exhibit)


@pytest.fixture
def site(tmp_path: Path, signing: Signing, f28: Target, root_cache: Path) -> Site:
    workspace = tmp_path / "work"
    workspace.mkdir()
    return Site(
        repository=tmp_path / "repository", signing=signing, target=f28, cache=root_cache, workspace=workspace
    )


def verdicts(checks: tuple[Check, ...]) -> dict[str, Verdict]:
    return {check.id: check.verdict for check in checks}


def test_a_client_installs_what_was_published(site: Site, tested: TestedRpms) -> None:
    published = site.publish(tested, prove=site.prove)
    assert verdicts(published.checks) == {
        "publish.client-files": Verdict.PASS,
        "publish.install": Verdict.PASS,
        "publish.installed": Verdict.PASS,
    }
    assert site.folder.is_proven(published.generation)
    assert "tiny-more" in (site.workspace / "proof.log").read_text()


def test_what_is_published_already_counts_though_it_was_signed_anew(
    site: Site, tested: TestedRpms, tmp_path: Path
) -> None:
    site.publish(tested)
    again = sign.sign(
        tested.signed.built, signing=site.signing, target=site.target, workspace=tmp_path / "again"
    )
    # The time of a signature is in it, in seconds.
    assert again.rpms[0].sha256 != tested.signed.rpms[0].sha256
    checks = site.publish(tiny.tested(again), prove=site.prove).checks
    assert set(verdicts(checks).values()) == {Verdict.PASS}


def test_a_failed_or_interrupted_proof_leads_readers_nowhere(site: Site, tested: TestedRpms) -> None:
    def fails(_exhibit: proof.Exhibit) -> tuple[Check, ...]:
        return (Check(id="a", title="It installs", verdict=Verdict.FAIL, found="it does not"),)

    def is_interrupted(_exhibit: proof.Exhibit) -> tuple[Check, ...]:
        raise KeyboardInterrupt

    with pytest.raises(PublishError, match="It installs: it does not"):
        site.publish(tested, prove=fails)
    with pytest.raises(KeyboardInterrupt):
        site.publish(tested, prove=is_interrupted)
    assert site.folder.published() is None
    site.publish(tested)
    with pytest.raises(PublishError):
        site.publish(tested, prove=fails)
    assert site.folder.published() is not None


def test_a_repository_without_signature_checks_is_not_accepted(site: Site, tested: TestedRpms) -> None:
    published = site.publish(tested)
    text = published.repo_file.read_text()
    published.repo_file.write_text(text.replace("repo_gpgcheck=1", "repo_gpgcheck=0", 1))
    (check,) = site.prove_published(tested)
    assert (check.id, check.verdict) == ("publish.client-files", Verdict.FAIL)
    assert "repo_gpgcheck is not on" in check.found
    published.repo_file.write_text(text.replace(URL, "https://elsewhere.example.org"))
    (check,) = site.prove_published(tested)
    assert "does not begin with" in check.found


@pytest.mark.parametrize("damage", ["key", "signature", "package"])
def test_what_dnf_does_not_accept_fails_the_proof(
    site: Site, tested: TestedRpms, tmp_path: Path, damage: str
) -> None:
    published = site.publish(tested)
    current = published.folder / "current/x86_64"
    if damage == "key":
        other = Signing(gnupghome=tmp_path / "other")
        key = sign.init_key(other, "Other <other@example.org>")
        (published.folder / "RPM-GPG-KEY-backport").write_text(key.public_key)
    elif damage == "signature":
        repomd = current / "repodata/repomd.xml"
        repomd.write_bytes(repomd.read_bytes() + b"\n")
    else:
        package = current / tested.signed.rpms[0].path.name
        content = bytearray(package.read_bytes())
        content[-1] ^= 1
        package.write_bytes(content)
    checks = site.prove_published(tested)
    assert checks[-1].id == ("publish.client-files" if damage == "key" else "publish.install")
    assert checks[-1].verdict is Verdict.FAIL


def test_another_package_of_the_same_name_is_noticed(site: Site, tested: TestedRpms, tmp_path: Path) -> None:
    site.publish(tested)
    built = tiny.build(tmp_path / "other", content="other", subpackages=("tiny-more", "tiny-debuginfo"))
    other = sign.sign([built], signing=site.signing, target=site.target, workspace=tmp_path / "signed")
    checks = site.prove_published(tiny.tested(other))
    assert checks[-1].id == "publish.installed"
    assert checks[-1].verdict is Verdict.FAIL


@pytest.fixture(scope="module")
def root(f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    with clean_root(f28, cache=root_cache, workspace=tmp_path_factory.mktemp("rpmkeys")) as root:
        yield root


def test_the_targets_own_rpm_accepts_the_signatures(root: Root, tested: TestedRpms) -> None:
    signed = tested.signed
    sign.verify_in_root(root, (*signed.srpms, *signed.rpms), signed.public_key)


def test_the_targets_own_rpm_refuses_everything_else(
    root: Root, tested: TestedRpms, signing: Signing, tmp_path: Path
) -> None:
    signed = tested.signed
    (built,) = signed.built
    with pytest.raises(SignError, match=r"tiny-1-1.fc28.bp1.noarch.rpm: the rpm of f28 does not accept"):
        sign.verify_in_root(root, built.rpms[:1], signed.public_key)
    other = Signing(gnupghome=tmp_path / "other")
    key = sign.init_key(other, "Other <other@example.org>")
    (tmp_path / "other.asc").write_text(key.public_key)
    with pytest.raises(SignError, match="does not accept"):
        sign.verify_in_root(root, signed.rpms[:1], tmp_path / "other.asc")
    changed = tmp_path / signed.rpms[0].path.name
    content = bytearray(signed.rpms[0].path.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    rpm = Rpm(nevra=signed.rpms[0].nevra, path=changed, sha256=digest_of(changed))
    with pytest.raises(SignError, match="does not accept"):
        sign.verify_in_root(root, [rpm], signed.public_key)
