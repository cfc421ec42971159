"""Whether a recipe's patches apply, tried before a build on the package's sources; no macro is expanded.

Only what is certain is told: where %prep does nothing but unpack one archive and apply the spec's patches,
all patches are applied in their order to the files that they touch, as rpm does it (patch(1) without fuzz).
Of everything else the build alone knows.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from backport.artifacts import PatchedSrpm
from backport.errors import BackportError
from backport.roots.dnf import host_programs
from backport.roots.sandbox import Bind, Sandbox
from backport.run import Command
from backport.spec.lines import PREAMBLE, Spec, parse

TIMEOUT = 60.0
"""Deadline in seconds of one patch."""
MOST_BYTES = 64 * 1024**2
"""Of all files that are taken out of an archive."""
MOST_MEMBERS = 200_000

_SOURCE = re.compile(r"Source0?\s*:\s*(?P<name>\S+)", re.IGNORECASE)
_TAG = re.compile(r"Patch(?P<number>\d*)\s*:\s*(?P<name>\S+)\s*$", re.IGNORECASE)
_BRACED = re.compile(r"%\{(?P<inner>[^{}]*)\}")
_ALL = re.compile(r"%(?P<macro>autosetup|autopatch)\b(?P<options>.*)")
_SETUP = re.compile(r"%setup\b(?P<options>.*)")
_ONE = re.compile(r"%patch(?P<number>\d*)\b(?P<options>.*)")
_LEVEL = re.compile(r"-p\s*(\d)\b")
_NUMBER = re.compile(r"(?:-P\s*|^\s*)(\d+)\b")
_OPTIONS = re.compile(r"(?:\s+(?:-q|-v|-n\s*[^\s/]+|-p\s*\d|-P\s*\d+|\d+|-b\s*\.\S+))*\s*")
_FILE = re.compile(rb"^(?:---|\+\+\+) ([^\t\r\n]+)", re.MULTILINE)
_NOWHERE = "/dev/null"
_PLACE = "/tree"
_FAILED = 1
"""patch(1): "exit status is 0 if all hunks are applied successfully, 1 if some hunks cannot be applied"."""


class Unknown(Exception):
    """Why only the build knows whether the patches apply."""


@dataclass(frozen=True, kw_only=True)
class _Applied:
    """A patch as %prep applies it."""

    file: str
    level: int


def failing_patch(patched: PatchedSrpm, added: Sequence[str], workspace: Path) -> str | None:
    """The first of the ``added`` patch files that does not apply, None where all do.

    ``workspace`` is a folder for work in progress. Raises Unknown.
    """
    spec = parse(patched.spec.name, patched.spec.read_text(encoding="latin-1"))
    if "fuzz" in spec.text:
        raise Unknown("its spec sets how exactly patches have to fit")
    steps = list(_steps(spec))
    contents = {step.file: _content(patched.sources / step.file) for step in steps}
    wanted = {path for step in steps for path in _touched(contents[step.file], step.level)}
    tree = workspace / "tree"
    tree.mkdir(parents=True)
    _take_out(_archive(patched.sources, spec), wanted, tree)
    for step in steps:
        if not _applies(step, contents[step.file], tree):
            if step.file in added:
                return step.file
            raise Unknown(f"its own patch {step.file} does not apply here")
    return None


def _steps(spec: Spec) -> Iterator[_Applied]:
    """The patches in the order in which %prep applies them. Raises Unknown where it does anything else."""
    patches = _tags(spec)
    for line in spec.live("prep"):
        text = line.text.strip()
        if not text or text.lower().startswith("%prep"):
            continue
        if line.before or line.joined:
            raise Unknown("its %prep has conditions")
        if braced := _BRACED.fullmatch(text):
            text = f"%{braced['inner']}"
        match = _ALL.fullmatch(text) or _ONE.fullmatch(text) or _SETUP.fullmatch(text)
        if match is None or not _OPTIONS.fullmatch(match["options"]):
            raise Unknown(f"its %prep does more than unpack and patch: {text}")
        level = _LEVEL.search(match["options"])
        if match.re is _ALL and (level or match["macro"] == "autosetup"):
            yield from (_Applied(file=name, level=int(level[1]) if level else 1) for name in patches.values())
        elif match.re is _ONE:
            number = match["number"] or (found[1] if (found := _NUMBER.search(match["options"])) else "")
            if level is None or number not in patches:
                raise Unknown(f"it is not plain which patch this applies, and how: {text}")
            yield _Applied(file=patches[number], level=int(level[1]))


def _tags(spec: Spec) -> Mapping[str, str]:
    """The patch files by their numbers, in their order."""
    found: dict[int, str] = {}
    for line in spec.live(PREAMBLE, "package"):
        if match := _TAG.fullmatch(line.text.strip()):
            if line.before or "%" in match["name"]:
                raise Unknown(f"only a macro knows the name of a patch: {line.text.strip()}")
            number = int(match["number"] or max(found, default=-1) + 1)
            found[number] = match["name"].rpartition("/")[2]
    if spec.named("patchlist"):
        raise Unknown("its patches are in a %patchlist")
    return {str(number): found[number] for number in sorted(found)}


def _content(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise Unknown(f"{path.name} is not among its sources as a patch")
    return path.read_bytes()


def _touched(content: bytes, level: int) -> set[str]:
    """The paths in the tree that a patch names; both names of each file."""
    found = set()
    for match in _FILE.finditer(content):
        name = match[1].decode("utf-8", "replace").strip()
        parts = PurePosixPath(name).parts[level:]
        if name != _NOWHERE:
            if not parts or ".." in parts or parts[0] == "/" or '"' in name:
                raise Unknown(f"a patch names {name}")
            found.add("/".join(parts))
    return found


def _archive(sources: Path, spec: Spec) -> Path:
    """The one archive, where that is the first source: what %setup unpacks."""
    archives = [path for path in sources.iterdir() if path.is_file() and tarfile.is_tarfile(path)]
    if len(archives) != 1:
        raise Unknown(f"it has {len(archives)} archives among its sources")
    first = [match["name"] for line in spec.live(PREAMBLE) if (match := _SOURCE.fullmatch(line.text.strip()))]
    if len(first) != 1 or Path(first[0]).suffix != archives[0].suffix:
        raise Unknown(f"it is not plain that its first source is {archives[0].name}")
    return archives[0]


def _take_out(archive: Path, wanted: set[str], tree: Path) -> None:
    """Put the plain files of these paths below the archive's top folder into ``tree``."""
    left = MOST_BYTES
    try:
        with tarfile.open(archive, "r|*") as stream:
            for number, member in enumerate(stream):
                path = member.name.removeprefix("./").partition("/")[2]
                if path not in wanted:
                    continue
                source = stream.extractfile(member) if member.isreg() else None
                left -= member.size
                if source is None or left < 0 or number > MOST_MEMBERS:
                    raise Unknown(f"{path} in {archive.name} is no plain file, or too large")
                _write(source, tree / path)
    except (tarfile.TarError, OSError, EOFError, ValueError) as problem:
        raise Unknown(f"{archive.name}: cannot be read: {problem}") from None


def _write(source: IO[bytes], place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(source.read())


def _applies(step: _Applied, content: bytes, tree: Path) -> bool:
    """Whether the patch applies to the tree, where it then has. In a sandbox: both are foreign."""
    sandbox = Sandbox(
        mounts=("--dir", "/etc", *host_programs(), "--dev", "/dev", "--proc", "/proc"),
        environment={"TMPDIR": _PLACE},
    ).with_binds([Bind(host=tree, inside=_PLACE, writable=True)])  # fmt: skip
    words = ["patch", f"-p{step.level}", "--silent", "--fuzz=0", "--force", "--no-backup-if-mismatch"]
    try:
        done = sandbox.run(Command(words, timeout=TIMEOUT, accept=(0, _FAILED), stdin=content, cwd=_PLACE))
    except BackportError as problem:
        raise Unknown(f"{step.file} could not be tried: {problem.message}") from None
    return done.exit_code == 0
