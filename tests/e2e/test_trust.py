"""Real packages and keys: what is accepted, and that every refusal names its own reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import koji
import pytest

from backport.errors import ToolError
from backport.settings import Key
from backport.trust import checked_key, nevra_of, pinned_keyring, read_header, verify_rpm
from tests.e2e.small_koji import Signer, source_rpm, tool

OLD_SELF_SIGNATURE = ("--faked-system-time", "20180101T000000!", "--cert-digest-algo", "SHA1")
"""How the primary keys of Fedora 25 to 33 were made."""


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    signer = Signer(home=tmp_path_factory.mktemp("signer") / "gnupg")
    signer.make("release")
    signer.make("other")
    signer.make("old", *OLD_SELF_SIGNATURE)
    yield signer
    signer.close()


@pytest.fixture(scope="module")
def signed(signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | None], Path]:
    """The same package signed by the key of that name, or not at all."""
    folder = tmp_path_factory.mktemp("packages")
    unsigned = source_rpm(folder / "work", "tiny-1-1.fc29", size=20_000)
    packages: dict[str | None, Path] = {None: unsigned}
    for name in ("release", "other", "old"):
        packages[name] = folder / f"{name}.src.rpm"
        packages[name].write_bytes(unsigned.read_bytes())
        signer.sign(packages[name], name)
    return packages.__getitem__


def changed(package: Path, folder: Path, *, at: int) -> Path:
    content = bytearray(package.read_bytes())
    content[at] ^= 1
    copy = folder / package.name
    copy.write_bytes(content)
    return copy


def refusal(package: Path, keys: list[Key], workspace: Path) -> str:
    with pytest.raises(ToolError) as refused:
        verify_rpm(package, keys, workspace)
    return refused.value.message


def test_signature_by_a_pinned_key_is_accepted(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path
) -> None:
    keys = [signer.keys["other"], signer.keys["release"]]
    assert verify_rpm(signed("release"), keys, tmp_path) == signer.keys["release"].fingerprint
    assert verify_rpm(signed("other"), keys, tmp_path) == signer.keys["other"].fingerprint
    assert not list(tmp_path.iterdir())


def test_unsigned_package_is_refused(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path
) -> None:
    assert refusal(signed(None), [signer.keys["release"]], tmp_path) == "tiny-1-1.fc29.src.rpm: not signed"


def test_signature_by_another_key_is_refused(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path
) -> None:
    message = refusal(signed("other"), [signer.keys["release"]], tmp_path)
    assert f"signed by the key {signer.keys['other'].fingerprint}" in message
    assert signer.keys["release"].fingerprint in message


def test_changes_are_told_apart(signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path) -> None:
    package, keys = signed("release"), [signer.keys["release"]]
    content = package.read_bytes()
    start, length = koji.find_rpm_sighdr(str(package))
    in_header = content.index(b"A small package", start + length)
    assert "header was changed" in refusal(changed(package, tmp_path, at=in_header), keys, tmp_path)
    assert "payload was changed" in refusal(
        changed(package, tmp_path, at=len(content) - 5000), keys, tmp_path
    )
    signature = bytes(read_header(package)["RSAHEADER"])
    in_signature = content.index(signature) + len(signature) - 20
    assert "is not valid" in refusal(changed(package, tmp_path, at=in_signature), keys, tmp_path)


@pytest.mark.parametrize("names", [("release",), ("release", "other")])
def test_of_many_packages_just_the_bad_ones_are_told(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path, names: tuple[str, ...]
) -> None:
    good = {}
    for number in range(13):
        name = names[number % len(names)]
        good[tmp_path / f"{number}.src.rpm"] = signer.keys[name].fingerprint
        (tmp_path / f"{number}.src.rpm").write_bytes(signed(name).read_bytes())
    bad = changed(signed("release"), tmp_path, at=-20)
    unsigned, old = signed(None), signed("old")
    keyring = pinned_keyring([signer.keys[name] for name in names], tmp_path / "keyring")
    paths = list(good)
    found = keyring.verify_all([*paths[:5], bad, *paths[5:9], unsigned, old, *paths[9:]])
    assert found.signers == good
    assert set(found.wrong) == {bad, unsigned, old}
    assert "payload was changed" in found.wrong[bad]
    assert "not signed" in found.wrong[unsigned]
    assert f"signed by the key {signer.keys['old'].fingerprint}" in found.wrong[old]
    assert keyring.verify_all([]).wrong == {}


@pytest.mark.parametrize(
    ("keep", "reason"), [(-5000, "cut short"), (3000, "rpm can read"), (0, "rpm can read")]
)
def test_truncated_package_is_refused(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path, keep: int, reason: str
) -> None:
    package = tmp_path / "cut.src.rpm"
    package.write_bytes(signed("release").read_bytes()[:keep])
    assert reason in refusal(package, [signer.keys["release"]], tmp_path)


def test_what_is_no_package_is_refused(signer: Signer, tmp_path: Path) -> None:
    package = tmp_path / "page.src.rpm"
    package.write_text("<html>Not what you asked for</html>" * 100)
    assert "not a package that rpm can read" in refusal(package, [signer.keys["release"]], tmp_path)


def test_self_signature_by_sha1_needs_the_exception(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path
) -> None:
    plain = signer.keys["old"]
    excepted = plain.model_copy(update={"sha1_self_signature": True})
    message = refusal(signed("old"), [plain], tmp_path)
    assert "SHA-1 alone" in message
    assert verify_rpm(signed("old"), [excepted], tmp_path) == plain.fingerprint


def test_exception_is_for_that_key_alone(
    signer: Signer, signed: Callable[[str | None], Path], tmp_path: Path
) -> None:
    excepted = signer.keys["old"].model_copy(update={"sha1_self_signature": True})
    keyring = pinned_keyring([excepted, signer.keys["release"]], tmp_path)
    assert keyring.excepted == {excepted.fingerprint}
    assert keyring.verify(signed("release")) == signer.keys["release"].fingerprint


def test_header_is_read_without_verification(signed: Callable[[str | None], Path]) -> None:
    assert str(nevra_of(read_header(signed(None)))) == "tiny-1:1-1.fc29.src"


def test_checked_key_is_a_copy_of_the_one_key(signer: Signer, tmp_path: Path) -> None:
    key = signer.keys["release"]
    copy = checked_key(key, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{key.fingerprint}.asc"]
    assert copy.read_text().startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")
    listing = tool("gpg", "--homedir", signer.home, "--batch", "--with-colons", "--show-keys", copy)
    assert f":{key.fingerprint}:" in listing
    binary = tmp_path / "binary.gpg"
    binary.write_bytes(copy.read_bytes())
    tool("gpg", "--homedir", signer.home, "--batch", "--yes", "--output", binary, "--dearmor", copy)
    assert checked_key(key.model_copy(update={"file": binary}), tmp_path) == copy


def test_key_files_with_anything_else_are_refused(signer: Signer, tmp_path: Path) -> None:
    key = signer.keys["release"]
    both = tmp_path / "both.asc"
    both.write_text(key.file.read_text() + signer.keys["other"].file.read_text())
    secret = tmp_path / "secret.asc"
    secret.write_text(
        tool("gpg", "--homedir", signer.home, "--batch", "--armor", "--export-secret-keys", key.fingerprint)
    )
    noise = tmp_path / "noise.asc"
    noise.write_text("no key at all\n")
    wrong = signer.keys["other"].file
    for file, reason in (
        (both, "not just the pinned"),
        (secret, "secret key"),
        (noise, "gpg cannot read"),
        (wrong, "not just the pinned"),
        (tmp_path / "missing.asc", "is not at"),
    ):
        with pytest.raises(ToolError, match=reason):
            checked_key(key.model_copy(update={"file": file}), tmp_path)
    assert not list(tmp_path.glob(f"{key.fingerprint}*"))


def test_revoked_key_is_refused(tmp_path: Path) -> None:
    signer = Signer(home=tmp_path / "gnupg")
    key = signer.make("gone")
    certificate = signer.home / "openpgp-revocs.d" / f"{key.fingerprint}.rev"
    revocation = tmp_path / "revocation.asc"
    revocation.write_text(certificate.read_text().replace(":-----BEGIN", "-----BEGIN"))
    tool("gpg", "--homedir", signer.home, "--batch", "--import", revocation)
    revoked = signer.add("gone")
    signer.close()
    with pytest.raises(ToolError, match="is revoked"):
        checked_key(revoked, tmp_path)
