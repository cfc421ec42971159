"""Pinned keys, and what they prove about a package: it is whole, and one of them signed it.

A key is pinned by its whole fingerprint; the file it lies in proves nothing. A package is verified
by rpm's own ``rpmkeys`` against a database that holds one pinned key alone, with signature and
digests both required (``%_pkgverify_level all``); its exit code is the result. Headers are read
with rpm's bindings, which run nothing of what the package brings.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rpm

from backport.artifacts import Nevra
from backport.errors import ToolError
from backport.files import scratch_folder, write_atomically
from backport.run import Command, run
from backport.settings import Key

VERIFY_TIMEOUT = 600.0
"""Deadline in seconds for the verification of one package."""
_BATCH = 500
"""How many packages one rpmkeys is given at most."""
_KEY_TIMEOUT = 60.0
_SIGNATURE_PACKET = 2
_ISSUER_KEY_ID = 16
_ISSUER_FINGERPRINT = 33
_SIGNATURE_TAGS = ("RSAHEADER", "DSAHEADER", "SIGPGP", "SIGGPG")
_SHA1 = "2"
_CHANGED_HINT = "it is not used; fetch or build it again, and if this stays so, ask whoever serves it"
_CERTIFICATIONS = frozenset({"10", "11", "12", "13"})

# rpm-sequoia's standard policy counts a self-signature by SHA-1 as void. For the keys that the
# settings except by fingerprint it is accepted as a binding of name and key, for which second
# preimage resistance is what counts; signatures on packages by SHA-1 stay refused.
SHA1_POLICY = '[hash_algorithms]\nsha1.second_preimage_resistance = "always"\n'
SHA1_POLICY_VARIABLE = "RPM_SEQUOIA_CRYPTO_POLICY"
"""Names the file that holds `SHA1_POLICY` to the programs that use such a key."""


def read_header(path: Path) -> Any:
    """The package's header, unverified. Raises ToolError where there is none to read."""
    rpm.setVerbosity(rpm.RPMLOG_CRIT)
    transaction = rpm.TransactionSet()
    transaction.setVSFlags(rpm.RPMVSF_MASK_NODIGESTS | rpm.RPMVSF_MASK_NOSIGNATURES)
    try:
        with path.open("rb") as stream:
            return transaction.hdrFromFdno(stream.fileno())
    except (rpm.error, OSError) as problem:
        raise ToolError(
            f"{path.name}: not a package that rpm can read ({problem})", hint=_CHANGED_HINT
        ) from None


def signers_of(header: Any) -> tuple[str, ...] | None:
    """The fingerprints and key ids by which a package's signatures name their makers, unverified.

    None where it has no signature; nothing where those that it has name nobody.
    """
    signatures = [bytes(found) for tag in _SIGNATURE_TAGS if (found := _tag(header, tag))]
    return tuple(name for signature in signatures for name in issuers(signature)) if signatures else None


def compare_evrs(one: Nevra, other: Nevra) -> int:
    """-1, 0 or 1 as one package's EVR is below, equal to or above another's."""
    labels = [(str(each.epoch), each.version, each.release) for each in (one, other)]
    return int(rpm.labelCompare(*labels))


by_evr = functools.cmp_to_key(compare_evrs)
"""A key to sort packages by: their EVRs, as rpm compares them."""


def newest(packages: Iterable[Nevra]) -> tuple[Nevra, ...]:
    """Of the packages of each name and architecture the newest."""
    return tuple({(one.name, one.arch): one for one in sorted(packages, key=by_evr)}.values())


def nevra_of(header: Any) -> Nevra:
    """The NEVRA that a header states; the architecture of a source package is ``src``."""
    return Nevra(
        name=header[rpm.RPMTAG_NAME],
        epoch=header[rpm.RPMTAG_EPOCH] or 0,
        version=header[rpm.RPMTAG_VERSION],
        release=header[rpm.RPMTAG_RELEASE],
        arch="src" if header.isSource() else header[rpm.RPMTAG_ARCH],
    )


@dataclass(frozen=True, kw_only=True)
class _Listing:
    """What a key file holds, by gpg's own reading."""

    primary: list[str] = field(default_factory=list)
    """Fingerprints of the primary keys."""
    subkeys: list[str] = field(default_factory=list)
    secret: bool = False
    revoked: bool = False
    sha1_only: bool = False
    """Whether no self-signature of the primary key uses a better digest than SHA-1."""


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What became of many packages."""

    signers: Mapping[Path, str]
    """For each that is whole and signed, the fingerprint of the pinned key that signed it."""
    wrong: Mapping[Path, str]
    """For each other, why not."""


@dataclass(frozen=True, kw_only=True)
class Keyring:
    """Pinned public keys, each in an rpm database of its own."""

    folder: Path
    owners: Mapping[str, str]
    """The primary key's fingerprint for every fingerprint and key id, of subkeys too."""
    excepted: frozenset[str]
    """Fingerprints of the keys whose self-signature may use SHA-1."""

    def verify(self, path: Path) -> str:
        """Fingerprint of the pinned key that signed the whole, unchanged package.

        Raises ToolError, which tells apart: not a package, not signed, signed by another
        key, header changed, payload changed or cut short, signature void.
        """
        claimed = self._claimed_key(path)
        if self._accepts(path, fingerprint=claimed):
            return claimed
        raise ToolError(f"{path.name}: {self._why_not(path, claimed)}", hint=_CHANGED_HINT)

    def verify_all(self, paths: Sequence[Path]) -> Verified:
        """Which packages are whole and signed by a pinned key, and by which; many at a time, by all cores."""
        cores = os.cpu_count() or 1
        size = max(1, min(_BATCH, -(-len(paths) // cores)))
        batches = [paths[start : start + size] for start in range(0, len(paths), size)]
        with ThreadPoolExecutor(cores) as pool:
            results = list(pool.map(self._verify_batch, batches))
        return Verified(
            signers={path: key for one in results for path, key in one.signers.items()},
            wrong={path: reason for one in results for path, reason in one.wrong.items()},
        )

    def _verify_batch(self, paths: Sequence[Path]) -> Verified:
        """With one pinned key nothing needs to be read to choose it; the others are asked of each package
        only where that does not do."""
        pinned = set(self.owners.values())
        if len(pinned) == 1 and self._accepts(*paths, fingerprint=min(pinned)):
            return Verified(signers=dict.fromkeys(paths, min(pinned)), wrong={})
        signers: dict[Path, str] = {}
        wrong: dict[Path, str] = {}
        for path in paths:
            try:
                signers[path] = self._claimed_key(path)
            except ToolError as problem:
                wrong[path] = problem.message
        for key in set(signers.values()):
            claimed = [path for path, found in signers.items() if found == key]
            if not self._accepts(*claimed, fingerprint=key):
                wrong |= self._verify_each(claimed)
        return Verified(signers={path: signers[path] for path in signers.keys() - wrong.keys()}, wrong=wrong)

    def _verify_each(self, paths: Sequence[Path]) -> dict[Path, str]:
        """Why packages that are not all accepted are not: those that are, are passed over by halves."""
        if len(paths) > 1:
            middle = len(paths) // 2
            halves = (paths[:middle], paths[middle:])
            return {
                path: reason
                for half in halves
                if not self._accepts(*half, fingerprint=self._claimed_key(half[0]))
                for path, reason in self._verify_each(half).items()
            }
        try:
            self.verify(paths[0])
        except ToolError as problem:
            return {paths[0]: problem.message}
        return {}

    def _claimed_key(self, path: Path) -> str:
        named = signers_of(read_header(path))
        if named is None:
            raise ToolError(
                f"{path.name}: not signed",
                hint="only packages that a pinned key signed are used; see `keys` in the recipe and the site",
            )
        for name in named:
            if name in self.owners:
                return self.owners[name]
        pinned = ", ".join(sorted(set(self.owners.values())))
        signer = named[0] if named else "of an unknown kind"
        raise ToolError(
            f"{path.name}: signed by the key {signer}, not by a pinned one ({pinned})",
            hint="pin that key by its fingerprint only if you know whose it is",
        )

    def _why_not(self, path: Path, claimed: str) -> str:
        signatures, payload = rpm.RPMVSF_MASK_NOSIGNATURES, rpm.RPMVSF_MASK_NOPAYLOAD
        if not self._accepts(path, fingerprint=claimed, level="none", ignored=signatures | payload):
            return "its header was changed after it was made"
        if not self._accepts(path, fingerprint=claimed, level="none", ignored=signatures):
            return "its payload was changed or cut short after it was made"
        return f"the signature that it bears by the key {claimed} is not valid"

    def _accepts(self, *paths: Path, fingerprint: str, level: str = "all", ignored: int = 0) -> bool:
        """Whether rpmkeys accepts the packages: at level ``all`` digests and a signature must be there
        and good, at ``none`` just what is there; ``ignored`` are rpm's RPMVSF_NO… flags."""
        words: tuple[str | Path, ...] = (
            *_define("_pkgverify_level", level), *_define("_pkgverify_flags", hex(ignored)),
            "--checksig", *(path.absolute() for path in paths),
        )  # fmt: skip
        command = self._rpmkeys(
            fingerprint, *words, timeout=VERIFY_TIMEOUT, what=f"verifying {paths[0].name}"
        )
        return run(replace(command, accept=None)).exit_code == 0

    def _import(self, fingerprint: str, file: Path) -> None:
        what = f"rpm cannot use the key {fingerprint}"
        run(self._rpmkeys(fingerprint, "--import", file, timeout=_KEY_TIMEOUT, what=what))

    def _rpmkeys(self, fingerprint: str, *words: str | Path, timeout: float, what: str) -> Command:
        policy = {SHA1_POLICY_VARIABLE: str(self.folder / "sha1-self-signature.toml")}
        return Command(
            ["rpmkeys", *_define("_dbpath", self.folder / fingerprint), *words],
            timeout=timeout, what=what, env=policy if fingerprint in self.excepted else {},
        )  # fmt: skip


def pinned_keyring(keys: Sequence[Key], folder: Path) -> Keyring:
    """A keyring below ``folder`` that holds just these keys. Raises ToolError as `checked_key` does."""
    owners: dict[str, str] = {}
    for key in keys:
        listing = _checked_listing(key)
        for name in (*listing.primary, *listing.subkeys):
            owners |= {name: key.fingerprint, name[-16:]: key.fingerprint}
    excepted = frozenset(key.fingerprint for key in keys if key.sha1_self_signature)
    keyring = Keyring(folder=folder, owners=owners, excepted=excepted)
    write_atomically(folder / "sha1-self-signature.toml", SHA1_POLICY)
    for key in keys:
        keyring._import(key.fingerprint, _export(key, folder))  # noqa: SLF001  # this module's own
    return keyring


def verify_rpm(path: Path, keys: Sequence[Key], workspace: Path) -> str:
    """Fingerprint of the one of ``keys`` that signed the whole, unchanged package at ``path``.

    For many packages make one `pinned_keyring`. Raises ToolError as `Keyring.verify` does.
    """
    with scratch_folder(workspace, "keys-") as folder:
        return pinned_keyring(keys, folder).verify(path)


def fingerprints_in(file: Path) -> tuple[str, ...]:
    """The fingerprints of the public keys that a file holds. Raises ToolError for a file of no such key."""
    with _gnupg_home() as home:
        listing = _parse_listing(_gpg(home, "--with-colons", "--show-keys", file).decode())
    if listing.secret or not listing.primary:
        raise ToolError(f"{file}: holds no public OpenPGP key" + " but a secret one" * listing.secret)
    return tuple(listing.primary)


def checked_key(key: Key, folder: Path) -> Path:
    """An armored copy in ``folder`` of the pinned key and nothing else, named by its fingerprint.

    Raises ToolError when the file cannot be read, holds other keys or a secret one, or when the key
    is revoked or bound to its name by SHA-1 without the settings' exception.
    """
    _checked_listing(key)
    return _export(key, folder)


def _export(key: Key, folder: Path) -> Path:
    with _gnupg_home() as home:
        _gpg(home, "--import-options", "self-sigs-only", "--import", key.file)
        armored = _gpg(home, "--armor", "--export", key.fingerprint)
    copy = folder / f"{key.fingerprint}.asc"
    write_atomically(copy, armored)
    return copy


def _checked_listing(key: Key) -> _Listing:
    if not key.file.is_file():
        raise ToolError(
            f"the key {key.fingerprint} is not at {key.file}",
            hint="Fedora's keys come with the package distribution-gpg-keys; correct `file` of the key",
        )
    with _gnupg_home() as home:
        listing = _parse_listing(
            _gpg(home, "--with-colons", "--with-sig-list", "--show-keys", key.file).decode()
        )
    if fault := _fault(key, listing):
        raise ToolError(f"{key.file}: {fault}", hint="correct `fingerprint` or `file` of the key")
    if listing.sha1_only and not key.sha1_self_signature:
        raise ToolError(
            f"{key.file}: the key {key.fingerprint} is bound to its name by SHA-1 alone",
            hint="if the fingerprint is the right one, set `sha1_self_signature = true` for this key",
        )
    return listing


def _fault(key: Key, listing: _Listing) -> str | None:
    if listing.secret:
        return "holds a secret key, where only a public one belongs"
    if listing.primary != [key.fingerprint]:
        found = ", ".join(listing.primary) or "no OpenPGP key at all"
        return f"holds {found}, not just the pinned {key.fingerprint}"
    if listing.revoked:
        return f"the key {key.fingerprint} is revoked"
    return None


def _parse_listing(text: str) -> _Listing:
    """Read gpg's colon listing (its doc/DETAILS): pub or sub, then fpr; sig has the digest in field 16."""
    primary: list[str] = []
    subkeys: list[str] = []
    digests: set[str] = set()
    secret = revoked = False
    current, key_id = primary, ""
    for line in text.splitlines():
        fields = [*line.split(":"), *[""] * 20]
        match fields[0]:
            case "pub" | "sec":
                current, key_id = primary, fields[4]
                secret |= fields[0] == "sec"
                revoked |= fields[1] == "r"
            case "sub" | "ssb":
                current = subkeys
            case "fpr":
                current.append(fields[9])
            case "sig" if current is primary and fields[4] == key_id and fields[10][:2] in _CERTIFICATIONS:
                digests.add(fields[15])
    return _Listing(
        primary=primary, subkeys=subkeys, secret=secret, revoked=revoked, sha1_only=digests == {_SHA1}
    )


def _gnupg_home() -> contextlib.AbstractContextManager[Path]:
    """An empty GNUPGHOME. It lies below the system's temporary folder, since gpg looks there for sockets
    and the path of a socket must be short (108 bytes)."""
    return scratch_folder(Path(tempfile.gettempdir()), "backport-gnupg-")


def _gpg(home: Path, *arguments: str | Path) -> bytes:
    home.chmod(0o700)
    command = Command(
        ["gpg", "--homedir", home, "--batch", "--quiet", "--no-autostart", *arguments],
        timeout=_KEY_TIMEOUT, what=f"gpg cannot read {arguments[-1]}",
        hint="the file must hold one public OpenPGP key, armored or binary",
    )  # fmt: skip
    return run(command).output


def _define(macro: str, value: object) -> tuple[str, str]:
    return "--define", f"{macro} {value}"


def _tag(header: Any, name: str) -> Any:
    return header[getattr(rpm, f"RPMTAG_{name}")]


def issuers(signature: bytes) -> tuple[str, ...]:
    """The fingerprints and key ids (upper-case hex) that a signature packet names as its maker's.

    Fingerprints come first. A signature of an unknown form names nobody. This only reads the claim, to choose
    the key that must then verify and to explain a refusal. RFC 4880, sections 4.2
    (packet headers), 5.2.2 (version 3) and 5.2.3 (version 4); RFC 9580, section 5.2.3.35 (issuer
    fingerprint).
    """
    try:
        body = _packet_body(signature)
        if body[0] == 3:
            return (body[7:15].hex().upper(),)
        if body[0] == 4:
            return tuple(sorted(_named_in_version_4(body), key=len, reverse=True))
    except IndexError:
        pass
    return ()


def _packet_body(packet: bytes) -> bytes:
    first = packet[0]
    if not first & 0x80:
        raise IndexError("not a packet")
    if first & 0x40:
        tag, (start, length) = first & 0x3F, _length(packet, 1)
    else:
        tag, width = (first >> 2) & 0x0F, 1 << (first & 3)
        start, length = 1 + width, int.from_bytes(packet[1 : 1 + width], "big")
    if tag != _SIGNATURE_PACKET or start + length > len(packet):
        raise IndexError("not a whole signature packet")
    return packet[start : start + length]


def _named_in_version_4(body: bytes) -> Iterator[str]:
    hashed = int.from_bytes(body[4:6], "big")
    unhashed = int.from_bytes(body[6 + hashed : 8 + hashed], "big")
    for area in (body[6 : 6 + hashed], body[8 + hashed : 8 + hashed + unhashed]):
        for kind, content in _subpackets(area):
            if kind == _ISSUER_KEY_ID and len(content) == 8:
                yield content.hex().upper()
            elif kind == _ISSUER_FINGERPRINT and len(content) in (21, 33):
                yield content[1:].hex().upper()


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(area):
        start, length = _length(area, position)
        if not length or start + length > len(area):
            raise IndexError("not a whole subpacket")
        yield area[start] & 0x7F, area[start + 1 : start + length]
        position = start + length


def _length(data: bytes, position: int) -> tuple[int, int]:
    """Where the content begins, and its length, for a length in one, two or five octets."""
    first = data[position]
    if first < 192:
        return position + 1, first
    if first < 255:
        return position + 2, ((first - 192) << 8) + data[position + 1] + 192
    return position + 5, int.from_bytes(data[position + 1 : position + 5], "big")
