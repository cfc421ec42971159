"""The change from one signing key to the next: made, certified by the old one, announced, then used.

During the change both keys are published, so that clients know the new one before anything needs it. The
GNUPGHOME remembers which key signs (see `backport.signing.key.STATE_FILE`).
"""

from __future__ import annotations

from dataclasses import dataclass

from backport.errors import SignError
from backport.files import write_atomically
from backport.signing.key import STATE_FILE, add_key, key_state, show_key
from backport.site import Signing


@dataclass(frozen=True, kw_only=True)
class Rollover:
    """Which key signs from now on, and which ones clients are told of besides."""

    signs: str
    others: tuple[str, ...] = ()


def begin(signing: Signing, packager: str) -> Rollover:
    """Make the next key, certified by the present one; the present one goes on to sign.

    Raises SignError when a change is under way already, or no key can be made.
    """
    if len(state := key_state(signing)) > 1:
        raise SignError(
            f"a change of the key is under way: from {state[0]} to {state[1]}",
            hint="`backport keys rollover switch` or `finish` goes on with it",
        )
    now, new = add_key(signing, packager)
    return _write(signing, Rollover(signs=now.fingerprint, others=(new.fingerprint,)))


def switch(signing: Signing) -> Rollover:
    """Sign with the other key from now on. Raises SignError when there is none, or it is unusable."""
    old, new = _under_way(signing)
    done = _write(signing, Rollover(signs=new, others=(old,)))
    try:
        show_key(signing)
    except SignError:
        _write(signing, Rollover(signs=old, others=(new,)))
        raise
    return done


def finish(signing: Signing) -> Rollover:
    """Tell clients no more of the key that does not sign. Raises SignError when there is none.

    Its secret part stays in the GNUPGHOME. Clients still get it while something that it signed is published.
    """
    signs, _ = _under_way(signing)
    return _write(signing, Rollover(signs=signs))


def _under_way(signing: Signing) -> tuple[str, str]:
    state = key_state(signing)
    if len(state) != 2:  # the old key and the new one
        raise SignError("no change of the key is under way", hint="`backport keys rollover` begins one")
    if signing.key:
        raise SignError(
            f"the site file says that {signing.key} signs",
            hint="remove `signing.key` there: the GNUPGHOME remembers which key signs",
        )
    return state[0], state[1]


def _write(signing: Signing, state: Rollover) -> Rollover:
    write_atomically(signing.gnupghome / STATE_FILE, "\n".join((state.signs, *state.others, "")), mode=0o600)
    return state
