"""What is published beside the packages, by the tools that read it: gpg, dnf, and backport itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backport.artifacts import Check, Nevra, PublishedRepo, TestedRpms, Verdict
from backport.errors import PublishError
from backport.evidence.intoto import ProvenanceStatement, read_statement
from backport.evidence.provenance import Origin
from backport.evidence.store import FOLDER, statements, verify_provenance
from backport.files import digest_of
from backport.recipe import Advisory as Wishes
from backport.repository.advisories import make_advisory, read_advisories, stock_evrs
from backport.repository.generations import TargetFolder
from backport.repository.place import Place
from backport.repository.proof import Prover
from backport.repository.publish import Run, publish
from backport.signing import sign
from backport.signing.detached import verify_file
from backport.site import Signing
from backport.target import Target, load_target
from tests.conformity import check_document
from tests.e2e import tiny
from tests.e2e.shelf import small_key

CHECKOUT = Path(__file__).parents[2]
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
# Debian's rpm keeps its database below the user's home: dnf and rpm must have the same.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
CHANGELOG = """\
* Tue Nov 20 2018 A <a@example.org> - 2-1.bp1
- Fix CVE-2018-0734
* Mon Nov 19 2018 A <a@example.org> - 1-1
- Fix CVE-2017-3735"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A repository with its key, and packages to put into it."""

    folder: Path
    signing: Signing
    target: Target

    @property
    def published(self) -> TargetFolder:
        return TargetFolder(path=self.folder / "repository" / self.target.name)

    @property
    def generation(self) -> Path:
        return self.published.current.resolve()

    def tested(self, name: str, version: str = "1", **options: str) -> TestedRpms:
        place = self.folder / f"{name}-{version}-{len(list(self.folder.iterdir()))}"
        built = tiny.build(place, name, version=version, **options)
        signed = sign.sign([built], signing=self.signing, target=self.target, workspace=place / "signing")
        return tiny.tested(signed)

    def publish(
        self,
        tested: TestedRpms,
        wishes: Wishes | None = None,
        *,
        inputs: str = "",
        prove: Prover = tiny.proven,
    ) -> PublishedRepo:
        (built,) = tested.signed.built
        origin = Origin(
            run=f"run-of-{built.srpm.nevra}", recipe="tiny", target=self.target.name, started=STARTED,
            finished=datetime.now(UTC), parameters={"summary": "Tiny"}, transcript="S: 220 ready\n",
        )  # fmt: skip
        advisory = make_advisory(
            wishes or Wishes(), tested.signed.rpms, summary=f"{built.srpm.nevra.name} for the test",
            stock=stock_evrs(tested), issued=datetime.now(UTC), publisher="A <a@example.org>",
        )  # fmt: skip
        run = Run(gated=tiny.gated(tested), inputs={"tiny": inputs}, origin=origin, advisory=advisory)
        place = Place(
            repository=self.folder / "repository", target=self.target, signing=self.signing,
            base_url=(self.folder / "repository").as_uri(),
        )  # fmt: skip
        return publish(run, place, prove=prove)

    def failed(self) -> dict[str, str]:
        checks = verify_provenance(self.published.path, [self.published.public_key])
        return {check.id: check.evidence for check in checks if check.stops}


@pytest.fixture
def site(tmp_path: Path, signing: Signing) -> Site:
    target = load_target(CHECKOUT / "mock-configs", "f28")
    return Site(folder=tmp_path, signing=signing, target=target)


def test_a_published_generation_explains_itself(site: Site) -> None:
    published = site.publish(site.tested("first"))
    assert site.failed() == {}
    for name in ("provenance.json", "test-results.json", "sbom.cdx.json"):
        verify_file(
            site.generation / name,
            public_key=site.published.public_key,
            fingerprint=published.gated.tested.signed.fingerprint,
        )
    statement = read_statement(
        ProvenanceStatement, (site.generation / "provenance.json").read_text(), name="provenance.json"
    )
    assert {one.name: one.sha256 for one in statement.subject} == {
        path.relative_to(site.generation).as_posix(): digest_of(path)
        for path in site.generation.rglob("*.rpm")
    }


def test_packages_that_are_carried_on_keep_their_own_statement(site: Site) -> None:
    site.publish(site.tested("first"))
    first = site.generation
    site.publish(site.tested("second"))
    assert site.failed() == {}
    assert site.generation != first
    assert len(list(statements(site.generation))) == 2
    newest, oldest = (statement for _, statement in statements(site.generation))
    assert {one.annotations["package"] for one in newest.subject} == {"second"}
    assert {one.annotations["package"] for one in oldest.subject} == {"first"}
    for old in (first / FOLDER).iterdir():
        assert (site.generation / FOLDER / old.name).samefile(old)
    assert (site.generation / "provenance.json").read_text() == newest.to_json()


def test_a_package_signed_by_a_new_key_gets_a_statement_of_its_own(site: Site, tmp_path: Path) -> None:
    tested = site.tested("first")
    site.publish(tested)
    other = Signing(gnupghome=tmp_path / "gnupg")
    small_key(other)
    again = sign.sign(
        list(tested.signed.built), signing=other, target=site.target, workspace=tmp_path / "again"
    )
    site.published.anchor(other)
    replace(site, signing=other).publish(tiny.tested(again))
    assert site.failed() == {}
    assert len(list(statements(site.generation))) == 1


def test_another_test_of_what_is_there_leaves_its_results(site: Site) -> None:
    tested = site.tested("first")
    site.publish(tested, inputs="one")
    site.publish(tested, inputs="two")
    assert site.failed() == {}
    assert len(list((site.generation / FOLDER).glob("*.tests.json"))) == 2
    assert len(list((site.generation / FOLDER).glob("*.provenance.json"))) == 1


@pytest.mark.parametrize("name", ["x86_64/first-1-1.fc28.bp1.noarch.rpm", "provenance.json", "sbom.cdx.json"])
def test_one_changed_byte_is_found(site: Site, name: str) -> None:
    site.publish(site.tested("first"))
    data = bytearray((site.generation / name).read_bytes())
    data[len(data) // 2] ^= 1
    (site.generation / name).unlink()
    (site.generation / name).write_bytes(data)
    assert site.failed()


def test_a_signature_by_another_key_is_found(site: Site, tmp_path: Path) -> None:
    site.publish(site.tested("first"))
    other = Signing(gnupghome=tmp_path / "gnupg")
    small_key(other)
    sign.sign_file(next((site.generation / FOLDER).glob("*.provenance.json")), other)
    assert set(site.failed()) == {"provenance.signatures"}


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backport", *map(str, arguments)], cwd=CHECKOUT, text=True, timeout=120,
        capture_output=True, check=False, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )  # fmt: skip


def test_the_command_verifies_a_copy_offline(site: Site, tmp_path: Path) -> None:
    site.publish(site.tested("first"))
    copy = tmp_path / "copy"
    shutil.copytree(site.generation, copy)
    key = site.published.public_key
    done = command("verify-provenance", copy, "--key", key, "--json")
    assert done.returncode == 0, done.stderr
    assert {check["verdict"] for check in json.loads(done.stdout)} == {"pass"}
    assert command("verify-provenance", site.published.path).returncode == 0
    (copy / "x86_64" / "stray-1-1.noarch.rpm").write_bytes(b"stray")
    done = command("verify-provenance", copy, "--key", key)
    assert done.returncode == 8
    assert "stray-1-1.noarch.rpm: no statement says where it comes from" in done.stdout
    done = command("verify-provenance", copy)
    assert (done.returncode, "name the key's file by --key" in done.stderr) == (8, True)


def test_the_command_says_why_a_package_is_there(site: Site) -> None:
    published = site.publish(site.tested("first"))
    config = site.folder / "backport.toml"
    config.write_text(f'[paths]\nrepository = "{site.folder / "repository"}"\n')
    show = ("repo", "show", "--target", "f28", "--config", config)
    done = command(*show, "--why", "first-1-1.fc28.bp1.noarch.rpm")
    assert done.returncode == 0, done.stderr
    for part in (
        "run-of-first",
        published.gated.tested.signed.fingerprint,
        "It is small",
        "SLSA_BUILD_LEVEL_1",
    ):
        assert part in done.stdout
    check_document("repo-show", json.loads(command(*show, "--json").stdout))
    (one,) = json.loads(command(*show, "--why", "first-1-1.fc28.bp1.src", "--json").stdout)
    check_document("repo-show", [one])
    assert one["path"] == "source/first-1-1.fc28.bp1.src.rpm"
    done = command(*show)
    assert "first-1-1.fc28.bp1.noarch" in done.stdout
    assert f"{published.generation}, which clients see now" in done.stdout
    done = command(*show, "--why", "frist")
    assert (done.returncode, "did you mean first" in done.stderr) == (2, True)


def test_the_page_follows_what_readers_see(site: Site) -> None:
    page = site.published.path / "index.html"
    site.publish(site.tested("first"))
    before = page.read_text()
    assert "first-1-1.fc28.bp1.noarch.rpm" in before
    assert "S: 220 ready" in before

    def refuse(_exhibit: object) -> tuple[Check, ...]:
        return (Check(id="no", title="No", verdict=Verdict.FAIL, found="it does not"),)

    with pytest.raises(PublishError):
        site.publish(site.tested("second"), prove=refuse)
    assert page.read_text() == before


@dataclass(frozen=True, kw_only=True)
class Client:
    """Debian's dnf with a root of its own and the published .repo file."""

    root: Path
    repositories: Path

    def __call__(self, *arguments: str) -> str:
        completed = subprocess.run(
            [
                "dnf", "--installroot", str(self.root), f"--setopt=reposdir={self.repositories}",
                "--setopt=varsdir=/nonexistent", "--setopt=pluginpath=/nonexistent", "--releasever=28",
                "--refresh", "--assumeyes", *arguments,
            ],
            check=True, capture_output=True, text=True, timeout=300,
            env=ENVIRONMENT,
        )  # fmt: skip
        return completed.stdout

    def installed(self) -> set[str]:
        output = subprocess.run(
            [
                "rpm", "--root", str(self.root), "-qa", "--qf", "%{name}-%{version}\n",
            ],
            check=True, capture_output=True, text=True, timeout=60, env=ENVIRONMENT,
        )  # fmt: skip
        return {line for line in output.stdout.split() if not line.startswith("gpg-pubkey")}


@pytest.fixture
def client(site: Site, tmp_path: Path) -> Client:
    """A client that has the first version of two packages."""
    site.publish(site.tested("urgent"))
    site.publish(site.tested("pretty"))
    repositories = tmp_path / "yum.repos.d"
    repositories.mkdir()
    shutil.copy(site.published.repo_file, repositories)
    client = Client(root=tmp_path / "root", repositories=repositories)
    client("install", "urgent", "pretty")
    assert client.installed() == {"urgent-1", "pretty-1"}
    stock = Nevra(name="urgent", version="1", release="1.fc28", arch="noarch")
    urgent = replace(site.tested("urgent", "2", changelog=CHANGELOG), replaced=(stock,))
    site.publish(urgent, Wishes(severity="Important"))
    site.publish(site.tested("pretty", "2"))
    return client


def test_dnf_lists_and_takes_advisories(site: Site, client: Client) -> None:
    advisories = {one.title.split()[0]: one for one in read_advisories(site.generation / "x86_64")
                  if one.packages[0].nevra.version == "2"}  # fmt: skip
    assert advisories["urgent"].cves == ("CVE-2018-0734",)
    assert (advisories["urgent"].kind, advisories["pretty"].kind) == ("security", "enhancement")
    listed = client("updateinfo", "list")
    for one in advisories.values():
        assert one.id in listed
    assert "Important/Sec. urgent-2-1.fc28.bp1.noarch" in listed
    told = client("updateinfo", "info", advisories["urgent"].id)
    assert "CVE-2018-0734" in told
    assert "CVE-2017-3735" not in told
    assert "CVE-2018-0734" in client("updateinfo", "list", "--with-cve", "cves")
    client("upgrade", "--security")
    assert client.installed() == {"urgent-2", "pretty-1"}
    client("upgrade", f"--advisory={advisories['pretty'].id}")
    assert client.installed() == {"urgent-2", "pretty-2"}
    assert client("updateinfo", "list").count("BACKPORT-") == 0
