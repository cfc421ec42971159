"""The signing key in its GNUPGHOME, detached signatures by it, and their verification.

gpg is told everything by its arguments and says everything by ``--with-colons``, ``--status-fd`` and
exit codes (GnuPG's doc/DETAILS). The passphrase stays in its file or with gpg's agent, see `agent`.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from backport.errors import SignError, as_kind
from backport.files import scratch_folder, write_atomically
from backport.run import Command, Completed, run
from backport.settings import Fingerprint
from backport.signing.agent import shared_agent
from backport.signing.detached import good_signer
from backport.site import Signing

Digest = str
"""A digest as gpg names it: ``sha256`` or ``sha512``."""

STATE_FILE = "backport-signing-key"
"""In the GNUPGHOME, once a second key was made: on the first line the fingerprint of the key that signs, on
the others those of the keys that clients are to know besides."""
_GPG_TIMEOUT = 60.0
_STATUS_LIMIT = 64 * 1024
_KEY_TIMEOUT = 600.0
_HOME_LIMIT = 80
"""gpg's agent puts a socket of up to 20 characters into its home; a socket's path has at most 107."""
_RSA = {"1", "3"}
"""RSA's numbers in OpenPGP (RFC 4880, section 9.1)."""
_PREFERENCES = "SHA256 SHA512 SHA384 AES256 AES192 AES ZLIB ZIP Uncompressed"
_FAILURES = {
    11: (
        "the passphrase is wrong",
        "correct the first line of the file that `signing.passphrase_file` names",
    ),
    17: ("its secret part is not there", "put the secret key back, or make a new key"),
    85: (
        "it needs a passphrase, and there is nobody to ask",
        "set `signing.passphrase_file`, or preset the passphrase in gpg's agent",
    ),
}
"""What the commonest codes of libgpg-error mean for a signature, and what to do."""


@dataclass(frozen=True, kw_only=True)
class KeyInfo:
    """The signing key: whole fingerprint, user id, dates, and the public key in armor."""

    fingerprint: Fingerprint
    user_id: str
    created: datetime
    expires: datetime | None
    public_key: str


@dataclass(frozen=True, kw_only=True)
class _SecretKey:
    """One secret key as gpg's colon listing describes it."""

    fingerprint: str
    user_id: str
    validity: str
    algorithm: str
    capabilities: str
    token: str
    created: datetime
    expires: datetime | None


@dataclass(frozen=True, kw_only=True)
class Signer:
    """The opened key; good while the `open_key` that gave it lasts."""

    key: KeyInfo
    signing: Signing
    digest: Digest

    def sign_file(self, path: Path) -> Path:
        """Put a detached, armored signature beside ``path`` as ``<path>.asc``. Raises SignError."""
        signature = path.with_name(f"{path.name}.asc")
        write_atomically(signature, self.signature(path.read_bytes()))
        return signature

    def signature(self, content: bytes) -> bytes:
        """A detached, armored signature over ``content``.

        Raises SignError for a wrong or missing passphrase or an absent secret key.
        """
        status = os.memfd_create("status")
        try:
            command = _gpg(
                self.signing, *self.arguments(), "--status-fd", str(status), "--armor",
                # The exclamation mark bars subkeys.
                "--local-user", f"{self.key.fingerprint}!", "--output", "-", "--detach-sign",
            )  # fmt: skip
            completed = _run(replace(command, stdin=content, accept=None, pass_fds=(status,)))
            said = os.pread(status, _STATUS_LIMIT, 0).decode("utf-8", "replace")
        finally:
            os.close(status)
        if completed.exit_code != 0:
            reason, hint = _why_not(said)
            raise SignError(f"the key {self.key.fingerprint} cannot sign: {reason}", hint=hint)
        return completed.output

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Whether a detached signature (without armor) is a good one by any key of the GNUPGHOME, where those
        that signed before the present one stay."""
        place = Path(tempfile.gettempdir())
        with as_kind(SignError), scratch_folder(place, "backport-keyring-") as scratch:
            return bool(good_signer(content, signature, self.signing.gnupghome, scratch))

    def arguments(self) -> tuple[str, ...]:
        """The arguments that gpg gets for every signature by this key."""
        return (*_passphrase_arguments(self.signing), "--digest-algo", self.digest)


def init_key(signing: Signing, packager: str) -> KeyInfo:
    """Make the signing key and give it: RSA with 4096 bits, for signatures alone, without an end.

    RSA, because the rpm of Fedora 28 (4.14) verifies nothing newer; without an end, because rpm
    never refreshes a key that it has imported. The GNUPGHOME is made with mode 0700. Raises
    SignError when it holds a secret key already.
    """
    home = signing.gnupghome
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened(signing) as keys:
        if keys:
            raise SignError(
                f"{home} holds the key {keys[0].fingerprint} already",
                hint="use it, or make another to take its place with `backport keys rollover`",
            )
        _make_key(signing, packager)
        return _key_info(signing, _choose(_secret_keys(signing), signing))


def add_key(signing: Signing, packager: str) -> tuple[KeyInfo, KeyInfo]:
    """Make a second key, certified by the one that signs now; both, the one that signs first.

    Raises SignError when a second key was made before, or the present one cannot certify.
    """
    with _opened(signing) as keys:
        now = _choose(keys, signing)
        _make_key(signing, packager)
        old = {key.fingerprint for key in keys}
        (new,) = [key for key in _secret_keys(signing) if key.fingerprint not in old]
        command = _gpg(
            signing, *_passphrase_arguments(signing), "--cert-digest-algo", "sha256",
            "--trust-model", "always", "--default-key", now.fingerprint,
            "--quick-sign-key", new.fingerprint, what="the new key could not be certified",
        )  # fmt: skip
        _run(command)
        return _key_info(signing, now), _key_info(signing, new)


def other_keys(signing: Signing) -> tuple[KeyInfo, ...]:
    """The keys that clients are to know besides the one that signs. Raises SignError."""
    if len(key_state(signing)) < 2:
        return ()
    with _opened(signing) as keys:
        signs = _choose(keys, signing).fingerprint
        wanted = set(key_state(signing)) - {signs}
        return tuple(_key_info(signing, key) for key in keys if key.fingerprint in wanted)


def public_key(signing: Signing, fingerprint: str) -> str | None:
    """The armored public key that the GNUPGHOME has under this fingerprint; None where it has none such.

    Raises SignError.
    """
    _check_home(signing)
    return _run(replace(_export(signing, fingerprint), accept=None)).output.decode("ascii") or None


def public_keys(signing: Signing) -> dict[str, str]:
    """Every public key of the GNUPGHOME in armor, by its fingerprint: those that signed before, too.

    Raises SignError.
    """
    _check_home(signing)
    command = _gpg(signing, "--with-colons", "--list-keys", what="the public keys cannot be listed")
    found: list[str] = []
    primary = False
    for fields in (line.split(":") for line in _run(command).text.splitlines()):
        if primary and fields[0] == "fpr":
            found.append(fields[9])
        primary = fields[0] == "pub" or (primary and fields[0] != "fpr")
    return {fingerprint: _exported(signing, fingerprint) for fingerprint in found}


def _make_key(signing: Signing, packager: str) -> None:
    command = _gpg(
        signing, *_passphrase_arguments(signing, new=True), "--cert-digest-algo", "sha256",
        # By --yes gpg makes a key although there is one of the same name, as at a change of the key.
        "--yes", "--default-preference-list", _PREFERENCES, "--quick-generate-key", "--", packager,
        "rsa4096", "sign", "never", what="no key could be made",
    )  # fmt: skip
    _run(replace(command, timeout=_KEY_TIMEOUT))


def show_key(signing: Signing) -> KeyInfo:
    """The key that the settings name, or the only one there is.

    Raises SignError when it is missing, not the only one, expired, revoked, or not an RSA key that
    signs by itself.
    """
    with _opened(signing) as keys:
        return _key_info(signing, _choose(keys, signing))


@contextlib.contextmanager
def open_key(signing: Signing, *, digest: Digest = "sha256") -> Iterator[Signer]:
    """The key, ready to sign; its agent ends with the block. Raises SignError."""
    with _opened(signing) as keys:
        key = _key_info(signing, _choose(keys, signing))
        yield Signer(key=key, signing=signing, digest=digest)


def sign_file(path: Path, signing: Signing) -> Path:
    """A detached, armored signature of one file, as ``<path>.asc`` beside it. Raises SignError."""
    with open_key(signing) as signer:
        return signer.sign_file(path)


@contextlib.contextmanager
def _opened(signing: Signing) -> Iterator[list[_SecretKey]]:
    """The secret keys of the GNUPGHOME; its agent ends with the block."""
    _check_home(signing)
    with shared_agent(signing.gnupghome):
        yield _secret_keys(signing)


def _check_home(signing: Signing) -> None:
    home = signing.gnupghome
    if not home.is_dir():
        raise SignError(
            f"there is no signing key: {home} does not exist",
            hint="make a key with `backport keys init`, or correct `signing.gnupghome` in the site file",
        )
    if stat.S_IMODE(home.stat().st_mode) & 0o077:
        raise SignError(f"{home}: others may enter the folder of the secret key", hint=f"chmod 700 {home}")
    if len(str(home)) > _HOME_LIMIT:
        raise SignError(
            f"{home}: too long a path for gpg's agent, which makes sockets in it",
            hint=f"use a path of at most {_HOME_LIMIT} characters as `signing.gnupghome`",
        )
    if signing.passphrase_file:
        _check_passphrase_file(signing.passphrase_file)


def _check_passphrase_file(path: Path) -> None:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        readable = path.open("rb")
    except OSError as problem:
        raise SignError(
            f"{path}: the passphrase cannot be read: {problem.strerror}",
            hint="correct `signing.passphrase_file` in the site file",
        ) from None
    readable.close()
    if mode & 0o007:
        raise SignError(f"{path}: everybody may read the passphrase", hint=f"chmod 600 {path}")


def _secret_keys(signing: Signing) -> list[_SecretKey]:
    what = "the secret keys cannot be listed"
    return parse_secret_keys(_run(_gpg(signing, "--with-colons", "--list-secret-keys", what=what)).text)


def parse_secret_keys(text: str) -> list[_SecretKey]:
    """The primary secret keys of gpg's colon listing; each with its first user id (doc/DETAILS)."""
    blocks: list[dict[str, list[str]]] = []
    for line in text.splitlines():
        fields = [*line.split(":"), *[""] * 20]
        if fields[0] == "sec":
            blocks.append({"sec": fields})
        elif blocks and fields[0] in {"ssb", "fpr", "uid"}:
            blocks[-1].setdefault(fields[0], fields)
    return [
        _SecretKey(
            fingerprint=block["fpr"][9],
            user_id=_unescape(block["uid"][9]) if "uid" in block else "",
            validity=block["sec"][1],
            algorithm=block["sec"][3],
            capabilities=block["sec"][11],
            token=block["sec"][14],
            created=_time(block["sec"][5]) or datetime.fromtimestamp(0, UTC),
            expires=_time(block["sec"][6]),
        )
        for block in blocks
    ]


def key_state(signing: Signing) -> tuple[str, ...]:
    """The fingerprints of the key that signs and of those that clients are to know besides; see `STATE_FILE`.

    Empty where there was only ever one key. Raises SignError.
    """
    path = signing.gnupghome / STATE_FILE
    try:
        lines = path.read_text("ascii").split() if path.exists() else []
    except (OSError, ValueError) as problem:
        raise SignError(f"{path}: cannot be read: {problem}") from None
    if not all(re.fullmatch("[0-9A-F]{40}", line) for line in lines):
        raise SignError(f"{path}: does not hold fingerprints", hint="restore it from a copy")
    return tuple(lines)


def _choose(keys: Sequence[_SecretKey], signing: Signing) -> _SecretKey:
    where = signing.gnupghome
    wanted_one = signing.key or next(iter(key_state(signing)), None)
    if wanted_one:
        keys = [key for key in keys if key.fingerprint == wanted_one]
    if not keys:
        wanted = f"the secret key {wanted_one}" if wanted_one else "no secret key"
        raise SignError(
            f"{wanted} is not in {where}" if wanted_one else f"there is {wanted} in {where}",
            hint="make a key with `backport keys init`, or correct `signing` in the site file",
        )
    if len(keys) > 1:
        known = ", ".join(f"{key.fingerprint} ({key.user_id})" for key in keys)
        raise SignError(
            f"{where} holds {len(keys)} secret keys: {known}",
            hint="name one of these fingerprints as `signing.key` in the site file",
        )
    if fault := _fault(keys[0]):
        raise SignError(f"the signing key {keys[0].fingerprint} {fault[0]}", hint=fault[1])
    return keys[0]


def _fault(key: _SecretKey) -> tuple[str, str] | None:
    """What is wrong with the key, and what to do; the validity's letters are those of doc/DETAILS."""
    another = "use another key: name its fingerprint as `signing.key`, or make one with `backport keys init`"
    prolong = f"prolong it with `gpg --quick-set-expire {key.fingerprint} 2y`; clients import it again then"
    expired = key.validity == "e" or bool(key.expires and key.expires <= datetime.now(UTC))
    faults = (
        (key.validity == "r", "is revoked", another),
        (expired, f"expired on {key.expires:%Y-%m-%d}" if key.expires else "is expired", prolong),
        (key.validity in {"i", "d"} or "D" in key.capabilities, "is not valid or disabled", another),
        (key.algorithm not in _RSA, "is not an RSA key, the only kind that old rpm verifies", another),
        ("s" not in key.capabilities, "signs only by a subkey, which old rpm does not verify", another),
        (key.token == "#", "lacks its secret part", "put the secret key back into that GNUPGHOME"),
    )
    return next(((reason, hint) for applies, reason, hint in faults if applies), None)


def _key_info(signing: Signing, key: _SecretKey) -> KeyInfo:
    return KeyInfo(
        fingerprint=key.fingerprint,
        user_id=key.user_id,
        created=key.created,
        expires=key.expires,
        public_key=_exported(signing, key.fingerprint),
    )


def _exported(signing: Signing, fingerprint: str) -> str:
    return _run(_export(signing, fingerprint)).output.decode("ascii")


def _export(signing: Signing, fingerprint: str) -> Command:
    """What gives the public key as clients get it."""
    return _gpg(
        signing, "--armor", "--no-emit-version", "--export-options", "export-clean", "--export", fingerprint,
        what="the public key cannot be exported",
    )  # fmt: skip


def _passphrase_arguments(signing: Signing, *, new: bool = False) -> tuple[str, ...]:
    """How gpg gets the passphrase: from its file; else none for a new key, and the agent's for another."""
    if signing.passphrase_file:
        return ("--pinentry-mode", "loopback", "--passphrase-file", str(signing.passphrase_file))
    if new:
        return ("--pinentry-mode", "loopback", "--passphrase", "")
    return ("--pinentry-mode", "error")


def _gpg(signing: Signing, *arguments: str, what: str | None = None) -> Command:
    return Command(
        ["gpg", "--batch", "--no-tty", "--quiet", *arguments], timeout=_GPG_TIMEOUT, what=what,
        env={"GNUPGHOME": str(signing.gnupghome)},
    )  # fmt: skip


@as_kind(SignError)
def _run(command: Command) -> Completed:
    return run(command)


def _why_not(status: str) -> tuple[str, str | None]:
    """The reason for a failed signature from gpg's status lines: FAILURE's code is libgpg-error's."""
    for line in status.splitlines():
        match line.split():
            case ["[GNUPG:]", "FAILURE", _, code, *_]:
                number = int(code) & 0xFFFF
                return _FAILURES.get(number, (f"gpg's error {number}", None))
    return "gpg says no reason", None


def _unescape(field: str) -> str:
    """A user id as it is; gpg writes colons and control characters in it by their hexadecimal codes."""
    plain = re.sub(rb"\\x([0-9a-f]{2})", lambda code: bytes.fromhex(code[1].decode()), field.encode())
    return plain.decode("utf-8", "replace")


def _time(field: str) -> datetime | None:
    return datetime.fromtimestamp(int(field), UTC) if field else None
