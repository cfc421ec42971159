"""Gate ``abi``: what programs that were linked with a replaced library would miss in the new one.

libabigail's ``abipkgdiff`` compares with ours the target's package, and the published one where servers have
that by now; its exit code tells (its manual, "Return values"). Debugging information is used where both have
it, so that types are compared as well; without, the symbols alone. The contents of both packages are read by
it in a sandbox, as nobody.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from backport.artifacts import Check, Finding, Rpm, Verdict
from backport.errors import HostError
from backport.files import scratch_folder
from backport.gates.pool import Solvable, is_published, provides
from backport.gates.subject import Subject
from backport.roots.dnf import host_programs
from backport.roots.sandbox import Bind, Sandbox
from backport.run import Command, find_program

TIMEOUT = 1800.0
"""Deadline in seconds of one comparison."""
PROGRAM = "abipkgdiff"
_ERROR, _USAGE, _CHANGE, _INCOMPATIBLE = 1, 2, 4, 8
_NOBODY = 65534
_FOLDERS = ("target", "backport")
_SCRATCH = "/scratch"
_SONAME = re.compile(r"(?P<soname>[^\s()/]+\.so(\.[^\s()/]+)?)(\([^()]*\))?(\(64bit\))?")
"""How rpm's generator names a library, and each version of its symbols, as capabilities."""


def examine_abi(subject: Subject) -> Iterator[Check]:
    """One check for each package of the target's, or published one, that has libraries and is replaced."""
    pairs = [(one, old) for one in subject.packages for old in _libraries(subject, one)]
    if not pairs:
        none = Finding.skipped("no library of the target's or of what is published is replaced")
        yield Check.of("gate.abi", "Libraries keep their ABI", none)
        return
    if find_program(PROGRAM) is None:
        raise HostError(
            f"{PROGRAM} is not installed on this host",
            hint="`backport doctor` names the package that brings it",
        )
    kept = sonames_of(capability for one in subject.pool.candidate for capability in provides(one))
    for new, old in pairs:
        yield _check(subject, old, new, lost=sorted(sonames_of(provides(old)) - kept))


def sonames_of(capabilities: Iterable[str]) -> frozenset[str]:
    """The sonames among what packages provide.

    >>> sorted(sonames_of(["libz.so.1()(64bit)", "libz.so.1(ZLIB_1.2)(64bit)", "zlib = 1.2-1"]))
    ['libz.so.1']
    """
    matches = (_SONAME.fullmatch(capability) for capability in capabilities)
    return frozenset(match["soname"] for match in matches if match)


def _libraries(subject: Subject, one: Rpm) -> Iterator[Solvable]:
    """What programs on servers may have been linked with: the target's own, and what is there now."""
    pool = subject.pool
    by_number = {old.id: old for old in (*pool.target, *pool.server)}
    for old in by_number.values():
        same = (old.name, old.arch) == (one.nevra.name, one.nevra.arch)
        if same and sonames_of(provides(old)):
            yield old


def _check(subject: Subject, old: Solvable, new: Rpm, *, lost: Sequence[str]) -> Check:
    name = new.nevra.name
    comparison = _Comparison(subject, old, new)
    code = comparison.run()
    report = comparison.report()
    problems, verdict = [f"{soname} is gone" for soname in lost], Verdict.FAIL
    if code & (_ERROR | _USAGE):
        problems.append(f"{PROGRAM} could not compare them (exit code {code})")
        verdict = Verdict.FAIL if lost else Verdict.ERROR
    elif code == 0 and report:
        # It also exits with 0 when it cannot unpack a package, but then it does not stay silent.
        problems.append(f"{PROGRAM} complained: {report[0].strip()}")
        verdict = Verdict.FAIL if lost else Verdict.ERROR
    elif code & _INCOMPATIBLE:
        problems.append("symbols or libraries that programs may use were removed or changed")
    elif code & _CHANGE and not lost and comparison.run("--no-added-syms", "--no-added-binaries") & _CHANGE:
        problems.append("types have changed, in ways that may matter or not")
        verdict = Verdict.WARN
    whose = "published" if is_published(old) else "target's"
    finding = Finding.unless(
        problems,
        expected=f"all that {old.str()} offers, by {comparison.means}",
        found="all of it, and more" if code & _CHANGE else "all of it, unchanged",
        evidence=[*report, f"log: {comparison.log}"],
        advice=f'rebuild what uses it; if no program can miss it, say so under [gates.warn]: "abi.{name}"',
        verdict=verdict,
    )
    return Check.of(
        f"gate.abi.{name}.published" if is_published(old) else f"gate.abi.{name}",
        f"{name} keeps the ABI of the {whose} package",
        finding,
    )


class _Comparison:
    """abipkgdiff on one package of the target, or a published one, and ours."""

    def __init__(self, subject: Subject, old: Solvable, new: Rpm) -> None:
        published = "-published" if is_published(old) else ""
        self.log = subject.workspace / f"abi-{new.nevra.name}{published}.log"
        self.workspace = subject.workspace
        self.packages = [subject.file_of(old), new.path]
        wanted = (f"{old.name}-debuginfo", old.evr, old.arch)
        old_debug = next((one for one in subject.pool.known if (one.name, one.evr, one.arch) == wanted), None)
        new_debug = next(
            (one for one in subject.signed.rpms if one.nevra.name == f"{new.nevra.name}-debuginfo"), None
        )
        self.debug: list[Path] = []
        if new_debug and old_debug:
            self.debug = [subject.file_of(old_debug), new_debug.path]

    @property
    def means(self) -> str:
        """What is compared."""
        return "symbols and, with debugging information, types" if self.debug else "symbols alone"

    def run(self, *options: str) -> int:
        """Its exit code; what it says goes to the log. Raises ToolError past the deadline."""
        identity = str(_NOBODY)
        as_nobody = ["setpriv", "--reuid", identity, "--regid", identity, "--clear-groups", "--no-new-privs"]
        with scratch_folder(self.workspace, "abi-") as scratch:
            os.chown(scratch, _NOBODY, _NOBODY)
            words = [*as_nobody, "--", PROGRAM, "--dso-only", *options, *self._arguments()]
            command = Command(words, timeout=TIMEOUT, what="comparing libraries", accept=None, log=self.log)
            return self._sandbox(scratch).run(command).exit_code

    def report(self) -> list[str]:
        """What abipkgdiff says of all that differs."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if line.strip() and not line.startswith("$ ")]

    def _sandbox(self, scratch: Path) -> Sandbox:
        # Folders that bubblewrap makes unasked can be entered by root alone.
        folders = [word for name in _FOLDERS for word in ("--dir", f"/{name}")]
        sandbox = Sandbox(
            mounts=("--dir", "/etc", *host_programs(), "--dev", "/dev", "--proc", "/proc", *folders),
            capabilities=("SETUID", "SETGID"),
            environment={"HOME": _SCRATCH, "TMPDIR": _SCRATCH, "XDG_CACHE_HOME": _SCRATCH},
        )
        binds = [Bind(host=path, inside=inside) for inside, path in self._inside()]
        return sandbox.with_binds([Bind(host=scratch, inside=_SCRATCH, writable=True), *binds])

    def _inside(self) -> list[tuple[str, Path]]:
        paths = [*self.packages, *self.debug]
        return [(f"/{_FOLDERS[number % 2]}/{path.name}", path) for number, path in enumerate(paths)]

    def _arguments(self) -> list[str]:
        places = [inside for inside, _ in self._inside()]
        debug = ["--d1", places[2], "--d2", places[3]] if self.debug else []
        return [*debug, *places[:2]]
