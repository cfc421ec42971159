"""The signing key and signatures, with the real gpg, rpmsign and rpmkeys."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backport.artifacts import BuiltRpms
from backport.errors import SignError, ToolError
from backport.signing import key as signing_key
from backport.signing import sign
from backport.signing.agent import end_unused_agent
from backport.site import Signing
from backport.target import Target, load_target
from tests.e2e import tiny

PACKAGER = "Zoë: Packager <zoe@example.org>"


@pytest.fixture(scope="session")
def target() -> Target:
    return load_target(Path(__file__).parents[2] / "mock-configs", "f28")


@pytest.fixture
def signing(tmp_path: Path) -> Signing:
    return Signing(gnupghome=tmp_path / "gnupg")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltRpms:
    return tiny.build(tmp_path_factory.mktemp("built"), subpackages=("tiny-more",))


def gpg(signing: Signing, *arguments: str, stdin: str = "") -> str:
    command = ["gpg", "--batch", "--homedir", str(signing.gnupghome), "--pinentry-mode", "loopback"]
    command += ["--passphrase", "", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, input=stdin, text=True, timeout=120)
    return done.stdout


def make_key(signing: Signing, *arguments: str) -> None:
    signing.gnupghome.mkdir(mode=0o700, exist_ok=True)
    gpg(signing, "--quick-generate-key", *arguments)


def small_key(signing: Signing) -> sign.KeyInfo:
    """A key that is made quickly."""
    make_key(signing, PACKAGER, "rsa2048", "sign", "never")
    end_agent(signing)
    return sign.show_key(signing)


def end_agent(signing: Signing) -> None:
    environment = {"GNUPGHOME": str(signing.gnupghome), "PATH": "/usr/bin"}
    subprocess.run(["gpgconf", "--kill", "all"], check=True, env=environment, timeout=60)


def agents_of(home: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"gpg-agent") and str(home).encode() in command:
            found.append(folder.name)
    return found


def test_a_new_key_is_rsa_and_is_found_again(signing: Signing) -> None:
    made = sign.init_key(signing, PACKAGER)
    assert sign.show_key(signing) == made
    assert made.user_id == PACKAGER
    assert made.expires is None
    (listed,) = signing_key.parse_secret_keys(gpg(signing, "--with-colons", "--list-secret-keys"))
    assert (listed.algorithm, listed.fingerprint) == ("1", made.fingerprint)
    packets = gpg(signing, "--list-packets", stdin=made.public_key)
    assert "version 4, algo 1" in packets
    assert "digest algo 8" in packets
    assert "pkey[0]: [4096 bits]" in packets
    assert "PRIVATE" not in made.public_key
    assert signing.gnupghome.stat().st_mode & 0o777 == 0o700
    with pytest.raises(SignError, match=f"holds the key {made.fingerprint} already"):
        sign.init_key(signing, PACKAGER)
    end_agent(signing)


def test_packages_are_signed_as_copies_and_verified(
    signing: Signing, target: Target, built: BuiltRpms, tmp_path: Path
) -> None:
    key = small_key(signing)
    before = {rpm.path: rpm.path.read_bytes() for rpm in (built.srpm, *built.rpms)}
    signed = sign.sign([built], signing=signing, target=target, workspace=tmp_path / "work")
    assert {path: path.read_bytes() for path in before} == before
    assert signed.fingerprint == key.fingerprint
    assert [rpm.nevra for rpm in signed.rpms] == [rpm.nevra for rpm in built.rpms]
    for rpm in (*signed.srpms, *signed.rpms):
        tags = "%{RSAHEADER:pgpsig}|%{SIGPGP:pgpsig}"
        shown = subprocess.run(
            ["rpm", "-qp", "--nosignature", "--qf", tags, rpm.path],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        header, whole = shown.split("|")
        assert "RSA/SHA256" in header
        assert "RSA/SHA256" in whole
        assert key.fingerprint[-16:].lower() in header
    assert agents_of(signing.gnupghome) == []


def test_a_passphrase_comes_from_its_file_alone(target: Target, built: BuiltRpms, tmp_path: Path) -> None:
    passphrase = tmp_path / "pass 100% 'quoted'"
    passphrase.write_text("one two 3\n")
    passphrase.chmod(0o600)
    signing = Signing(gnupghome=tmp_path / "g home", passphrase_file=passphrase)
    sign.init_key(signing, PACKAGER)
    signed = sign.sign([built], signing=signing, target=target, workspace=tmp_path / "work")
    assert len(signed.rpms) == 2
    logged = (tmp_path / "work/sign.log").read_text()
    assert "one two 3" not in logged

    without = Signing(gnupghome=signing.gnupghome)
    with pytest.raises(SignError, match="needs a passphrase"):
        sign.sign([built], signing=without, target=target, workspace=tmp_path / "without")
    passphrase.write_text("wrong\n")
    with pytest.raises(SignError, match="the passphrase is wrong"):
        sign.sign([built], signing=signing, target=target, workspace=tmp_path / "wrong")
    passphrase.chmod(0o644)
    with pytest.raises(SignError, match="everybody may read"):
        sign.show_key(signing)
    passphrase.unlink()
    with pytest.raises(SignError, match="the passphrase cannot be read"):
        sign.show_key(signing)


def test_an_agent_that_runs_already_is_left_alone(signing: Signing) -> None:
    make_key(signing, "one <one@example.org>", "rsa2048", "sign", "never")
    assert len(agents_of(signing.gnupghome)) == 1
    sign.show_key(signing)
    assert len(agents_of(signing.gnupghome)) == 1
    end_agent(signing)


def test_a_missing_key_is_told(signing: Signing) -> None:
    with pytest.raises(SignError, match="does not exist") as told:
        sign.show_key(signing)
    assert "backport keys init" in (told.value.hint or "")
    signing.gnupghome.mkdir(mode=0o700)
    with pytest.raises(SignError, match="there is no secret key in"):
        sign.show_key(signing)
    signing.gnupghome.chmod(0o755)
    with pytest.raises(SignError, match="others may enter"):
        sign.show_key(signing)


def test_several_keys_need_a_choice(signing: Signing) -> None:
    for name in ("one", "two"):
        make_key(signing, f"{name} <{name}@example.org>", "rsa2048", "sign", "never")
    with pytest.raises(SignError, match="holds 2 secret keys"):
        sign.show_key(signing)
    listing = gpg(signing, "--with-colons", "--list-secret-keys", "two")
    (second,) = signing_key.parse_secret_keys(listing)
    chosen = sign.show_key(Signing(gnupghome=signing.gnupghome, key=second.fingerprint))
    assert chosen.user_id == "two <two@example.org>"
    with pytest.raises(SignError, match=r"the secret key 0{40} is not in"):
        sign.show_key(Signing(gnupghome=signing.gnupghome, key="0" * 40))
    end_agent(signing)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old", "rsa2048", "sign", "seconds=1"), "expired on"),
        (("new", "ed25519", "sign", "never"), "is not an RSA key"),
        (("cert", "rsa2048", "cert", "never"), "signs only by a subkey"),
    ],
)
def test_an_unusable_key_is_refused(signing: Signing, arguments: tuple[str, ...], message: str) -> None:
    options = ("--faked-system-time", "20200101T000000") if "seconds=1" in arguments else ()
    signing.gnupghome.mkdir(mode=0o700)
    gpg(signing, *options, "--quick-generate-key", *arguments)
    with pytest.raises(SignError, match=message):
        sign.show_key(signing)
    end_agent(signing)


def test_a_revoked_key_is_refused(signing: Signing) -> None:
    key = small_key(signing)
    certificate = signing.gnupghome / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
    armored = certificate.read_text().replace(":-----BEGIN", "-----BEGIN")
    gpg(signing, "--import", stdin=armored)
    with pytest.raises(SignError, match="is revoked"):
        sign.show_key(signing)
    end_agent(signing)


def test_a_package_changed_since_it_was_built_is_not_signed(
    signing: Signing, target: Target, tmp_path: Path
) -> None:
    small_key(signing)
    built = tiny.build(tmp_path / "built")
    changed = bytearray(built.srpm.path.read_bytes())
    changed[-1] ^= 1
    built.srpm.path.write_bytes(changed)
    with pytest.raises(SignError, match="changed since it was built"):
        sign.sign([built], signing=signing, target=target, workspace=tmp_path / "work")


def test_a_detached_signature_fits_its_file_and_key_alone(signing: Signing, tmp_path: Path) -> None:
    key = small_key(signing)
    public_key = tmp_path / "key.asc"
    public_key.write_text(key.public_key)
    file = tmp_path / "repomd.xml"
    file.write_text("<repomd/>")
    with pytest.raises(ToolError, match="is not signed"):
        sign.verify_file(file, public_key=public_key, fingerprint=key.fingerprint)
    signature = sign.sign_file(file, signing)
    assert signature.name == "repomd.xml.asc"
    sign.verify_file(file, public_key=public_key, fingerprint=key.fingerprint)
    with pytest.raises(ToolError, match="not a good one"):
        sign.verify_file(file, public_key=public_key, fingerprint="0" * 40)
    broken = tmp_path / "broken.asc"
    broken.write_text("no key")
    with pytest.raises(ToolError, match="cannot be read as an armored key"):
        sign.verify_file(file, public_key=broken, fingerprint=key.fingerprint)
    file.write_text("<repomd />")
    with pytest.raises(ToolError, match="not a good one"):
        sign.verify_file(file, public_key=public_key, fingerprint=key.fingerprint)

    other = Signing(gnupghome=tmp_path / "other")
    small_key(other)
    sign.sign_file(file, other)
    with pytest.raises(ToolError, match="not a good one"):
        sign.verify_file(file, public_key=public_key, fingerprint=key.fingerprint)


def test_runs_side_by_side_do_not_take_the_agent_from_each_other(signing: Signing) -> None:
    small_key(signing)

    def sign_often(number: int) -> list[str]:
        failures = []
        for attempt in range(6):
            try:
                with signing_key.open_key(signing) as signer:
                    signer.signature(f"{number} {attempt}".encode())
            except SignError as problem:
                failures.append(problem.message)
        return failures

    with ThreadPoolExecutor(max_workers=4) as pool:
        failures = [message for told in pool.map(sign_often, range(4)) for message in told]
    assert failures == []
    assert agents_of(signing.gnupghome) == []


def test_an_agent_that_a_killed_run_left_is_ended_unless_it_is_in_use(signing: Signing) -> None:
    small_key(signing)
    program = (
        "import os, sys; from pathlib import Path; from backport.signing.agent import shared_agent\n"
        "with shared_agent(Path(sys.argv[1])): os._exit(0)"
    )
    killed = [sys.executable, "-c", program, str(signing.gnupghome)]
    subprocess.run(killed, check=True, timeout=60)
    assert len(agents_of(signing.gnupghome)) == 1
    with signing_key.open_key(signing):
        assert not end_unused_agent(signing.gnupghome)
    assert agents_of(signing.gnupghome) == []
    subprocess.run(killed, check=True, timeout=60)
    assert end_unused_agent(signing.gnupghome)
    assert agents_of(signing.gnupghome) == []
    make_key(signing, "one <one@example.org>", "rsa2048", "sign", "never")
    assert not end_unused_agent(signing.gnupghome)
    assert len(agents_of(signing.gnupghome)) == 1
    end_agent(signing)
