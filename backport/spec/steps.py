"""The steps of a %prep section: the lines that unpack sources or apply patches, and how they do it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import zip_longest

from backport.spec import everyone
from backport.spec.lines import HOSTILE, Line, Section, Spec, Splice

#: The macros that unpack, and %autopatch. %forgesetup, %forgeautosetup and %goprep (forge-srpm-macros,
#: go-rpm-macros) hand their options on to %setup or %autosetup; %goprep patches where it is given -p.
_MACRO = re.compile(
    r"%(?:\{[?!]*)?(?P<name>autosetup|setup|forgeautosetup|forgesetup|goprep|autopatch)\d*(?![\w-])", re.ASCII
)
_LEVEL = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*p[ \t]*(%\{[^}]{0,200}\}|\w+)", re.ASCII)
_CONDITIONAL_MACRO = re.compile(r"[ \t]*%\{!?\?", re.ASCII)
_NAME = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*n[ \t]*(\S+)", re.ASCII)
_GUARD = re.compile(r"%\{(!?\?\w+):", re.ASCII)
_BRACE = re.compile(r"%\{|[{}]")
_GIT = re.compile(r"\bgit[ \t]+(am|apply)\b", re.ASCII)
_STYLE = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*S[ \t]*(\S+)", re.ASCII)
_BRACED = re.compile(r"%?\{[!?]*|\}")
_GIT_LIKE = re.compile(r"(?:^|[ \t])-S[ \t]*(git|git_am|quilt|hg)(?!\w)", re.ASCII)
_UNPACKS_MORE = re.compile(r"(^|[ \t])-[cDTvqk]*[ab]", re.ASCII)
_AUTOPATCH_OPTIONS = re.compile(r"(?:^|(?<=[ \t]))-(?:[vq]*[mMp][ \t]*\S+|[vq]+)", re.ASCII)
_APPLY = re.compile(
    r"%\{?[?!]*(patch(\d|\b)|PATCH\d|P:[ \t]*\d|apply_?patch|autopatch|__patch\b)"
    r"|\bgit[ \t]+(am|apply)\b|(^|[|;&({!]|\bdo|\bthen|\belse)[ \t]*patch[ \t]"
    r"|\bxargs[ \t][^\n|;&]{0,99}\bpatch\b|\bquilt[ \t]+push\b|\bApply\w*Patch\b",
    re.ASCII | re.MULTILINE,
)
MOST_IN_ONE_LINE = 50
"""Macros that unpack or patch in one line of %prep, its continuations included."""
_LONGEST_LEVEL = 3
_USES_SOURCE = re.compile(r"%\{?(SOURCE|S:)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of %prep that unpacks or patches, by the macro whose options stand from ``position`` on.

    ``unpacks``: it ends in the directory of the sources, as %setup does. ``applies``: it applies a
    patch. ``automatic``: it applies every patch that has a tag, a new one too, with level ``strip``
    (None: unknown); ``certain`` is False where a macro decides whether it runs at all, and ``guard`` then
    is that macro, as ``?name`` or ``!?name``, where it alone decides. ``unclear``: what it does with every
    patch is not known.
    """

    line: Line
    macro: str = ""
    options: str = ""
    position: int = 0
    unpacks: bool = False
    applies: bool = False
    automatic: bool = False
    certain: bool = True
    strip: int | None = None
    guard: str = ""
    unclear: bool = False

    def with_option(self, option: str) -> Splice:
        """The change that gives the step's macro one more option."""
        return Splice(start=self.position, end=self.position, text=f" {option}")


def read_steps(spec: Spec, section: Section) -> list[Step]:
    """The steps of a %prep section, in its order.

    Where %setup unpacks nothing (``-T`` alone), the lines that use a source count as steps too: they
    are what fills the tree.
    """
    found: list[Step] = []
    empty_tree = False
    for line in spec.section_lines(section)[1:]:
        if line.comment or line.conditional or line.joined:
            continue
        text = _without_comments(spec, line)
        steps = _read(spec, section, line, text)
        found += steps
        for step in steps:
            if step.unpacks:
                empty_tree = has_flag(step.options, "T") and not _UNPACKS_MORE.search(step.options)
        if not steps and empty_tree and uses_source(text):
            found.append(Step(line=line))
    return found


def _without_comments(spec: Spec, line: Line) -> str:
    """A line and those that continue it; comments among these are blanked, so that places stay."""
    end = spec.group_end(line).index
    parts = []
    for part in spec.lines[line.index : end + 1]:
        text = spec.text[part.start : part.end]
        blank = part.comment or (part.conditional and part is not line)
        parts.append(" " * (len(text) - 1) + text[-1:] if blank and text.endswith("\n") else text)
    return "".join(parts)


def uses_source(text: str) -> bool:
    """Whether a line names a source file."""
    return _USES_SOURCE.search(text) is not None


def _read(spec: Spec, section: Section, line: Line, text: str) -> list[Step]:
    if everyone.MENTION.search(text) or everyone.in_lua(text, "patches"):
        return _over_all_patches(spec, section, line, text)
    matches = list(_MACRO.finditer(text))
    if len(matches) > MOST_IN_ONE_LINE:
        raise spec.refuse(
            f"more than {MOST_IN_ONE_LINE} macros that unpack or patch in one line",
            line,
            hint=HOSTILE,
        )
    steps = []
    for match, following in zip_longest(matches, matches[1:]):
        options = _options(text, match, following.start() if following else len(text))
        step = _from_macro(line, match["name"], options, line.start + match.end())
        steps.append(_guarded(step, text, match.start()))
    if _APPLY.search(_MACRO.sub(lambda match: " " * len(match[0]), text)):
        steps.append(Step(line=line, applies=True))
    return steps


def _options(text: str, match: re.Match[str], stop: int) -> str:
    """What stands behind a macro: to the end of its line, of the braces around it, or to the next macro."""
    options = text[match.end() : stop]
    if _GUARD.match(text) or match.start():
        options = re.split(r"(?<!\\)\n", options, maxsplit=1)[0]
    return _within_braces(options).rstrip(" \t\r\n")


def _guarded(step: Step, text: str, position: int) -> Step:
    """The step, with what decides whether it is done at all, by what stands before it on its line."""
    blocks, depth, start = [], 0, 0
    for brace in _BRACE.finditer(text, 0, position):
        if brace[0] == "}":
            depth -= depth > 0
            if not depth and start is not None:
                blocks.append((start, brace.end()))
        elif depth or brace[0] == "%{":
            start = start if depth else brace.start()
            depth += 1
    before = text[:start] if depth else text[:position]
    for first, last in reversed(blocks):
        if last <= len(before):
            before = before[:first] + before[last:]
    if not depth and not before.strip() and not blocks:
        return step
    guard = _GUARD.match(text, start) if depth == 1 and not before.strip() and step.certain else None
    return replace(step, certain=False, guard=guard[1] if guard else "")


def _over_all_patches(spec: Spec, section: Section, line: Line, text: str) -> list[Step]:
    """A command on %{patches}, or a loop over them, which may also do other things than patch."""
    stop = spec.lines[section.stop - 1].end
    use, text = everyone.use_of(text, everyone.following_text(spec.text, line.start, stop))
    if use == "nothing":
        return []
    if use == "unclear":
        return [Step(line=line, applies=True, unclear=True)]
    strip = level(text, default=1 if _GIT.search(text) else None)
    certain = _CONDITIONAL_MACRO.match(line.text) is None
    return [Step(line=line, applies=True, automatic=True, certain=certain, strip=strip)]


def _from_macro(line: Line, macro: str, options: str, position: int) -> Step:
    step = Step(
        line=line, macro=macro, options=options, position=position, strip=level(options, default=None)
    )
    plain = _without_macros(options)
    if macro == "autopatch":
        rest = _AUTOPATCH_OPTIONS.sub(" ", plain).replace("\\", " ").split()
        automatic = not has_flag(plain, "M") and set(rest) <= {"x"}
        return replace(step, applies=True, automatic=automatic, certain="%" not in options)
    if macro == "goprep":
        return replace(step, unpacks=True, automatic=level_text(options) is not None)
    if step.strip is None and level_text(options) is None and _GIT_LIKE.search(options):
        step = replace(step, strip=1)
    return replace(
        step,
        unpacks=True,
        automatic=macro.endswith("autosetup") and not has_flag(plain, "N"),
        certain=has_flag(options, "N") == has_flag(plain, "N"),
    )


def _within_braces(text: str) -> str:
    """The text up to the brace that closes one opened before it."""
    depth = 0
    for position, char in enumerate(text):
        depth += (char == "{") - (char == "}")
        if depth < 0:
            return text[:position]
    return text


def _without_macros(text: str) -> str:
    """The text without what ``%{?…}`` may or may not put there, and with an x for any other ``%{…}``."""
    parts: list[list[str]] = [[]]
    openers: list[str] = []
    position = 0
    for match in _BRACED.finditer(text):
        parts[-1].append(text[position : match.start()])
        position = match.end()
        if match[0] != "}":
            openers.append(match[0])
            parts.append([])
        elif openers:
            parts.pop()
            parts[-1].append("" if "?" in openers.pop() else "x")
        else:
            parts[-1].append("}")
    whole = ["".join(parts[0])]
    whole += [opener + "".join(part) for opener, part in zip(openers, parts[1:], strict=True)]
    return "".join([*whole, text[position:]])


def has_flag(options: str, letter: str) -> bool:
    """Whether a macro's options hold the flag, alone or behind other flags of the same word."""
    return re.search(rf"(^|[ \t:])-[cCDTvqkA]*{letter}", options) is not None


def tree_name(step: Step) -> str:
    """The folder that %setup unpacks to, as given by ``-n``."""
    match = _NAME.search(step.options)
    return match[1] if match else ""


def patch_style(options: str) -> str:
    """How %autosetup's ``-S`` has patches applied: ``git``, say; by default with ``patch``."""
    match = _STYLE.search(options)
    return match[1] if match else "patch"


def ranged(options: str) -> bool:
    """Whether %autopatch is given a range or numbers, which rpm knows from 4.15 and 4.18 on."""
    return re.search(r"(^|[^\w-])(-[vq]*[mM]|\d)", options) is not None


def level_text(options: str) -> str | None:
    """What stands behind ``-p``, if it is given."""
    match = _LEVEL.search(options)
    return match[1] if match else None


def level_span(step: Step) -> tuple[int, int]:
    """Where in the spec's text the level behind ``-p`` stands."""
    match = _LEVEL.search(step.options)
    start, end = match.span(1) if match else (0, 0)
    return step.position + start, step.position + end


def level(options: str, *, default: int | None) -> int | None:
    """The strip level that ``-p`` gives; None where a macro does."""
    text = level_text(options)
    if text is None:
        return default
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_LEVEL else None
