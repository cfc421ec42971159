"""A failure names its cause: small packages that fail in every way that packages do, built in real roots."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from backport.artifacts import BuildOptions, Nevra, PatchedSrpm, Rpm, SourceRpm
from backport.builders import BuildRequest
from backport.builders.chroot import ChrootBuilder, _Build
from backport.errors import SHOWN_EVIDENCE, BuildError, ToolError
from backport.files import remove_tree
from backport.repodata import write_repodata
from backport.roots.root import ExtraRepository, Root, clean_root
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
        rpm=Rpm(nevra=nevra, path=folder / nevra.filename, sha256="0" * 64), url="file:///",
        signing_key="A" * 40, build_requires=(), changelog_time=1542931200,
    )  # fmt: skip
    digest = hashlib.sha256(spec.read_bytes()).hexdigest()
    return PatchedSrpm(
        source=source, spec=spec, sources=sources, sha256=digest, diff="", options=BuildOptions()
    )


@pytest.fixture
def builder(f28: Target, root_cache: Path) -> ChrootBuilder:
    return ChrootBuilder(target=f28, cache=root_cache)


@pytest.fixture(scope="module")
def root(f28: Target, root_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """One root for everything that fails in it: what fails leaves it as it was."""
    with clean_root(f28, cache=root_cache, workspace=tmp_path_factory.mktemp("workspace")) as root:
        yield root


@pytest.mark.parametrize("run", ["that may make the base root", "that finds it there"])
def test_a_package_without_build_dependencies_is_built(
    builder: ChrootBuilder, tmp_path: Path, run: str
) -> None:
    (tmp_path / "workspace").mkdir()
    built = builder.build(BuildRequest(patched=plain(tmp_path / "plain"), workspace=tmp_path / "workspace"))
    assert [log.name for log in built.logs if not log.is_file()] == [], run


FAILURES: dict[str, tuple[dict[str, str], str, str]] = {
    "a macro that nobody knows is run": (
        {"install": "%{__perl_of_f29} Makefile.PL"},
        r"%install: the target does not know the macro %\{__perl_of_f29\} \(line 23 of the spec\)$",
        "/var/tmp/rpm-tmp.X: line N: fg: no job control",
    ),
    "a macro without braces is run": (
        {"build": "%cmake_of_f29 --all"},
        r"%build: the target does not know the macro %\{cmake_of_f29\} \(line 19 of the spec\)$",
        "/var/tmp/rpm-tmp.X: line N: fg: no job control",
    ),
    "a macro that nobody knows names files": (
        {"files": "%{perl_vendorlib_of_f29}/X"},
        r"the target does not know the macro %\{perl_vendorlib_of_f29\} \(line 30 of the spec\)$",
        'error: File must begin with "/": %{perl_vendorlib_of_f29}/X',
    ),
    "files that no package has": (
        {"install": "touch %{buildroot}%{_datadir}/more"},
        r"Installed \(but unpackaged\) file\(s\) found: /usr/share/more$",
        "   /usr/share/more",
    ),
    "a file that is not there": (
        {"files": "%{_datadir}/less"},
        r"File not found: \S+/usr/share/less$",
        # Its beginning depends on rpm's version.
        "/usr/share/less",
    ),
    "a check": (
        {"check": "echo 'not ok 2 - it adds up'\ntest -e /nowhere"},
        r"%check: not ok 2 - it adds up \(in `test -e /nowhere`\)$",
        "not ok 2 - it adds up",
    ),
    "a check that says nothing": (
        {"check": "if true; then test -e /nowhere; fi"},
        r"%check: `test -e /nowhere` failed$",
        "+ test -e /nowhere",
    ),
    "make and the compiler": (
        {"build": "printf 'all:\\n\\tcc -c nowhere.c\\n' > Makefile\nmake"},
        r"%build: cc1: fatal error: nowhere.c: No such file or directory \(in `make`\)$",
        "make: *** [Makefile:2: all] Error 1",
    ),
    "a patch": (
        {"prep": "%patch -P 0 -p1"},
        r"%prep: Hunk #1 FAILED at 1\. \(in `\S*patch .*`\)$",
        "Patch #0 (plain.patch):",
    ),
    "a program that is not there": (
        {"build": "nosuchprogram --now"},
        r"%build: \S+: line \d+: nosuchprogram: command not found",
        "+ nosuchprogram --now",
    ),
    "a tag that rpm does not know": (
        {"head": "Nonsense: yes"},
        r"cannot be packed: .*: line 9: Unknown tag: Nonsense: yes$",
        "error: line 9: Unknown tag: Nonsense: yes",
    ),
    "a source that is not there": (
        {"head": "Source7: nowhere.tar.gz"},
        r"cannot be packed: .*: Bad (file|source): \S+/nowhere\.tar\.gz: No such file or directory$",
        "",
    ),
    "words that would paint the terminal": (
        {"build": "printf 'a.c:1: error: \\033[31mred\\033[0m\\n\\033]0;title\\007\\n' >&2\nfalse"},
        r"%build: a\.c:1: error: red \(in `false`\)$",
        "a.c:1: error: red",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failed_build_names_its_cause(root: Root, tmp_path: Path, kind: str) -> None:
    parts, cause, line = FAILURES[kind]
    request = BuildRequest(patched=plain(tmp_path / "plain", **parts), workspace=tmp_path)
    build = _Build(root=root, request=request)
    for used in (root.locate("/builddir/build"), build.results):
        if used.exists():
            remove_tree(used)
    build.prepare()

    def make() -> None:
        build.install_dependencies()
        build.compile(pack_again=False)

    with pytest.raises(BuildError, match=cause) as caught:
        make()
    evidence = [
        re.sub(
            r"rpm-tmp\.\w+: line \d+", "rpm-tmp.X: line N", re.sub(r"/builddir/\S+?x86_64", "BUILDROOT", told)
        )
        for told in caught.value.evidence
    ]
    assert (
        any(line == told or told.endswith(f"BUILDROOT{line}") for told in evidence[:SHOWN_EVIDENCE])
        or not line
    ), evidence
    assert all(told.isprintable() for told in (caught.value.message, *evidence))
    assert "log tells" not in str(caught.value.hint)


BINARY = """\
Name: {name}
Version: 1
Release: 1.fc28
Summary: A package that cannot be installed
License: MIT
BuildArch: noarch
{tags}
%description
Nothing.
%install
mkdir -p %{{buildroot}}/usr/share
echo {name} > %{{buildroot}}/usr/share/of-both
{scriptlet}
%files
/usr/share/of-both
"""
TRANSACTIONS: dict[str, tuple[dict[str, dict[str, str]], str]] = {
    "a dependency": (
        {"needy": {"tags": "Requires: libnowhere.so.7()(64bit)"}},
        r"nothing provides libnowhere\.so\.7\(\)\(64bit\) needed by needy-1-1\.fc28\.noarch",
    ),
    "a file of two": (
        {"one": {}, "two": {}},
        r"file /usr/share/of-both (from install of \S+ )?conflicts (with|between)",
    ),
    "a scriptlet": (
        {"scripted": {"scriptlet": "%pre\necho preparing\nnosuchprogram --now"}},
        r"%prein\(scripted-1-1\.fc28\.noarch\) scriptlet failed, exit status 127",
    ),
    "a silent scriptlet": (
        {"silent": {"scriptlet": "%pre\nset -e\ntrue first\ntest -e /nowhere\ntrue later"}},
        r"%prein\(silent-1-1\.fc28\.noarch\) scriptlet failed, exit status 1 \(in `test -e /nowhere`\)",
    ),
    "a name": ({}, r"(No match for argument|Unable to find a match): nowhere-at-all"),
}


@pytest.mark.parametrize("kind", TRANSACTIONS)
def test_a_failed_transaction_names_its_cause(root: Root, tmp_path: Path, kind: str) -> None:
    packages, cause = TRANSACTIONS[kind]
    folder = tmp_path / "repository"
    folder.mkdir()
    for name, parts in packages.items():
        spec = tmp_path / f"{name}.spec"
        spec.write_text(BINARY.format(name=name, **{"tags": "", "scriptlet": "", **parts}))
        subprocess.run(
            ["rpmbuild", "-bb", "--quiet", "-D", f"_topdir {tmp_path}/top", "-D", f"_rpmdir {folder}", spec],
            check=True, capture_output=True, env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        )  # fmt: skip
    write_repodata(folder, compression="gz")
    extra = ExtraRepository.of_folder("extra", folder)
    with pytest.raises(ToolError, match=cause) as caught:
        root.install(sorted(packages) or ["nowhere-at-all"], extra=[extra], log=tmp_path / "root.log")
    evidence = caught.value.evidence[:SHOWN_EVIDENCE]
    assert any(re.search(cause.partition(r" \(in ")[0], line) for line in evidence), evidence
    if kind == "a scriptlet":
        assert caught.value.message.endswith("line 2: nosuchprogram: command not found")
        assert any("nosuchprogram: command not found" in line for line in evidence), evidence
