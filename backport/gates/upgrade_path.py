"""Gate ``upgrade-path``: where the backport's version lies among those that clients meet.

Above everything that the target has, so that dnf updates to it; below the release that it came from, so
that an upgrade of the system replaces it; not below what is published already. Compared as rpm does it
(rpm's ``labelCompare``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from backport.artifacts import Check, Finding, Nevra
from backport.gates.pool import is_published, nevra_of
from backport.gates.subject import Subject
from backport.trust import by_evr
from backport.trust import compare_evrs as compare

_BUMP = re.compile(r"\.bp(\d+)$")


def examine_upgrade_paths(subject: Subject) -> Iterator[Check]:
    """One check for each binary package."""
    for built in subject.signed.built:
        for one in built.rpms:
            if one.nevra in subject.headers:
                yield _check(subject, one.nevra, made=built.srpm.nevra, origin=built.patched.source.rpm.nevra)


def bound_for(nevra: Nevra, *, made: Nevra, origin: Nevra) -> Nevra | None:
    """What the package was called in the release it came from; None when it has a release of its own.

    ``made`` is the source package that it was built from, ``origin`` what that was before the changes.
    Subpackages may have a version of their own, but hardly ever a release.
    """
    if nevra.release != made.release:
        return None
    same = (nevra.epoch, nevra.version) == (made.epoch, made.version)
    epoch, version = (origin.epoch, origin.version) if same else (nevra.epoch, nevra.version)
    return Nevra(name=nevra.name, epoch=epoch, version=version, release=origin.release, arch=nevra.arch)


def next_bump(nevra: Nevra) -> Nevra | None:
    """The same package after one more change to it: ``.bp3`` behind ``.bp2``."""
    match = _BUMP.search(nevra.release)
    if match is None:
        return None
    release = f"{nevra.release[: match.start()]}.bp{int(match[1]) + 1}"
    return Nevra(name=nevra.name, epoch=nevra.epoch, version=nevra.version, release=release, arch=nevra.arch)


def _check(subject: Subject, nevra: Nevra, *, made: Nevra, origin: Nevra) -> Check:
    bound = bound_for(nevra, made=made, origin=origin)
    later = next_bump(nevra)
    namesakes = [one for one in subject.pool.known if one.name == nevra.name]
    own = [nevra_of(one) for one in namesakes if not is_published(one)]
    published = [nevra_of(one) for one in namesakes if is_published(one)]
    newest = max(own, key=by_evr, default="nothing: the target has no such package")
    problems = [f"the target has {one}" for one in own if compare(nevra, one) <= 0]
    problems += [f"{one} is published" for one in published if compare(nevra, one) <= 0]
    if bound and compare(nevra, bound) >= 0:
        problems.append(f"it is not below {bound}, from which it came")
    if later and compare(later, nevra) <= 0:
        problems.append(f"{later} would not be above it")
    finding = Finding.unless(
        problems,
        expected=f"above {newest}, below {bound or 'nothing: its release is its own'}",
        found=str(nevra),
        evidence=[f"target: {one}" for one in own] + [f"published: {one}" for one in published],
        advice="change the release in the recipe: `bump`, or an edit of the spec's Release",
    )
    return Check.of(
        f"gate.upgrade-path.{nevra.name}",
        f"{nevra.name} updates the target's package, and is updated by the newer release's",
        finding,
    )
