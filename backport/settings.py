"""TOML files into frozen, validated models: unknown keys, wrong values and wrong types are told
with file, line and key, before anything else happens."""

from __future__ import annotations

import codecs
import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, StringConstraints, ValidationError

from backport.errors import UsageError, as_kind
from backport.files import opened_regular
from backport.run import time_limit

MAX_BYTES = 1024 * 1024
"""A settings file larger than this is a mistake."""

_DEADLINE = 10.0
"""Seconds for one file; parsing keys of very many parts takes time that grows with the square."""
_TOLD, _LONGEST, _DEEPEST = 20, 80, 8
"""How many mistakes of one file are told, how much of a value, and how many parts of a key."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_LONG_NUMBER = re.compile(r"[0-9](?:_?[0-9]){4299}|[0-9]{4}-[0-9]{2}-[0-9]{2}")

Model = TypeVar("Model", bound="SettingsFile")


class Settings(BaseModel):
    """Base of every settings model: frozen, without room for unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )


class SettingsFile(Settings):
    """Base of what a whole file holds: it remembers which file that was."""

    _file: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any) -> None:
        """Take the path that `load` gives to the validation."""
        self._file = context

    def place(self, *keys: str) -> str:
        """``FILE:LINE: KEY`` of one of the keys for messages, or the key alone where no file was read.

        Raises UsageError where the file can be read no more.
        """
        key = ".".join(keys)
        if self._file is None:
            return key
        return f"{_place(self._file, _read(self._file, 'a settings file'), keys)}: {key}"


def _fingerprint(value: str) -> str:
    packed = value.replace(" ", "").upper()
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", packed):
        raise ValueError("a fingerprint has 40 hexadecimal digits; key ids are too short to pin a key")
    return packed


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
"""A whole OpenPGP fingerprint; spaces are dropped, letters raised."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._+-]*$"
_URL = r"^(https?://[^\s/]+|file:///)\S*$"

Name = Annotated[str, StringConstraints(pattern=_NAME, max_length=128)]
"""A name that is safe as a file name and as an argument."""

Url = Annotated[str, StringConstraints(pattern=_URL)]
"""An http, https or file URL."""

_FORMS = {
    _NAME: "is no name: letters, digits and . _ + - are, and it begins with a letter or digit",
    _URL: "is no URL that begins with https://, http:// or file:///",
}
"""What the patterns of settings mean."""

_TABLE, _LIST, _TEXT, _TRUTH = "must be a table", "must be a list", "must be text", "must be true or false"
_WHOLE, _NUMBER, _DATE = "must be a whole number", "must be a number", "must be a date"
_WORDS = {
    "dict_type": _TABLE, "model_type": _TABLE, "model_attributes_type": _TABLE,
    "tuple_type": _LIST, "list_type": _LIST,
    "string_type": _TEXT, "path_type": _TEXT,
    "bool_type": _TRUTH, "bool_parsing": _TRUTH,
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": _NUMBER,
    "datetime_type": _DATE, "datetime_parsing": _DATE, "datetime_from_date_parsing": _DATE,
    "greater_than": "must be more than {gt}", "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}", "less_than_equal": "must be at most {le}",
    "string_too_short": "must have {min_length} or more characters",
    "string_too_long": "must have {max_length} or fewer characters",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
}  # fmt: skip
"""pydantic's kinds of errors (its documentation, "Validation errors") in words for files of settings."""


class Key(Settings):
    """A public key, pinned by its fingerprint; the file may then come from anywhere."""

    fingerprint: Fingerprint
    """The whole fingerprint, 40 hexadecimal digits; the file must hold this key alone."""
    file: Path
    """The armoured or binary public key."""
    sha1_self_signature: bool = False
    """Accept that this one key's self-signature uses SHA-1, as those of Fedora 25 to 33 do; the
    fingerprint is what vouches for the key."""


@as_kind(UsageError)
def load(path: Path, model: type[Model], *, what: str) -> Model:
    """Read ``path`` as TOML into ``model``; relative paths in it are left as they stand.

    Raises UsageError that names the file, the line where known, and the key.
    """
    text = _read(path, what)
    with time_limit(_DEADLINE, what=str(path), hint=f"this is not {what}"):
        data = _parse(path, text)
        _refuse_controls(path, text, data)
        try:
            return model.model_validate(data, context=path)
        except ValidationError as problem:
            raise UsageError("\n".join(_explain(path, text, model, problem))) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    hint = "correct the file there"
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"{path}: not valid TOML: {problem}", hint=hint) from None
    except RecursionError:
        raise UsageError(f"{path}: not valid settings: nested too deeply", hint=hint) from None
    except ValueError:
        # Python takes no longer ones (its documentation, "Integer string conversion length limitation").
        found = _LONG_NUMBER.search(text)
        line = f":{text.count(chr(10), 0, found.start()) + 1}" if found else ""
        raise UsageError(f"{path}{line}: not valid TOML: a number or date that is none", hint=hint) from None


def _refuse_controls(path: Path, text: str, data: dict[str, Any]) -> None:
    """No setting has a use for control characters; NUL no file's name, XML none of the others."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), data)]
    while pending:
        keys, value = pending.pop()
        if isinstance(value, dict):
            below = [((*keys[:_DEEPEST], key), one) for key, one in value.items()]
            pending += below + [(names, names[-1]) for names, _ in below]
        elif isinstance(value, list):
            pending += [(keys, one) for one in value]
        elif isinstance(value, str) and (found := _CONTROL.search(value)):
            place = f"{_place(path, text, keys)}: {'.'.join(keys)}"
            raise UsageError(f"{place}: has the control character {found[0]!r}", hint="take it out")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` for the nearest known word, or nothing.

    >>> did_you_mean("opnssl", ["openssl", "exim"])
    ' (did you mean openssl?)'
    """
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def unknown(what: str, word: str, known: Collection[str], *, hint: str | None = None) -> UsageError:
    """The error for a word that is none of the ``known``: with the nearest one, and with a hint, by default
    all of them.

    >>> str(unknown("there is no target", "f82", ["f28"]))
    "there is no target 'f82' (did you mean f28?)"
    """
    hint = hint or (f"known: {', '.join(known)}" if known else "there is none")
    return UsageError(f"{what} {word!r}{did_you_mean(word, known)}", hint=hint)


def reason_of(error: Any) -> str:
    """One of pydantic's error details in words that fit a settings file and a command line."""
    if words := _WORDS.get(error["type"]):
        return words.format(input=error["input"], **error.get("ctx", {}))
    if error["type"] == "string_pattern_mismatch":
        form = _FORMS.get(error["ctx"]["pattern"], "does not have the form {pattern}")
        return f"{_shown(error['input'])} {form.format(**error['ctx'])}"
    if error["type"] == "literal_error":
        expected = error["ctx"]["expected"]
        word = error["input"] if isinstance(error["input"], str) else ""
        guess = did_you_mean(word[:_LONGEST], re.findall(r"'([^']*)'", expected))
        return f"must be {expected}{guess}"
    return str(error["msg"]).removeprefix("Value error, ")


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _read(path: Path, what: str) -> str:
    try:
        with opened_regular(Path(os.path.realpath(path))) as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as problem:
        raise UsageError(f"{path}: {what} cannot be read: {problem.strerror}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path}: too large for {what}")
    if content.startswith(codecs.BOM_UTF8):
        raise UsageError(f"{path}: begins with a byte order mark", hint="save it as UTF-8 without one")
    try:
        return content.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise UsageError(f"{path}:{line}: {what} must be UTF-8 text") from None


def _explain(path: Path, text: str, model: type[Settings], problem: ValidationError) -> list[str]:
    lines = []
    errors = problem.errors(include_url=False)
    for error in errors[:_TOLD]:
        location = [part for part in error["loc"] if part != "[key]"]
        key = ".".join(str(part) for part in location) or "the file"
        lines.append(f"{_place(path, text, location)}: {key}: {_reason(error, model, location)}")
    return lines + ([f"{path}: and {len(errors) - _TOLD} more"] if len(errors) > _TOLD else [])


def _reason(error: Any, model: type[Settings], location: Sequence[int | str]) -> str:
    if error["type"] == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return f"unknown key{did_you_mean(str(location[-1]), known)}"
    if error["type"] == "missing":
        return "this key is required"
    return reason_of(error)


def _known_keys(model: type[Settings], location: Sequence[int | str]) -> list[str]:
    """The keys that the table at ``location`` may hold; positions and a mapping's own keys name none."""
    current: Any = model
    parts = iter(location)
    for part in parts:
        if isinstance(part, int):
            continue
        fields = {(field.alias or name): field for name, field in current.model_fields.items()}
        field = fields.get(part)
        current = _innermost_model(field.annotation) if field else None
        if current is None:
            return []
        if field and get_origin(field.annotation) is dict:
            next(parts, None)
    return [field.alias or name for name, field in current.model_fields.items()]


def _innermost_model(annotation: Any) -> Any:
    """The settings model inside ``Model | None``, ``dict[str, Model]`` or ``tuple[Model, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    for part in get_args(annotation):
        if (found := _innermost_model(part)) is not None:
            return found
    return None


def _place(path: Path, text: str, location: Sequence[int | str]) -> str:
    """``FILE:LINE`` of a key, or the file alone."""
    line = _line_of(text, location)
    return f"{path}:{line}" if line else f"{path}"


def _line_of(text: str, location: Sequence[int | str]) -> int | None:
    """The line of a key, found by reading the text; TOML's parser keeps no positions."""
    keys = [str(part) for part in location if isinstance(part, str)]
    while keys:
        if line := _find_key(text, keys):
            return line
        keys.pop()
    return None


def _find_key(text: str, keys: list[str]) -> int | None:
    table: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[?([^\[\]]+)\]\]?\s*(#.*)?$", line):
            table = _split_key(header[1])
            if table == keys:
                return number
        assignment = re.match(r"\s*([A-Za-z0-9_.\"'-]+)\s*=", line)
        if assignment and table + _split_key(assignment[1]) == keys:
            return number
    return None


def _split_key(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", dotted)]
