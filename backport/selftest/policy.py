"""The crypto policy in force: what openssl.cnf and the files that it includes set for TLS.

The form is that of OpenSSL's config(5): the name ``openssl_conf`` leads over ``ssl_conf`` and
``system_default`` to the section whose commands every TLS context begins with (SSL_CONF_cmd(3)).
Programs such as Exim read it once, when they start.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from backport.artifacts import Finding, Verdict
from backport.probe.ledger import Ledger

OPENSSL_CNF = "/etc/pki/tls/openssl.cnf"
"""Where Fedora keeps it."""
SECTION = "crypto_policy"
VERSIONS = ("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
"""Protocol versions as MinProtocol names them, the oldest first."""

Read = Callable[[str], str | None]
"""The text of a file inside the root, None where there is none."""

_HEADING = re.compile(r"\[\s*([^\]\s]+)\s*\]")
_INCLUDE = re.compile(r"\.include\s*=?\s*(\S.*)")
_SETTING = re.compile(r"([^=\s]+)\s*=\s*(.*)")
_MINIMUM = ("MinProtocol", "TLS.MinProtocol")
_ANY = "None"
_MOST_FILES = 32


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value, and the file that it stands in."""

    value: str
    file: str


@dataclass
class CryptoPolicy:
    """What was found; later settings replace earlier ones, as OpenSSL reads them."""

    sections: dict[str, dict[str, Setting]] = field(default_factory=dict)
    includes: list[str] = field(default_factory=list)
    """The files that the block includes."""
    missing: list[str] = field(default_factory=list)
    """Those of them that are not there."""

    @property
    def block(self) -> dict[str, Setting]:
        """The block's settings; none where there is no block."""
        return self.sections.get(SECTION, {})

    @property
    def is_reached(self) -> bool:
        """Whether the block is there and OpenSSL finds its way to it."""
        section: str | None = ""
        for name in ("openssl_conf", "ssl_conf", "system_default"):
            setting = self.sections.get(section or "", {}).get(name)
            if setting is None:
                return False
            section = setting.value
        return section == SECTION and SECTION in self.sections

    @property
    def minimum(self) -> Setting | None:
        """The oldest protocol version that is permitted; None where nothing sets one."""
        found = [setting for name, setting in self.block.items() if name in _MINIMUM]
        return found[-1] if found and self.is_reached else None

    def permits(self, protocol: str) -> bool:
        """Whether the policy lets ``protocol`` be used; without a policy nothing is permitted by one."""
        minimum = self.minimum
        if minimum is None or minimum.value not in (*VERSIONS, _ANY):
            return False
        return minimum.value == _ANY or VERSIONS.index(protocol) >= VERSIONS.index(minimum.value)


def read_policy(read: Read, path: str = OPENSSL_CNF) -> CryptoPolicy | None:
    """The policy that ``path`` sets; None where the file is not there."""
    text = read(path)
    if text is None:
        return None
    policy = CryptoPolicy()
    _read_into(policy, text, path, "", read, depth=0)
    return policy


def _read_into(policy: CryptoPolicy, text: str, path: str, section: str, read: Read, *, depth: int) -> str:
    """Read a file's lines; gives the section in which it ends, since an include goes on in it."""
    for raw in text.replace("\\\n", "").splitlines():
        line = raw.partition("#")[0].strip()
        if heading := _HEADING.match(line):
            section = heading[1]
            policy.sections.setdefault(section, {})
        elif include := _INCLUDE.fullmatch(line):
            section = _include(policy, include[1].strip(), section, read, depth=depth)
        elif setting := _SETTING.fullmatch(line):
            name, value = setting[1], setting[2].strip().strip("\"'")
            # Put last, whatever was there before: the order of the commands is the order of their effect.
            policy.sections.setdefault(section, {}).pop(name, None)
            policy.sections[section][name] = Setting(value=value, file=path)
    return section


def _include(policy: CryptoPolicy, path: str, section: str, read: Read, *, depth: int) -> str:
    text = read(path) if depth < _MOST_FILES else None
    if section == SECTION:
        policy.includes.append(path)
        if text is None:
            policy.missing.append(path)
    if text is None:
        return section
    return _read_into(policy, text, path, section, read, depth=depth + 1)


def judge_policy(ledger: Ledger, policy: CryptoPolicy | None) -> None:
    """The block, and the files that it includes."""
    there = policy is not None and policy.is_reached
    expected = f"[ {SECTION} ] in {OPENSSL_CNF}, reached from openssl_conf"
    ledger.record(
        "policy.block",
        Finding.judged(
            good=there,
            expected=expected,
            found=expected if there else "no such block in force" if policy else f"no {OPENSSL_CNF}",
            evidence=", ".join(f"{name} = {one.value} ({one.file})" for name, one in policy.block.items())
            if policy
            else "",
            advice=f"Where {OPENSSL_CNF}.rpmnew lies beside it, take its block over: an openssl.cnf that was "
            "edited is kept by an update.",
        ),
    )
    ledger.record("policy.include", _include_finding(policy if there else None))


def _include_finding(policy: CryptoPolicy | None) -> Finding:
    expected = "a policy file that is there"
    if policy is None:
        return Finding.skipped("policy.block: there is no block that could include one")
    if policy.includes and not policy.missing:
        return Finding(verdict=Verdict.PASS, expected=expected, found=", ".join(policy.includes))
    missing = ", ".join(f"{path} is not there" for path in policy.missing) or "the block includes no file"
    advice = (
        "Update crypto-policies, and run `update-crypto-policies`: OpenSSL says nothing about a missing file."
    )
    if policy.minimum is None:
        return Finding(verdict=Verdict.FAIL, expected=expected, found=missing, advice=advice)
    defaults = f"{missing}; the block's own defaults hold: MinProtocol = {policy.minimum.value}"
    return Finding(verdict=Verdict.WARN, expected=expected, found=defaults, advice=advice)
