"""Unified diffs: the check that a patch file is one, and the diff of two texts for people.

Whether a patch applies is known only where %prep runs: what it applies to is made there by macros,
other patches and programs. What can be known before is whether ``patch`` could read it at all.
"""

from __future__ import annotations

import difflib
import re

from backport.errors import PatchError

MAX_PATCH_BYTES = 64 * 1024 * 1024
"""A patch larger than this is a mistake; the kernel's largest are below it."""

_HUNK = re.compile(rb"@@ -\d+(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_CONTROL = {number: f"\\x{number:02x}" for number in (*range(32), 127) if chr(number) not in "\n\t"}
_NO_NEWLINE = b"\\ No newline at end of file\n"


def unified_diff(old: bytes, new: bytes, *, name: str) -> str:
    r"""The change from ``old`` to ``new`` as a unified diff; empty where they are the same.

    It can be printed anywhere: see ``readable``.
    """
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        _LINE.findall(old),
        _LINE.findall(new),
        f"a/{name}".encode(),
        f"b/{name}".encode(),
    )
    whole = b"".join(line if line.endswith(b"\n") else line + b"\n" + _NO_NEWLINE for line in lines)
    return readable(whole)


def readable(content: bytes) -> str:
    r"""Text of which every byte can be shown: what is not UTF-8, or controls a terminal, as ``\xNN``.

    >>> readable(b"caf\xe9")
    'caf\\xe9'
    """
    return content.decode("utf-8", "backslashreplace").translate(_CONTROL)


def check_patch(content: bytes, *, name: str, strip: int) -> None:
    """Make sure that ``patch -p<strip>`` can read ``content``: whole hunks of a unified diff, each
    file's name still a name after stripping, and inside the source tree.

    Raises PatchError with the file's name and the line.
    """
    if not content.strip():
        raise PatchError(f"{name}: the patch is empty", hint="remove it from the recipe or fill it")
    lines = content.split(b"\n")
    hunks = position = 0
    while position < len(lines):
        if lines[position].startswith(b"GIT binary patch"):
            raise PatchError(
                f"{name}, line {position + 1}: a binary patch, which patch(1) cannot apply",
                hint="carry the file as a source of its own and copy it in %prep",
            )
        if _starts_file(lines, position):
            _check_names(lines[position : position + 2], name=name, strip=strip, line=position + 1)
            position += 2
            end = _skip_hunks(lines, position, name)
            hunks += end > position
            position = end
        else:
            position += 1
    if not hunks:
        raise PatchError(
            f"{name}: not a unified diff: no file header (---, +++) with a hunk (@@ … @@) below it",
            hint="make it with diff -u or git diff",
        )


def _starts_file(lines: list[bytes], position: int) -> bool:
    following = lines[position + 1 : position + 2]
    return lines[position].startswith(b"--- ") and bool(following) and following[0].startswith(b"+++ ")


def _check_names(header: list[bytes], *, name: str, strip: int, line: int) -> None:
    """POSIX patch(1), "Filename Determination": of the two names one that is left must be usable."""
    usable = 0
    for entry in header:
        path = entry[4:].split(b"\t")[0].strip()
        if path == b"/dev/null":
            continue
        parts = [part for part in path.split(b"/") if part != b"."]
        if b".." in parts:
            raise PatchError(f"{name}, line {line}: {readable(path)} leads out of the source tree")
        kept = parts[strip:]
        if strip == 0 and parts[0] == b"":
            raise PatchError(f"{name}, line {line}: {readable(path)} is an absolute path")
        usable += bool(kept and any(kept))
    if not usable:
        raise PatchError(
            f"{name}, line {line}: strip = {strip} leaves nothing of {readable(header[1][4:].strip())}",
            hint="set the patch's strip in the recipe to the number of leading folders",
        )


def _skip_hunks(lines: list[bytes], position: int, name: str) -> int:
    """The position behind the hunks that begin at ``position``, each as long as it says."""
    while position < len(lines) and (hunk := _HUNK.match(lines[position])):
        start = position
        old, new = (int(hunk[side]) if hunk[side] is not None else 1 for side in ("old", "new"))
        position += 1
        while old > 0 or new > 0:
            kind = lines[position][:1] if position < len(lines) - 1 else None
            old -= kind in (b" ", b"-", b"", b"\t")
            new -= kind in (b" ", b"+", b"", b"\t")
            if kind not in (b" ", b"-", b"+", b"", b"\t", b"\\") or old < 0 or new < 0:
                raise PatchError(
                    f"{name}, line {position + 1}: the hunk of line {start + 1} is not as long as it says",
                    hint="the patch is cut short or was edited by hand: make it again",
                )
            position += 1
        while position < len(lines) and lines[position].startswith(b"\\"):
            position += 1
    return position
