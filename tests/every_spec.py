"""The spec editor over every spec of a folder, such as all of Fedora's: `make specs BACKPORT_SPECS=DIR`.

Each spec is either edited without a loss or refused with a reason; anything else makes this fail.
"""

from __future__ import annotations

import datetime as dt
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

from backport.errors import PatchError
from backport.spec import ChangelogEntry, SpecPatch, edit_spec

NAME = "backport-every-spec.patch"
AUTHOR = "Every Spec <every@example.org>"
ITEM = "Edited with every other"
STRIPS = (1, 0)
ENTRY = ChangelogEntry(date=dt.date(2026, 11, 24), author=AUTHOR, lines=(ITEM,))

_NEW = re.compile(
    rf"\s*$|%changelog$|%prep$|%autosetup -p\d$|\* .*{re.escape(AUTHOR)}|- {re.escape(ITEM)}$"
    rf"|((Patch|Source)\d+:\s*)?{re.escape(NAME)}$|%autopatch\b.* -M \d+$"
    r"|(%\{\?PATCH\d+:)?(%patch -P \d+ -p\S+|%\{uncompress:%\{PATCH\d+\}\} \| %\{__scm_apply_\w+.*\})\}?$"
    r"|patch -p\S+ --fuzz=0 (< %\{PATCH\d+\}|-i %\{SOURCE\d+\})$"
)
_RELEASE = re.compile(r"(\xef\xbb\xbf)?\s*release\s*:", re.IGNORECASE)
_APPLIES = re.compile(r"%\{?[?!]*(\w*auto(setup|patch)|goprep)")
_SUFFIX = re.compile(r"(~%\{\?dist\})?\.bp\d+")
_OPTION = re.compile(r" (-N|-p ?\w+|-M \d+)(?=\s|$|\})")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one spec; ``wrong`` says what must not be."""

    name: str
    refused: str = ""
    wrong: str = ""


def judge(name: str, text: bytes, *, strip: int) -> Outcome:
    """Edit one spec, and compare what comes out with what went in."""
    try:
        edited = edit_spec(
            text, name=name, patches=[SpecPatch(name=NAME, strip=strip)], bump=1, changelog=ENTRY
        )
    except PatchError as problem:
        return Outcome(name=name, refused=problem.message.partition(": ")[2])
    except Exception as problem:  # noqa: BLE001 - whatever comes out of a foreign spec is what is looked for
        return Outcome(name=name, wrong=f"{type(problem).__name__}: {problem}")
    return Outcome(name=name, wrong=loss(text.decode("latin-1"), edited.decode("latin-1")))


def loss(before: str, after: str) -> str:
    """The first line that an edit lost, changed or added although it must not; nothing if all is well.

    Lines stay in their order, line endings included. Only Release tags get a suffix, only %autosetup,
    %autopatch and their like other options; an %autopatch may give way to its patches one by one.
    """
    old, new = before.split("\n"), after.split("\n")
    position = 0
    for line in new:
        if position < len(old) and _same(old[position], line):
            position += 1
        elif position + 1 < len(old) and _gave_way(old[position]) and _same(old[position + 1], line):
            position += 2
        elif not _NEW.match(line.rstrip("\r")):
            return f"line {position + 1}: {line!r} came up instead of {old[position : position + 1]}"
    return "" if position == len(old) else f"line {position + 1} is lost: {old[position]!r}"


def _same(old: str, new: str) -> bool:
    if old == new:
        return True
    if _RELEASE.match(old) and _RELEASE.match(new):
        return _SUFFIX.search(new) is not None and _bare(old) == _bare(new)
    return bool(_APPLIES.search(old)) and _OPTION.sub("", old) == _OPTION.sub("", new)


def _bare(release: str) -> str:
    """A Release tag without the suffix and without braces."""
    return re.sub(r"[{}]", "", _SUFFIX.sub("", release))


def _gave_way(line: str) -> bool:
    return re.match(r"\s*%autopatch\b", line) is not None


def judge_files(paths: Iterable[Path], *, strip: int) -> Iterator[Outcome]:
    """The outcome of every file, by all of the machine's processors."""
    with Pool() as pool:
        yield from pool.imap_unordered(_judge_file, ((path, strip) for path in paths), chunksize=200)


def _judge_file(work: tuple[Path, int]) -> Outcome:
    path, strip = work
    return judge(path.name, path.read_bytes(), strip=strip)


def main(folder: Path) -> int:
    """Print the counts; 1 if a spec was edited wrongly or made the editor fail."""
    paths = sorted(folder.rglob("*.spec"))
    if not paths:
        sys.exit(f"{folder}: no specs")
    bad = 0
    for strip in STRIPS:
        outcomes = list(judge_files(paths, strip=strip))
        refused = Counter(outcome.refused.partition(": ")[0] for outcome in outcomes if outcome.refused)
        wrong = [outcome for outcome in outcomes if outcome.wrong]
        edited = len(outcomes) - refused.total() - len(wrong)
        print(f"-p{strip}: {edited} of {len(outcomes)} edited, {refused.total()} refused, {len(wrong)} wrong")
        for reason, count in refused.most_common():
            print(f"{count:7} {reason}")
        for outcome in wrong:
            print(f"  WRONG {outcome.name}: {outcome.wrong}")
        bad += len(wrong)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
