"""Write the man pages, one a command, from the command line's own help: ``python docs/manual.py FOLDER``.

The format is that of man-pages(7) and groff_man(7).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from backport import __version__
from backport.commands import app

_KEPT = "\b"
"""The first line of a paragraph whose lines stay as they are."""


def pages() -> dict[str, str]:
    """Every man page's text by its file's name: ``backport.1``, then one for each command below it."""
    root = get_command(app)
    return {
        f"{'-'.join(words)}.1": _page(words, command) for words, command in _commands(("backport",), root)
    }


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in sorted(_below(command).items()):
        yield from _commands((*words, name), below)


def _below(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


def _page(words: tuple[str, ...], command: Any) -> str:
    context = command.context_class(command, info_name=" ".join(words))
    first, *more = re.split(r"\n\s*\n", inspect.cleandoc(command.help or ""))
    summary = _text(" ".join(first.split()))
    below = sorted(_below(command).items())
    lines = [
        f'.TH {"-".join(words).upper()} 1 "" "backport {__version__}"',
        ".ad l",
        ".nh",
        ".SH NAME",
        f"{_text('-'.join(words))} \\- {summary.rstrip('.')}",
        ".SH SYNOPSIS",
        f".B {_text(' '.join(words))}",
        _text(re.sub(r"\{(\w+)\}|\[(\[\w+\])\]", r"\1\2", " ".join(command.collect_usage_pieces(context)))),
        ".SH DESCRIPTION",
        summary,
        *(line for paragraph in more for line in _paragraph(paragraph)),
    ]
    for title, kind in (("ARGUMENTS", "argument"), ("OPTIONS", "option")):
        of_kind = [one for one in command.get_params(context) if one.param_type_name == kind]
        lines += _list(title, [one.get_help_record(context) for one in of_kind])
    lines += _list("COMMANDS", [(name, (one.help or "").strip().split("\n\n")[0]) for name, one in below])
    others = [
        *(f"{'-'.join(words)}-{name}" for name, _ in below),
        *(["-".join(words[:-1])] if words[1:] else []),
    ]
    return "\n".join([*lines, ".SH SEE ALSO", ", ".join(f"\\fB{_text(one)}\\fR(1)" for one in others)]) + "\n"


def _paragraph(text: str) -> Iterator[str]:
    """A paragraph; where it is kept as it is, its first line may be its title."""
    if not text.startswith(_KEPT):
        yield from (".PP", _text(" ".join(text.split())))
        return
    title, *kept = text.split("\n")[1:]
    yield from (".PP", _text(title), ".PP", ".nf", *map(_text, kept), ".fi")


def _list(title: str, records: list[tuple[str, str] | None]) -> Iterator[str]:
    found = [record for record in records if record]
    if found:
        yield f".SH {title}"
    for name, meaning in found:
        yield from (".TP", f".B {_text(name)}", _text(" ".join(meaning.split())))


def _text(text: str) -> str:
    """Text that groff takes literally (groff_char(7))."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main(folder: Path) -> None:
    """Write every page into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
