"""A failure names its cause: small packages that fail in every way that packages do, built in real roots."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.builders import ChrootBuilder
from backport.errors import BuildError, BuildRootError
from backport.target import Target

SPEC = """\
Name:           plain
Version:        1
Release:        1%{?dist}.bp1
Summary:        Needs nothing to be built
License:        MIT
BuildArch:      noarch
Source0:        plain.txt
Patch0:         plain.patch
HEAD

%description
Nothing.

%prep
cp %{SOURCE0} .
PREP

%build
BUILD

%install
install -D -m 0644 plain.txt %{buildroot}%{_datadir}/plain/plain.txt
INSTALL

%check
CHECK

%files
%{_datadir}/plain
FILES

%changelog
* Fri Nov 23 2018 A Maintainer <maintainer@example.org> - 1-1.bp1
- First
"""
PATCH = """\
--- a/plain.txt
+++ b/plain.txt
@@ -1 +1 @@
-something else
+anything
"""


def plain(folder: Path, **parts: str) -> PatchedSrpm:
    """A package without build dependencies, as the patch stage leaves it, with ``parts`` in its sections."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    text = SPEC
    for name in ("HEAD", "PREP", "BUILD", "INSTALL", "CHECK", "FILES"):
        text = text.replace(f"\n{name}\n", f"\n{parts.get(name.lower(), '')}\n")
    spec = folder / "plain.spec"
    spec.write_text(text)
    (sources / "plain.txt").write_text("plain\n")
    (sources / "plain.patch").write_text(PATCH)
    nevra = Nevra(name="plain", epoch=0, version="1", release="1.fc29", arch="src")
    source = SourceRpm(
        rpm=Rpm(nevra=nevra, path=folder / nevra.filename, sha256="0" * 64), build_id=1, url="file:///",
        signing_key="A" * 40, build_requires=(), changelog_time=1542931200,
    )  # fmt: skip
    digest = hashlib.sha256(spec.read_bytes()).hexdigest()
    return PatchedSrpm(
        source=source, spec=spec, sources=sources, sha256=digest, diff="", options=BuildOptions()
    )


@pytest.fixture
def builder(f28: Target, root_cache: Path) -> ChrootBuilder:
    return ChrootBuilder(target=f28, cache=root_cache)


@pytest.mark.parametrize("run", ["that may make the base root", "that finds it there"])
def test_a_package_without_build_dependencies_is_built(
    builder: ChrootBuilder, tmp_path: Path, run: str
) -> None:
    (tmp_path / "workspace").mkdir()
    built = builder.build(plain(tmp_path / "plain"), candidates=None, workspace=tmp_path / "workspace")
    assert [log.name for log in built.logs if not log.is_file()] == [], run
