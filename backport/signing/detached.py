"""Detached OpenPGP signatures: whose a signature is, if it is a good one.

Files are read here and given to gpg, so that none is waited for and no link is followed; what gpg says is
read from its status lines (GnuPG's doc/DETAILS).
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path

from backport.errors import ToolError
from backport.files import read_regular, scratch_folder
from backport.run import Command, run
from backport.settings import Key

_GPG_TIMEOUT = 60.0
_ARMOR_LIMIT = 8 * 1024 * 1024
"""Bytes of the largest key or signature."""
_CONTENT_LIMIT = 256 * 1024 * 1024
"""Bytes of the largest file with a detached signature, which is one of evidence."""


def verify_file(path: Path, *, public_key: Path, fingerprint: str) -> None:
    """Check ``<path>.asc`` against the file: made by this very key, and good.

    Raises ToolError when signature or key is missing or no plain file, the key is revoked or expired, or the
    signature is by another key or not over this content.
    """
    beside = path.with_name(f"{path.name}.asc")
    try:
        signature = dearmored(read_regular(beside, limit=_ARMOR_LIMIT))
        content = read_regular(path, limit=_CONTENT_LIMIT)
    except FileNotFoundError as problem:
        if problem.filename != str(beside):
            raise ToolError(f"{path}: is missing") from None
        raise ToolError(f"{path}: is not signed", hint=f"{beside.name} must lie beside it") from None
    except OSError as problem:
        raise ToolError(f"{problem.filename}: cannot be read: {problem.strerror}") from None
    except ValueError:
        raise ToolError(f"{beside}: is no armored signature") from None
    key = Key(fingerprint=fingerprint, file=public_key)
    if signer_of(content, signature, [key]) != fingerprint:
        raise ToolError(f"{path}: its signature is not a good one by the key {fingerprint}")


def signer_of(content: bytes, signature: bytes, keys: Sequence[Key]) -> str:
    """The fingerprint of that one of ``keys`` by which a detached signature (without armor) over ``content``
    was made; empty when none made it, it is not good, or that key is revoked or expired.

    Raises ToolError when a key cannot be read.
    """
    with scratch_folder(Path(tempfile.gettempdir()), "backport-keyring-") as scratch:
        rings: list[str | Path] = []
        for number, key in enumerate(keys):
            ring = scratch / f"{number}.gpg"
            try:
                ring.write_bytes(dearmored(read_regular(key.file, limit=_ARMOR_LIMIT)))
            except (OSError, ValueError) as problem:
                raise ToolError(f"{key.file}: cannot be read as an armored key: {problem}") from None
            rings += ["--keyring", ring]
        found = good_signer(content, signature, scratch, scratch, *rings)
    return found if found in {key.fingerprint for key in keys} else ""


def good_signer(content: bytes, signature: bytes, home: Path, scratch: Path, *keyrings: str | Path) -> str:
    """Whose a signature is, by gpg's status lines: GOODSIG is there for no key that is revoked or expired."""
    file = scratch / "signature"
    file.write_bytes(signature)
    command = Command(
        [
            "gpg", "--batch", "--quiet", "--no-autostart", "--status-fd", "1",
            *(("--no-default-keyring", *keyrings) if keyrings else ()),
            "--trust-model", "always", "--verify", file, "-",
        ],
        timeout=_GPG_TIMEOUT, what="verifying a signature", accept=None, stdin=content,
        env={"GNUPGHOME": str(home)},
    )  # fmt: skip
    completed = run(command)
    said = [line.split() for line in completed.text.splitlines()]
    good = [line for line in said if line[1:2] == ["GOODSIG"]]
    valid = [line[-1] for line in said if line[1:2] == ["VALIDSIG"]]
    return valid[0] if completed.exit_code == 0 and len(good) == len(valid) == 1 else ""


def dearmored(armor: bytes) -> bytes:
    """The packets in armor (RFC 4880, section 6.2): what lies between blank line and checksum.

    Raises ValueError when there is none.
    """
    lines = [line.strip() for line in armor.decode("ascii").splitlines()]
    body = lines[lines.index("") + 1 :]
    return base64.b64decode("".join(line for line in body if not line.startswith(("=", "-----"))))
