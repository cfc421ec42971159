"""The lab holds what it promises: repositories to build and install from, keys, and a Koji's files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import koji
import pytest
import rpm

from backport.files import locked
from backport.roots.root import Root, clean_root
from backport.run import Command
from backport.target import Target
from tests.lab import build
from tests.lab.debs import running_release
from tests.lab.layout import BASE_PACKAGES, NEW_TAG, Lab, LabError

NVRS = ("crypto-policies-20181026-1.fc29", "hello-1.0-1.fc29", "libgreet-1.0-1.fc29", "openssl-1.1.1w-1.fc29")

EXIM_CONF = """\
primary_hostname = mail.example
daemon_smtp_ports = 2525
local_interfaces = 127.0.0.1
host_lookup =
rfc1413_hosts =
tls_advertise_hosts = *
tls_certificate = /etc/exim/lab.crt
tls_privatekey = /etc/exim/lab.key
begin acl
begin routers
begin transports
"""
HANDSHAKE = """\
import smtplib, ssl, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for attempt in range(100):
    try:
        client = smtplib.SMTP("127.0.0.1", 2525, timeout=10)
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
client.starttls(context=context)
print(client.sock.version(), context.maximum_version.name)
"""


def _sh(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_base_packages_install_and_verify_clean(f28: Target, root_cache: Path, tmp_path: Path) -> None:
    assert f28.buildroot == BASE_PACKAGES
    with clean_root(f28, cache=root_cache, workspace=tmp_path) as root:
        for name in BASE_PACKAGES:
            _sh("rpm", "--root", root.path, "--dbpath", "/var/lib/rpm", "-q", "--whatprovides", name)
        changed = _sh("rpm", "--root", root.path, "--dbpath", "/var/lib/rpm", "-Va")
        dist = root.run(Command(["rpm", "--eval", "%dist %_libdir"], timeout=60)).text
    assert changed == ""
    assert dist == ".fc28 /usr/lib64\n"


def test_stock_exim_speaks_tls_1_2_at_best(f28: Target, root_cache: Path, tmp_path: Path) -> None:
    with clean_root(f28, packages=["exim", "openssl"], cache=root_cache, workspace=tmp_path) as root:
        _make_certificate(root)
        (root.path / "etc/exim/lab.conf").write_text(EXIM_CONF)
        command = ["/usr/sbin/exim", "-C", "/etc/exim/lab.conf", "-bdf"]
        with root.start(Command(command, log=tmp_path / "exim.log", timeout=10)) as daemon:
            entered = ["nsenter", f"--net=/proc/{daemon.pid}/ns/net", sys.executable, "-c", HANDSHAKE]
            spoken, offered = _sh(*entered).split()
            maps = Path(f"/proc/{daemon.pid}/maps").read_text()
        version = root.run(Command(["openssl", "version"], timeout=60)).text
    assert (spoken, offered) == ("TLSv1.2", "MAXIMUM_SUPPORTED")
    assert "/usr/lib64/libssl.so.1.1.0i" in maps
    assert "without TLS 1.3, as 1.1.0i" in version


def _make_certificate(root: Root) -> None:
    root.run(
        Command(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=mail.example",
                "-keyout",
                "/etc/exim/lab.key",
                "-out",
                "/etc/exim/lab.crt",
            ],
            timeout=60,
        ),
        user="root",
    )
    (root.path / "etc/exim/lab.key").chmod(0o644)


def test_repositories_are_signed_by_the_key_of_the_release(lab: Lab, tmp_path: Path) -> None:
    _sh("rpmkeys", "--dbpath", tmp_path, "--import", lab.key_file("fedora-28"))
    packages = sorted(lab.repositories.glob("*/*.rpm"))
    assert len(packages) > 100
    told = _sh("rpmkeys", "--dbpath", tmp_path, "--define", "_pkgverify_level all", "--checksig", *packages)
    assert told.count("digests signatures OK") == len(packages)


def test_keys_are_rsa_and_pinned_by_fingerprint(lab: Lab) -> None:
    for name in ("fedora-28", "fedora-29"):
        shown = _sh("gpg", "--with-colons", "--show-keys", lab.key_file(name)).splitlines()
        public = next(line.split(":") for line in shown if line.startswith("pub:"))
        fingerprint = next(line.split(":")[9] for line in shown if line.startswith("fpr:"))
        assert int(public[2]) >= 2048
        assert public[3] == "1"  # RSA: RFC 4880, section 9.1
        assert fingerprint == lab.fingerprint(name)


@pytest.mark.parametrize("nvr", NVRS)
def test_koji_keeps_every_copy_of_a_source_package(lab: Lab, nvr: str, tmp_path: Path) -> None:
    unsigned = lab.source_package(nvr)
    folder = unsigned.parent.parent
    key_id = lab.fingerprint("fedora-29")[-8:].lower()
    signed = folder / "data" / "signed" / key_id / "src" / unsigned.name
    header = folder / "data" / "sigcache" / key_id / "src" / f"{unsigned.name}.sig"
    spliced = tmp_path / unsigned.name
    koji.splice_rpm_sighdr(header.read_bytes(), str(unsigned), dst=str(spliced))
    assert spliced.read_bytes() == signed.read_bytes() != unsigned.read_bytes()
    assert koji.get_sigpacket_key_id(koji.get_rpm_header(str(signed))[rpm.RPMTAG_RSAHEADER]) == key_id
    assert koji.get_rpm_header(str(unsigned))[rpm.RPMTAG_RSAHEADER] is None
    assert koji.get_rpm_header(str(unsigned))[rpm.RPMTAG_SOURCEPACKAGE] == 1


def test_koji_tells_what_the_newer_binaries_require(lab: Lab) -> None:
    assert json.loads((lab.koji / "tags.json").read_text()) == {NEW_TAG: list(NVRS)}
    path = lab.source_package("openssl-1.1.1w-1.fc29").parent.parent / "binaries.json"
    binaries = {binary["name"]: binary for binary in json.loads(path.read_text())}
    assert [*binaries] == ["openssl", *(f"openssl-{part}" for part in ("libs", "devel", "static", "perl"))]
    flags = rpm.RPMSENSE_GREATER | rpm.RPMSENSE_EQUAL
    assert ["crypto-policies", flags, "20180730"] in binaries["openssl-libs"]["requires"]


def test_a_half_built_lab_is_never_taken_for_a_whole_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BACKPORT_LAB_CACHE", str(tmp_path))

    def fail(making: build._Build) -> None:
        (making._folder / "repos").mkdir(parents=True)
        raise LabError("the disk is full")

    def succeed(making: build._Build) -> None:
        making._folder.mkdir()

    monkeypatch.setattr(build._Build, "run", fail)
    with pytest.raises(LabError, match="the disk is full"):
        build.ensure(print)
    assert build.whole_lab() is None
    monkeypatch.setattr(build._Build, "run", succeed)
    whole = build.ensure(print)
    assert [*whole.path.iterdir()] == []
    monkeypatch.setattr(build._Build, "run", fail)
    assert build.ensure(print) == build.whole_lab() == whole
    build.clean()
    assert build.whole_lab() is None


def test_two_builders_of_a_lab_wait_for_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BACKPORT_LAB_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "LOCK_TIMEOUT", 0.2)
    lock = build.cache_folder() / f"{build.lab_key(running_release())}.lock"
    with (
        locked(lock, timeout=1, what="the test"),
        pytest.raises(LabError, match="another process"),
    ):
        build.ensure(print)
