"""Packages are signed with the site's key, then verified with a keyring that holds that key alone."""

from __future__ import annotations

import functools
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from backport import trust
from backport.artifacts import BuiltRpms, Rpm, SignedRpms
from backport.errors import SignError, as_kind
from backport.files import digest_of, scratch_folder, write_atomically
from backport.roots.root import Bind, Root
from backport.run import Command, run
from backport.settings import Key
from backport.signing.detached import verify_file
from backport.signing.key import KeyInfo, Signer, init_key, open_key, show_key, sign_file
from backport.site import Signing
from backport.target import Target

__all__ = ["KeyInfo", "init_key", "show_key", "sign", "sign_file", "verify_file", "verify_in_root"]

BATCH = 100
"""How many packages one rpmsign is given."""
_TIMEOUT = 3600.0
_ROOT_FOLDER = "/tmp"  # noqa: S108  # inside a root that is this run's alone


@as_kind(SignError)
def sign(built: Sequence[BuiltRpms], *, signing: Signing, target: Target, workspace: Path) -> SignedRpms:
    """Signed copies of all packages below ``workspace/signed``, each verified with this key alone.

    Header and payload are both signed (rpmsign's ``--rpmv3``), which every rpm understands. Raises
    SignError when the key is unusable, a package changed since it was built, or one does not verify.
    """
    folder = workspace / "signed"
    folder.mkdir(parents=True)
    sources = [_copy(one.srpm, folder) for one in built]
    binaries = [_copy(rpm, folder) for one in built for rpm in one.rpms]
    public_key = workspace / "signing-key.asc"
    with open_key(signing, digest=target.signature_digest) as signer:
        # rpmsign does not say why gpg failed: try the key before.
        signer.signature(b"")
        write_atomically(public_key, signer.key.public_key)
        _rpmsign([rpm.path for rpm in (*sources, *binaries)], signer, log=workspace / "sign.log")
    _verify_all([*sources, *binaries], signer.key.fingerprint, public_key, workspace)
    return SignedRpms(
        built=tuple(built),
        srpms=tuple(_digested(rpm) for rpm in sources),
        rpms=tuple(_digested(rpm) for rpm in binaries),
        fingerprint=signer.key.fingerprint,
        public_key=public_key,
    )


@as_kind(SignError)
def verify_in_root(root: Root, rpms: Sequence[Rpm], public_key: Path) -> None:
    """Let the target's own ``rpmkeys`` verify packages, with a database that holds this key alone.

    The root must hold rpm. Raises SignError that names the first package which does not verify.
    """
    keyring = ("--define", f"_dbpath {_ROOT_FOLDER}/keyring-{digest_of(public_key)[:16]}")
    binds = [Bind(host=public_key, inside=f"{_ROOT_FOLDER}/signing-key.asc")]
    binds += [Bind(host=rpm.path, inside=f"{_ROOT_FOLDER}/{rpm.path.name}") for rpm in rpms]
    check = functools.partial(Command, timeout=_TIMEOUT)
    commands = [
        check(
            ["rpmkeys", *keyring, "--import", f"{_ROOT_FOLDER}/signing-key.asc"],
            what=f"the rpm of {root.target.name} cannot use the signing key",
            hint="make an RSA key with `backport keys init` in a new GNUPGHOME",
        )
    ]
    level = ("--define", "_pkgverify_level all")
    commands += [
        check(
            ["rpmkeys", *keyring, *level, "--checksig", f"{_ROOT_FOLDER}/{rpm.path.name}"],
            what=f"{rpm.path.name}: the rpm of {root.target.name} does not accept its signature",
            hint="compare `signature_digest` of the target with what that rpm can verify",
        )
        for rpm in rpms
    ]
    for command in commands:
        root.run(command, binds=binds)


def _copy(rpm: Rpm, folder: Path) -> Rpm:
    copy = folder / rpm.path.name
    if copy.exists():
        raise SignError(f"two packages of the run are called {copy.name}")
    shutil.copyfile(rpm.path, copy)
    if digest_of(copy) != rpm.sha256:
        raise SignError(f"{rpm.path}: changed since it was built", hint="build it again")
    return Rpm(nevra=rpm.nevra, path=copy, sha256=rpm.sha256)


def _digested(rpm: Rpm) -> Rpm:
    return Rpm(nevra=rpm.nevra, path=rpm.path, sha256=digest_of(rpm.path))


def _rpmsign(paths: Sequence[Path], signer: Signer, *, log: Path) -> None:
    for start in range(0, len(paths), BATCH):
        command = Command(
            ["rpmsign", *_macros(signer), "--addsign", "--rpmv3", *paths[start : start + BATCH]],
            timeout=_TIMEOUT, env={"GNUPGHOME": str(signer.signing.gnupghome)}, log=log,
        )  # fmt: skip
        run(command)


def _macros(signer: Signer) -> tuple[str, ...]:
    """The macros that rpmsign reads (rpm's own macros file, "GPG/PGP/PGP5 signature macros")."""
    arguments = shlex.join(("--batch", "--no-tty", *signer.arguments()))
    macros = {
        "_openpgp_sign": "gpg",
        "__gpg": shutil.which("gpg", path="/usr/bin:/bin") or "gpg",
        "_gpg_path": str(signer.signing.gnupghome),
        "_gpg_name": f"{signer.key.fingerprint}!",
        "_gpg_sign_cmd_extra_args": arguments,
    }
    return tuple(
        word for name, value in macros.items() for word in ("--define", f"{name} {value.replace('%', '%%')}")
    )


def _verify_all(rpms: Sequence[Rpm], fingerprint: str, public_key: Path, workspace: Path) -> None:
    key = Key(fingerprint=fingerprint, file=public_key)
    with scratch_folder(workspace, "keyring-") as folder:
        keyring = trust.pinned_keyring((key,), folder)
        for reason in keyring.verify_all([rpm.path for rpm in rpms]).wrong.values():
            raise SignError(reason)
