"""What gpg's machine-readable output and a signature's failure are taken for."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backport.errors import SignError
from backport.signing import detached, sign
from backport.signing import key as signing_key
from backport.signing.key import KeyInfo, Signer
from backport.site import Signing

FINGERPRINT = "E44AD909ED9FE1AF8FC668585BE8A1FB20B71181"
CREATED = 1795490178
GOOD = (
    f"sec:u:4096:1:{FINGERPRINT[-16:]}:{CREATED}:::u:::scSC:::+:::23::0:\n"
    f"fpr:::::::::{FINGERPRINT}:\n"
    "grp:::::::::C721E8FF9C2AF7D1D027F1B49C4A077C8195150A:\n"
    f"uid:u::::{CREATED}::76257FCE8A8695D4BC122220AB6E1A52B83680E5::"
    "Zoë\\x3a a \\\\ b <zoe@example.org>::::::::::0:\n"
)
SUBKEY = (
    f"ssb:u:2048:1:0000000000000000:{CREATED}:::::s:::+:::23:\n"
    "fpr:::::::::AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA:\n"
)


def chosen(text: str, *, key: str | None = None) -> str:
    signing = Signing(gnupghome=Path("/gnupg"), key=key)
    return signing_key._choose(signing_key.parse_secret_keys(text), signing).fingerprint


def test_a_listing_gives_primary_keys_with_their_first_user_id() -> None:
    (key,) = signing_key.parse_secret_keys(GOOD + SUBKEY)
    assert key.fingerprint == FINGERPRINT
    assert key.user_id == "Zoë: a \\\\ b <zoe@example.org>"
    assert key.created == datetime.fromtimestamp(CREATED, UTC)
    assert key.expires is None


def test_a_key_without_a_user_id_is_still_listed() -> None:
    (key,) = signing_key.parse_secret_keys("".join(GOOD.splitlines(keepends=True)[:2]))
    assert key.user_id == ""


def test_the_only_key_is_chosen() -> None:
    assert chosen(GOOD + SUBKEY) == FINGERPRINT


def test_among_several_the_fingerprint_decides() -> None:
    other = "B" * 40
    both = GOOD + GOOD.replace(FINGERPRINT, other)
    assert chosen(both, key=other) == other
    with pytest.raises(SignError, match="holds 2 secret keys") as told:
        chosen(both)
    assert FINGERPRINT in told.value.message
    assert other in told.value.message


def test_a_missing_key_is_told() -> None:
    with pytest.raises(SignError, match="there is no secret key in /gnupg"):
        chosen("")
    with pytest.raises(SignError, match=f"the secret key {'C' * 40} is not in /gnupg"):
        chosen(GOOD, key="C" * 40)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sec:u:", "sec:r:", "is revoked"),
        ("sec:u:", "sec:i:", "is not valid or disabled"),
        ("scSC", "scSCD", "is not valid or disabled"),
        (f"{CREATED}:::u", f"{CREATED}:86400::u", "expired on 1970-01-02"),
        ("sec:u:", "sec:e:", "is expired"),
        (":4096:1:", ":256:22:", "is not an RSA key"),
        ("scSC", "cSC", "signs only by a subkey"),
        (":::+:::", ":::#:::", "lacks its secret part"),
    ],
)
def test_an_unusable_key_is_refused_with_its_reason(old: str, new: str, message: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(SignError, match=message) as told:
        chosen(text)
    assert told.value.hint


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (67108875, "the passphrase is wrong"),
        (67108949, "nobody to ask"),
        (17, "secret part"),
        (99, "error 99"),
    ],
)
def test_the_reason_of_a_failure_is_libgpg_errors_code(code: int, reason: str) -> None:
    status = f"[GNUPG:] KEY_CONSIDERED {FINGERPRINT} 0\n[GNUPG:] FAILURE sign {code}\n"
    assert reason in signing_key._why_not(status)[0]


def test_no_reason_is_said_to_be_none() -> None:
    assert signing_key._why_not("") == ("gpg says no reason", None)


def test_macros_keep_every_path_in_one_piece() -> None:
    key = KeyInfo(fingerprint=FINGERPRINT, user_id="", created=datetime.now(UTC), expires=None, public_key="")
    signing = Signing(gnupghome=Path("/gnu pg"), passphrase_file=Path("/a b%c'd"))
    words = sign._macros(Signer(key=key, signing=signing, digest="sha256"))
    assert words[::2] == ("--define",) * 5
    defined = dict(word.split(" ", 1) for word in words[1::2])
    assert defined["_gpg_path"] == "/gnu pg"
    assert defined["_gpg_name"] == f"{FINGERPRINT}!"
    assert "'/a b%%c'\"'\"'d'" in defined["_gpg_sign_cmd_extra_args"]
    assert "--digest-algo sha256" in defined["_gpg_sign_cmd_extra_args"]


def test_armor_is_taken_off() -> None:
    begin, end = "-----BEGIN PGP PUBLIC KEY BLOCK-----", "-----END PGP PUBLIC KEY BLOCK-----"
    armored = f"{begin}\nComment: x\n\nAQID\nBA==\n=abcd\n{end}\n"
    assert detached.dearmored(armored.encode()) == b"\1\2\3\4"


def test_a_home_whose_sockets_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 30)
    home.mkdir(mode=0o700)
    with pytest.raises(SignError, match="too long a path"):
        sign.show_key(Signing(gnupghome=home))
