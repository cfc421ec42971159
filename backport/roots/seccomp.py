"""No user namespaces in a sandbox: a filter of system calls (seccomp(2)).

A user namespace gives every program all capabilities within it, and so the parts of the kernel that only
root was meant to reach. bubblewrap's own ``--disable-userns`` needs a user namespace around the sandbox, in
which there is neither the builder's uid nor what dnf's scriptlets need. So the kernel refuses the calls
that would make one: clone(2) and unshare(2) with CLONE_NEWUSER, and all of clone3(2), whose flags a filter
cannot see; C libraries take clone then.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys
from dataclasses import dataclass

_NEW_USER = 0x10000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _AND, _JUMP, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in struct seccomp_data."""
_X32 = 0x40000000
"""The bit in a call's number by which x86_64 marks its 32-bit variant (x32)."""


@dataclass(frozen=True, kw_only=True)
class _Abi:
    """The calls' numbers (linux/audit.h, asm/unistd.h), and which argument of clone has its flags."""

    audit: int
    clone: int
    unshare: int
    flags: int = 0
    clone3: int = 435


_ABIS = {
    "x86_64": (
        _Abi(audit=0xC000003E, clone=56, unshare=272),
        _Abi(audit=0x40000003, clone=120, unshare=310),
    ),
    "aarch64": (
        _Abi(audit=0xC00000B7, clone=220, unshare=97),
        _Abi(audit=0x40000028, clone=120, unshare=337),
    ),
    "ppc64le": (_Abi(audit=0xC0000015, clone=120, unshare=282),),
    "s390x": (
        _Abi(audit=0x80000016, clone=120, unshare=303, flags=1),
        _Abi(audit=0x00000016, clone=120, unshare=303, flags=1),
    ),
}


def without_user_namespaces(machine: str | None = None) -> bytes:
    """The filter for this kind of machine, as bubblewrap's ``--seccomp`` reads it.

    Raises KeyError for a machine that no target is for.
    """
    blocks = b"".join(_block(abi) for abi in _ABIS[machine or platform.machine()])
    return blocks + _step(_RETURN, _ERRNO | errno.ENOSYS)


def _block(abi: _Abi) -> bytes:
    """The calls of one ABI; those of another go on behind the block."""
    # A filter loads 32 bits: the lower half of an argument, which a big-endian machine has last.
    low = 4 if sys.byteorder == "big" else 0
    return b"".join(
        (
            _step(_LOAD, _ARCH),
            _step(_EQUAL, abi.audit, otherwise=12),
            _step(_LOAD, _NUMBER),
            _step(_AND, ~_X32 & 0xFFFFFFFF),
            _step(_EQUAL, abi.clone3, then=7),
            _step(_EQUAL, abi.unshare, then=3),
            _step(_EQUAL, abi.clone, otherwise=4),
            _step(_LOAD, _ARGUMENTS + 8 * abi.flags + low),
            _step(_JUMP, 1),
            _step(_LOAD, _ARGUMENTS + low),
            _step(_ANY_BIT, _NEW_USER, then=2),
            _step(_RETURN, _ALLOW),
            _step(_RETURN, _ERRNO | errno.ENOSYS),
            _step(_RETURN, _ERRNO | errno.EPERM),
        )
    )


def _step(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    """One instruction (struct sock_filter); jumps are over so many that follow."""
    return struct.pack("=HBBI", code, then, otherwise, value)
