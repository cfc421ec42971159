"""A small package to be built, patched already, with whatever section a test wants in it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import rpm

from backport.artifacts import BuildOptions, BuiltRpms, Nevra, PatchedSrpm, Rpm, SourceRpm

SPEC = """\
Name:           {name}
Epoch:          1
Version:        1.0
Release:        1%{{?dist}}.bp1
Summary:        Says hello
License:        MIT
Source0:        hello.c
Source1:        greet.sh
BuildRequires:  gcc
BuildRequires:  /usr/bin/cmp
BuildRequires:  perl(Test::More)
{build_requires}
%bcond_with     loud

%description
Says hello.

%package devel
Summary:        What says hello, for others
Requires:       %{{name}}%{{?_isa}} = %{{epoch}}:%{{version}}-%{{release}}

%description devel
A header.

%prep
cp %{{SOURCE0}} .
{generate}
%build
gcc %{{optflags}} %{{?with_loud:-DLOUD}} -o hello hello.c
{building}

%install
install -D hello %{{buildroot}}%{{_bindir}}/hello
install -D -m 0755 %{{SOURCE1}} %{{buildroot}}%{{_libexecdir}}/greet
ln -s hello %{{buildroot}}%{{_bindir}}/hallo
mkdir -p %{{buildroot}}%{{_includedir}} %{{buildroot}}/var/lib/hello
echo "/* $SOURCE_DATE_EPOCH %{{?greeting}} */" > %{{buildroot}}%{{_includedir}}/hello.h

%check
./hello
{checking}

%post -p /bin/sh
true

%files
%{{_bindir}}/hello
%{{_bindir}}/hallo
%attr(4750, root, mail) %{{_libexecdir}}/greet
%dir %attr(0700, nobody, root) /var/lib/hello

%files devel
%{{_includedir}}/hello.h

%changelog
* Fri Nov 23 2018 A Maintainer <maintainer@example.org> - 1:1.0-1.bp1
- Carry over

* Thu Nov 22 2018 A Maintainer <maintainer@example.org> - 1:1.0-1
- First
"""
CHANGELOG_DAY = 1542931200
"""Midnight of the newest changelog entry, UTC."""
PROGRAM = """\
#include <stdio.h>
int main(void)
{
    puts("hello, world, on " __DATE__);
    return 0;
}
"""


def patched(
    folder: Path,
    *,
    name: str = "hello",
    build_requires: str = "",
    generate: str = "",
    building: str = "",
    checking: str = "",
    **options: Any,
) -> PatchedSrpm:
    """The package as the patch stage leaves it; ``options`` are those of BuildOptions."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    spec = folder / f"{name}.spec"
    spec.write_text(
        SPEC.format(
            name=name,
            build_requires=build_requires,
            generate=generate,
            building=building,
            checking=checking,
        )
    )
    (sources / "hello.c").write_text(PROGRAM)
    (sources / "greet.sh").write_text("#!/bin/sh\necho hello\n")
    (sources / "greet.sh").chmod(0o755)
    nevra = Nevra(name=name, epoch=1, version="1.0", release="1.fc29", arch="src")
    source = SourceRpm(
        rpm=Rpm(nevra=nevra, path=folder / nevra.filename, sha256="0" * 64), url="file:///",
        signing_key="A" * 40, build_requires=("gcc",), changelog_time=CHANGELOG_DAY,
    )  # fmt: skip
    return PatchedSrpm(
        source=source, spec=spec, sources=sources, sha256=hashlib.sha256(spec.read_bytes()).hexdigest(),
        diff="", options=BuildOptions(**options),
    )  # fmt: skip


def header_of(path: Path) -> Any:
    """The package's header."""
    transaction = rpm.TransactionSet()
    transaction.setVSFlags(rpm.RPMVSF_MASK_NODIGESTS | rpm.RPMVSF_MASK_NOSIGNATURES)
    with path.open("rb") as stream:
        return transaction.hdrFromFdno(stream.fileno())


def substance_of(path: Path) -> dict[str, Any]:
    """What a package means to those who install it: files, relations and scripts, by tag's name.

    Left out are what tells one build from another of the same source: times, build ids, digests.
    """
    header = header_of(path)
    files = [
        (file.name, oct(file.mode), file.user, file.group, file.fflags, file.linkto, file.size)
        for file in rpm.files(header)
        if "/.build-id/" not in file.name
    ]
    relations = {
        kind: sorted(each.DNEVR() for each in rpm.ds(header, kind))
        for kind in ("requires", "provides", "conflicts", "obsoletes", "recommends", "suggests")
    }
    tags = {
        name: header[getattr(rpm, f"RPMTAG_{name}")]
        for name in (
            "NAME", "EPOCH", "VERSION", "RELEASE", "ARCH", "OS", "SOURCERPM", "LICENSE", "SUMMARY",
            "PREIN", "PREINPROG", "POSTIN", "POSTINPROG", "PREUN", "PREUNPROG", "POSTUN", "POSTUNPROG",
            "PRETRANS", "POSTTRANS", "TRIGGERSCRIPTS", "TRIGGERNAME", "FILETRIGGERSCRIPTS",
            "TRANSFILETRIGGERSCRIPTS", "CHANGELOGTEXT", "PAYLOADCOMPRESSOR",
        )
    }  # fmt: skip
    return {**tags, **relations, "files": files}


def differences(first: BuiltRpms, second: BuiltRpms) -> list[str]:
    """In what two results of one source package differ, for those who install them."""
    packages = [{rpm.nevra.name: rpm.path for rpm in built.rpms} for built in (first, second)]
    if packages[0].keys() != packages[1].keys():
        return [f"packages: {sorted(packages[0])} and {sorted(packages[1])}"]
    found = []
    for name in packages[0]:
        one, other = (substance_of(paths[name]) for paths in packages)
        found += [f"{name}: {key}: {one[key]} and {other[key]}" for key in one if one[key] != other[key]]
    return found
