"""The lab's own signing keys, and the RPM signatures made with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import koji

from backport.run import Command, run
from tests.lab.layout import KEY_NAMES
from tests.lab.rpms import definitions


class Keyring:
    """A GNUPGHOME with one RSA key for each release.

    RSA, since Fedora 28's rpm verifies nothing newer.
    """

    def __init__(self, folder: Path, *, log: Path) -> None:
        self._folder, self._log = folder, log
        folder.mkdir(parents=True, mode=0o700)
        self.fingerprints: Mapping[str, str] = {name: self._generate(name) for name in KEY_NAMES}

    def export(self, folder: Path) -> None:
        """Write the public keys, armored, as ``NAME.asc``."""
        folder.mkdir(parents=True)
        for name, fingerprint in self.fingerprints.items():
            (folder / f"{name}.asc").write_bytes(self._gpg("--armor", "--export", fingerprint))

    def sign(self, name: str, rpms: Sequence[Path]) -> None:
        """Sign the RPMs in place, in one batch."""
        macros = {
            "_gpg_name": self.fingerprints[name],
            "_gpg_path": str(self._folder),
            "__gpg": "/usr/bin/gpg",
            "_gpg_digest_algo": "sha256",
        }
        run(
            Command(
                ["rpmsign", *definitions(macros), "--addsign", *rpms],
                timeout=600,
                log=self._log,
                env={"GNUPGHOME": str(self._folder)},
                what=f"signing packages with the key {name}",
            )
        )

    def close(self) -> None:
        """End gpg's agent."""
        run(Command(["gpgconf", "--kill", "all"], timeout=60, env={"GNUPGHOME": str(self._folder)}))

    def _generate(self, name: str) -> str:
        title = name.replace("-", " ").title()
        self._gpg(
            "--passphrase",
            "",
            "--quick-generate-key",
            f"{title} look-alike <{name}@localhost>",
            "rsa2048",
            "sign",
            "never",
        )
        listing = self._gpg("--with-colons", "--list-keys", f"{name}@localhost").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def _gpg(self, *arguments: str) -> bytes:
        command: list[str | Path] = [
            "gpg",
            "--homedir",
            self._folder,
            "--batch",
            "--quiet",
            "--no-autostart",
            *arguments,
        ]
        if "--passphrase" in arguments:
            command.remove("--no-autostart")
        return run(Command(command, timeout=120, what="making the lab's keys")).output


def signature_header(path: Path) -> bytes:
    """The signature header of an RPM alone, as Koji caches it."""
    return bytes(koji.rip_rpm_sighdr(str(path)))
