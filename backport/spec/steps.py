"""The steps of a %prep section: the lines that unpack sources or apply patches, and how they do it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from backport.spec.lines import Line, Section, Spec, Splice

#: The macros that unpack, and %autopatch. %forgesetup, %forgeautosetup and %goprep (forge-srpm-macros,
#: go-rpm-macros) hand their options on to %setup or %autosetup; %goprep patches where it is given -p.
_MACRO = re.compile(
    r"%(?:\{[?!]*)?(?P<name>autosetup|setup|forgeautosetup|forgesetup|goprep|autopatch)\d*(?![\w-])", re.ASCII
)
_ALL_PATCHES = re.compile(r"%(?:\{[?!]*)?(patches|PATCHES)\b", re.ASCII)
_LEVEL = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*p[ \t]*(%\{[^}]*\}|\w+)", re.ASCII)
_LUA_PATCHES = re.compile(r"\bi?pairs[ \t]*\([ \t]*patches[ \t]*\)", re.ASCII)
_CONDITIONAL_MACRO = re.compile(r"[ \t]*%\{!?\?", re.ASCII)
_NAME = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*n[ \t]*(\S+)", re.ASCII)
_LOOP = re.compile(r"[ \t]*for\b", re.ASCII)
_LOOP_END = re.compile(r"^[ \t]*done\b|;[ \t]*done\b", re.ASCII | re.MULTILINE)
_BRACED = re.compile(r"%?\{([!?]*)[^{}]*\}")
_GIT = re.compile(r"\bgit[ \t]+(am|apply)\b", re.ASCII)
_STYLE = re.compile(r"(?:^|[ \t])-[cCDTNvqkA]*S[ \t]*(\S+)", re.ASCII)
_GIT_LIKE = re.compile(r"(?:^|[ \t])-S[ \t]*(git|git_am|quilt|hg)(?!\w)", re.ASCII)
_UNPACKS_MORE = re.compile(r"(^|[ \t])-[cDTvqk]*[ab]", re.ASCII)
_AUTOPATCH_OPTIONS = re.compile(r"(?:^|(?<=[ \t]))-(?:[vq]*[mMp][ \t]*\S+|[vq]+)", re.ASCII)
_APPLY = re.compile(
    r"%\{?[?!]*(patch(\d|\b)|PATCH\d|P:[ \t]*\d|apply_?patch|autopatch|__patch\b)"
    r"|\bgit[ \t]+(am|apply)\b|(^|[|;&(])[ \t]*patch[ \t]|\bquilt[ \t]+push\b|\bApply\w*Patch\b",
    re.ASCII | re.MULTILINE,
)
_USES_SOURCE = re.compile(r"%\{?(SOURCE|S:)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of %prep that unpacks or patches, by the macro whose options stand from ``position`` on.

    ``unpacks``: it ends in the directory of the sources, as %setup does. ``applies``: it applies a
    patch. ``automatic``: it applies every patch that has a tag, a new one too, with level ``strip``
    (None: unknown); ``certain`` is False where a macro decides whether it runs at all.
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
        if line.comment or line.conditional or (line.joined and not line.inner):
            continue
        text = line.text if line.inner else spec.group_text(line)
        if step := _read(spec, section, line, text):
            if step.unpacks:
                empty_tree = has_flag(step.options, "T") and not _UNPACKS_MORE.search(step.options)
            found.append(step)
        elif empty_tree and uses_source(text):
            found.append(Step(line=line))
    return found


def uses_source(text: str) -> bool:
    """Whether a line names a source file."""
    return _USES_SOURCE.search(text) is not None


def _read(spec: Spec, section: Section, line: Line, text: str) -> Step | None:
    if _ALL_PATCHES.search(text) or _LUA_PATCHES.search(text):
        return None if line.inner else _over_all_patches(spec, section, line)
    if match := _MACRO.search(text):
        options = _within_braces(text[match.end() :]).rstrip(" \t\r\n")
        step = _from_macro(line, match["name"], options, line.start + match.end())
        inside = line.inner or text[: match.start()].strip(" \t")
        return replace(step, certain=False) if inside else step
    return Step(line=line, applies=True) if _APPLY.search(text) else None


def _over_all_patches(spec: Spec, section: Section, line: Line) -> Step | None:
    """A command on %{patches}, or a loop over them, which may also do other things than patch.

    Lua hands its table of patches to whatever comes later in the section.
    """
    text, rest = spec.group_text(line), spec.text[line.start : spec.lines[section.stop - 1].end]
    if _LUA_PATCHES.search(text):
        text = rest
    elif _LOOP.match(text):
        text = rest[: match.end()] if (match := _LOOP_END.search(rest)) else rest
    if not _APPLY.search(_ALL_PATCHES.sub("", text)):
        return None
    strip = level(text, default=1 if _GIT.search(text) else None)
    certain = _CONDITIONAL_MACRO.match(line.text) is None
    return Step(line=line, applies=True, automatic=True, certain=certain, strip=strip)


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
    while (shorter := _BRACED.sub(lambda match: "" if "?" in match[1] else "x", text)) != text:
        text = shorter
    return text


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
    return int(text) if text.isdecimal() else None
