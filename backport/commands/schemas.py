"""What every command's ``--json`` is: its JSON Schema, and how it is printed.

Both follow from the types that the commands give, so that one cannot say what the other does not know.
A time is RFC 3339, in UTC and with a Z.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from importlib import import_module
from operator import or_
from types import GenericAlias
from typing import Any, get_type_hints

from pydantic import Field, TypeAdapter, create_model
from pydantic.json_schema import GenerateJsonSchema

from backport.commands.options import print_json

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The dialect of the schemas (JSON Schema, draft 2020-12)."""
_MOVED = ("backport.repository.rollback:Moved",)
_NAMES = ("builtins:str[]",)
_CHECKS = ("backport.artifacts:Check[]",)
_PRINTED: dict[str, tuple[str, ...]] = {
    "build": ("backport.runs.report:RunReport",),
    "plan": ("backport.plan:Plan",),
    "fetch": ("backport.prepare:SourceData[]",),
    "log": ("backport.runs.report:RunReport", "backport.runs.report:RunReport[]"),
    "search": ("backport.sources.offers:Found[]",),
    "keys-show": ("backport.signing.key:KeyInfo",),
    "doctor": _CHECKS,
    "verify-provenance": _CHECKS,
    "repo-list": ("backport.repository.listing:Listed[]",),
    "repo-diff": ("backport.repository.listing:Difference",),
    "repo-verify": ("backport.repository.verification:Verified",),
    "repo-add-to-host": ("backport.commands.documents:HostLinesPart",),
    "repo-show": ("backport.repository.generations:Generation", "backport.evidence.why:Explanation[]"),
    "repo-rollback": _MOVED,
    "repo-promote": _MOVED,
    "repo-withdraw": ("backport.repository.withdraw:Withdrawn",),
    "repo-prune": _NAMES,
    "repo-gc": _NAMES,
    "repo-anchor": _NAMES,
    "probe": ("backport.commands.documents:ProbeDocument", "backport.commands.documents:DomainDocument"),
    "selftest": ("backport.commands.documents:SelfTestDocument",),
    "maillog": ("backport.maillog.tally:Report",),
}
"""What each command prints, one of these: the type, with [] where it is a list of them."""
_MORE: dict[str, dict[str, Any]] = {
    "plan": {"exit_code": (int, Field(ge=0))},
    "repo-show": {"packages": ("backport.commands.documents:PackagePart[]", ...)},
}
"""What a command adds to the first of its types, or gives in another form."""
NAMES = tuple(_PRINTED)
"""The commands with ``--json``, a group's after its name and a hyphen."""


class _Whole(GenerateJsonSchema):
    """What is always printed is required, a default or not."""

    def field_is_required(self, field: Any, total: bool) -> bool:  # noqa: ARG002, FBT001  # as pydantic has it
        return True


def schema_for(command: str) -> dict[str, Any]:
    """The JSON Schema of what a command of ``NAMES`` prints with ``--json``."""
    schema = _adapter(command).json_schema(mode="serialization", schema_generator=_Whole)
    return {"$schema": DIALECT, **schema}


def print_as(command: str, data: object) -> None:
    """Print what a command gives as its schema says; a dict has all keys of the first type."""
    adapter = _adapter(command)
    print_json(adapter.dump_python(data, mode="json", warnings=False, fallback=str))


def _adapter(command: str) -> TypeAdapter[Any]:
    first, *others = _PRINTED[command]
    kinds = [_type(first), *(_type(other) for other in others)]
    if command in _MORE:
        fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(kinds[0]).items()}
        for name, (kind, default) in _MORE[command].items():
            fields[name] = (_type(kind) if isinstance(kind, str) else kind, default)
        kinds[0] = create_model(
            kinds[0].__name__, __base__=_type("backport.commands.documents:Part"), **fields
        )
    return TypeAdapter(reduce(or_, kinds))


def _type(name: str) -> Any:
    module, _, kind = name.removesuffix("[]").partition(":")
    found = getattr(import_module(module), kind)
    return GenericAlias(Sequence, found) if name.endswith("[]") else found
