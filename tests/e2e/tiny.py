"""Small real packages, made in a moment by the host's rpmbuild from a spec of our own."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from backport.artifacts import (
    BuildOptions,
    BuiltRpms,
    Check,
    GatedRpms,
    Nevra,
    PatchedSrpm,
    Rpm,
    SignedRpms,
    SourceRpm,
    TestedRpms,
    Verdict,
)

SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Summary: A small package
License: MIT
BuildArch: noarch
{requires}
%description
It holds one file.
{subpackages}
%install
mkdir -p %{{buildroot}}/usr/share/{name}
echo '{content}' > %{{buildroot}}/usr/share/{name}/file
%files
/usr/share/{name}/file
%changelog
{changelog}
"""
SUBPACKAGE = """\
%package -n {name}
Summary: Another small package
%description -n {name}
It is empty.
%files -n {name}
"""


def build(
    folder: Path,
    name: str = "tiny",
    *,
    version: str = "1",
    release: str = "1.fc28.bp1",
    content: str = "content",
    subpackages: Iterable[str] = (),
    changelog: str = "",
    requires: str = "",
) -> BuiltRpms:
    """A source package and its binary packages, built below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / f"{name}.spec"
    more = "\n".join(SUBPACKAGE.format(name=one) for one in subpackages)
    spec.write_text(
        SPEC.format(
            name=name,
            version=version,
            release=release,
            content=content,
            subpackages=more,
            changelog=changelog,
            requires=f"Requires: {requires}" if requires else "",
        )
    )
    output = folder / "output"
    macros = {
        "_topdir": str(folder / "work"), "_rpmdir": str(output), "_srcrpmdir": str(output),
        "_build_name_fmt": "%%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm", "_binary_payload": "w1.gzdio",
    }  # fmt: skip
    defines = [word for macro in macros.items() for word in ("--define", " ".join(macro))]
    subprocess.run(
        ["rpmbuild", "-ba", "--quiet", *defines, str(spec)],
        check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}, timeout=300,
    )  # fmt: skip
    srpm = _rpm(output / f"{name}-{version}-{release}.src.rpm")
    binaries = tuple(_rpm(path) for path in sorted(output.glob("*.noarch.rpm")))
    return BuiltRpms(patched=patched(srpm), srpm=srpm, rpms=binaries, logs=(), builder="rpmbuild")


def tested(signed: SignedRpms) -> TestedRpms:
    """The packages as if a self-test had passed."""
    check = Check(id="tiny", title="It is small", verdict=Verdict.PASS)
    return TestedRpms(signed=signed, checks=(check,))


def gated(tested: TestedRpms) -> GatedRpms:
    """The packages as if the gates had let them pass, too."""
    return GatedRpms(tested=tested, checks=(Check(id="gate", title="It may", verdict=Verdict.PASS),))


def proven(_exhibit: object) -> tuple[Check, ...]:
    """As if a client had installed the packages."""
    return (Check(id="publish.tiny", title="A client installs it", verdict=Verdict.PASS),)


def _rpm(path: Path) -> Rpm:
    nvr, arch = path.name.removesuffix(".rpm").rsplit(".", 1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Rpm(nevra=Nevra.from_nvr(nvr, arch=arch), path=path, sha256=digest)


def patched(srpm: Rpm) -> PatchedSrpm:
    """What a built package says that it was built from."""
    source = SourceRpm(rpm=srpm, url="file:///", signing_key="0" * 40, build_requires=(), changelog_time=0)
    return PatchedSrpm(
        source=source, spec=srpm.path, sources=srpm.path.parent, sha256=srpm.sha256, diff="",
        options=BuildOptions(),
    )  # fmt: skip
