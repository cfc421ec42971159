"""Source packages made by the host's rpmbuild, and OpenSSL's policy patch by patch(1) and OpenSSL itself."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import rpm

from backport.artifacts import Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.errors import PatchError
from backport.recipe import Package, load_recipe
from backport.spec import ChangelogEntry, SpecEdit, SpecPatch, edit_spec
from backport.srpm import patch, unpack
from backport.target import load_target

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "patches/openssl/f28-security-policy.patch"
CHANGELOG_TIME = 1540555200
SPEC = """\
Name: tiny
Version: 1
Release: 1%{?dist}
Summary: A small package
License: MIT
BuildArch: noarch
Source0: tiny-1.tar.gz
Source1: notes.txt

%description
It holds one file.

%prep
%setup -q

%build

%install
install -D -m 644 greeting %{buildroot}/usr/share/tiny/greeting

%files
/usr/share/tiny/greeting

%changelog
* Fri Oct 26 2018 A <a@example.org> - 1-1
- first
"""
CHANGE = "--- a/greeting\n+++ b/greeting\n@@ -1 +1 @@\n-hello\n+good evening\n"


def rpmbuild(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["rpmbuild", "--define", f"_topdir {folder}", *arguments],
        check=True,
        capture_output=True,
        timeout=120,
        cwd=folder,
    )


def make_srpm(
    folder: Path, *, payload: str = "w2.xzdio", spec: str = SPEC, sources: Mapping[str, str] | None = None
) -> Path:
    """A source package with a tarball, notes.txt and further ``sources``, which ``spec`` has to name."""
    (folder / "tiny-1").mkdir(parents=True)
    (folder / "SOURCES").mkdir()
    (folder / "tiny-1/greeting").write_text("hello\n")
    shutil.make_archive(str(folder / "SOURCES/tiny-1"), "gztar", folder, "tiny-1")
    for name, text in {"notes.txt": "notes\n", **(sources or {})}.items():
        (folder / "SOURCES" / name).write_text(text)
        (folder / "SOURCES" / name).chmod(0o600)
    (folder / "tiny.spec").write_text(spec)
    rpmbuild(folder, "--define", f"_source_payload {payload}", "-bs", str(folder / "tiny.spec"))
    [path] = (folder / "SRPMS").iterdir()
    return path


def patched(folder: Path, *, change: str = CHANGE, path: Path | None = None) -> PatchedSrpm:
    """The small package, or the one at ``path``, after the change to its greeting."""
    path = path or make_srpm(folder / "make")
    (folder / "patches").mkdir()
    (folder / "patches/evening.patch").write_text(change)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = SourceRpm(
        rpm=Rpm(nevra=Nevra.from_nvr("tiny-1-1"), path=path, sha256=digest),
        url="http://files.example/tiny-1-1.src.rpm",
        signing_key="A" * 40,
        build_requires=(),
        changelog_time=CHANGELOG_TIME,
    )
    return patch(
        source,
        Package.model_validate({"nvr": "tiny-1-1", "patches": ["evening.patch"]}),
        target=load_target(ROOT / "mock-configs", "f28"),
        patches=folder / "patches",
        packager="P <p@example.org>",
        workspace=folder / "work",
    )


def rebuild(result: PatchedSrpm, folder: Path) -> Path:
    """What a builder does with the result, by the host's rpmbuild."""
    folder.mkdir()
    rpmbuild(folder, "--define", f"_sourcedir {result.sources}", "-bb", str(result.spec))
    [path] = folder.rglob("*.noarch.rpm")
    return path


@pytest.mark.parametrize("payload", ["w2.xzdio", "w3.zstdio", "w9.gzdio", "w2.bzdio", "w.ufdio"])
def test_unpacks_every_compression(tmp_path: Path, payload: str) -> None:
    path = make_srpm(tmp_path / "make", payload=payload)
    spec = unpack(path, tmp_path / "out")
    assert spec.read_text() == SPEC
    for source in (tmp_path / "make/SOURCES").iterdir():
        assert (tmp_path / "out" / source.name).read_bytes() == source.read_bytes()
    assert {file.stat().st_mode & 0o7777 for file in spec.parent.iterdir()} == {0o644}
    assert len(list(spec.parent.iterdir())) == 3


def test_a_changed_byte_in_the_archive_is_found(tmp_path: Path) -> None:
    path = make_srpm(tmp_path / "make", payload="w.ufdio")
    content = path.read_bytes()
    at = content.index(b"notes\n", content.index(b"070701"))
    path.write_bytes(content[:at] + b"Notes\n" + content[at + 6 :])
    with pytest.raises(PatchError, match=r"notes\.txt is not the file"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_package_with_a_second_spec_is_refused(tmp_path: Path) -> None:
    spec = SPEC.replace("Source1: notes.txt", "Source1: notes.txt\nSource2: other.spec")
    path = make_srpm(tmp_path / "make", spec=spec, sources={"other.spec": "Name: other\n"})
    with pytest.raises(PatchError, match=r"more than one spec: other\.spec, tiny\.spec"):
        unpack(path, tmp_path / "out")


def test_the_result_builds_with_the_patch_in_it(tmp_path: Path) -> None:
    path = rebuild(patched(tmp_path), tmp_path / "rebuilt")
    transaction = rpm.ts()
    transaction.setVSFlags(rpm.RPMVSF_MASK_NOSIGNATURES)
    with path.open("rb") as stream:
        header = transaction.hdrFromFdno(stream)
        assert header[rpm.RPMTAG_RELEASE].endswith(".bp1")
        newest = datetime.fromtimestamp(header[rpm.RPMTAG_CHANGELOGTIME][0], UTC)
        assert newest.date().isoformat() == "2018-10-26"
        assert header[rpm.RPMTAG_CHANGELOGTEXT][0] == "- Rebuild for Fedora 28, with evening.patch"
        archive = rpm.files(header).archive(rpm.fd(stream, "r", header[rpm.RPMTAG_PAYLOADCOMPRESSOR]))
        assert [archive.read(file.size) for file in archive] == [b"good evening\n"]


def test_a_patch_that_does_not_apply_stops_prep_which_names_it(tmp_path: Path) -> None:
    result = patched(tmp_path, change=CHANGE.replace("-hello", "-hi"))
    with pytest.raises(subprocess.CalledProcessError) as caught:
        rebuild(result, tmp_path / "rebuilt")
    assert b"evening.patch" in caught.value.stdout + caught.value.stderr


def test_no_macro_of_the_package_is_expanded_on_the_host(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    path = make_srpm(tmp_path / "make", spec=f"%global harm %(touch {harm})\n{SPEC}")
    assert harm.exists(), "rpmbuild, which made the package, expands it"
    harm.unlink()
    result = patched(tmp_path, path=path)
    assert result.spec.read_text().startswith("%global harm %(touch ")
    assert not harm.exists()


class TestPolicyPatch:
    """The shipped patch on the block that Fedora 29's conf-paths patch leaves behind."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        block = ["# The policy", "", "openssl_conf = default_modules", ""]
        for section, setting in (
            ("default_modules", "ssl_conf = ssl_module"),
            ("ssl_module", "system_default = crypto_policy"),
            ("crypto_policy", ".include /etc/crypto-policies/back-ends/opensslcnf.config"),
        ):
            block += [f"[ {section} ]", "", setting, ""]
        lines = ["HOME = .", *(f"# {number}" for number in range(24)), "", *block, "[ new_oids ]", ""]
        (tmp_path / "apps").mkdir()
        (tmp_path / "apps/openssl.cnf").write_text("\n".join(lines))
        return tmp_path

    @staticmethod
    def apply(tree: Path, *options: str) -> None:
        with POLICY.open("rb") as stream:
            subprocess.run(["patch", "-p1", "-s", *options], stdin=stream, cwd=tree, check=True, timeout=60)

    @staticmethod
    def policy(configuration: Path) -> tuple[list[str], int]:
        """What OpenSSL makes of the file: its TLS 1.3 suites in order, and the lowest protocol."""
        code = (
            "import json, ssl; context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT);"
            "names = [suite['name'] for suite in context.get_ciphers() if suite['name'].startswith('TLS_')];"
            "print(json.dumps([names, context.minimum_version]))"
        )
        done = subprocess.run(
            ["/usr/bin/python3", "-c", code],
            env={**os.environ, "OPENSSL_CONF": str(configuration)},
            check=True,
            capture_output=True,
            timeout=60,
        )
        suites, minimum = json.loads(done.stdout)
        return suites, minimum

    def test_applies_without_fuzz_and_comes_off_again(self, tree: Path) -> None:
        before = (tree / "apps/openssl.cnf").read_text()
        self.apply(tree, "--fuzz=0")
        after = (tree / "apps/openssl.cnf").read_text()
        assert after.index("MinProtocol = TLSv1.2") < after.index(".include ")
        self.apply(tree, "--fuzz=0", "--reverse")
        assert (tree / "apps/openssl.cnf").read_text() == before

    def test_without_the_included_file_the_defaults_hold(self, tree: Path) -> None:
        self.apply(tree)
        configuration = tree / "apps/openssl.cnf"
        configuration.write_text(configuration.read_text().replace("/etc/crypto-policies", str(tree)))
        suites, minimum = self.policy(configuration)
        assert suites[0] == "TLS_AES_256_GCM_SHA384"
        assert minimum == 0x0303

    def test_what_the_included_file_sets_replaces_the_defaults(self, tree: Path) -> None:
        self.apply(tree)
        configuration = tree / "apps/openssl.cnf"
        configuration.write_text(configuration.read_text().replace("/etc/crypto-policies", str(tree)))
        included = tree / "back-ends/opensslcnf.config"
        included.parent.mkdir()
        included.write_text("Ciphersuites = TLS_CHACHA20_POLY1305_SHA256\nMinProtocol = TLSv1.3\n")
        assert self.policy(configuration) == (["TLS_CHACHA20_POLY1305_SHA256"], 0x0304)

    def test_the_recipe_takes_it_back_before_the_tests(self) -> None:
        package = load_recipe(ROOT / "specs", "openssl").packages["openssl"]
        spec = (ROOT / "tests/lab/packages/openssl/openssl.spec").read_bytes()
        edited = edit_spec(
            spec,
            name="openssl.spec",
            patches=[SpecPatch(name=POLICY.name, strip=1)],
            edits=[
                SpecEdit(action=edit.action, anchor=edit.anchor, text=edit.text) for edit in package.edits
            ],
            bump=1,
            changelog=ChangelogEntry(
                date=datetime.fromtimestamp(CHANGELOG_TIME, UTC).date(),
                author="P <p@example.org>",
                lines=("x",),
            ),
        )
        lines = edited.decode().splitlines()
        ours = lines.index("patch -p1 -R < %{_sourcedir}/f28-security-policy.patch")
        assert lines[ours + 1] == "patch -p1 -R < %{PATCH31}"
        assert lines.index("%check") < ours
