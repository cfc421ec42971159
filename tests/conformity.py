"""Documents against the JSON Schemas that are published beside the manual."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

DOCS = Path(__file__).resolve().parent.parent / "docs"


def check_document(name: str, document: object) -> None:
    """Raise what is wrong with what ``backport NAME --json`` printed.

    The schemas let a reader meet keys that it does not know; here there must be none.
    """
    alone = DOCS / f"{name}.schema.json"
    others = json.loads((DOCS / "commands.schemas.json").read_text())
    schema = json.loads(alone.read_text()) if alone.exists() else others[name]
    jsonschema.validate(document, strict(schema))


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema without room for keys that it does not name."""
    definitions = {name: _closed(definition) for name, definition in schema.get("$defs", {}).items()}
    return {**_closed(schema), "$defs": definitions}


def _closed(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {**definition, **({"additionalProperties": False} if "properties" in definition else {})}
