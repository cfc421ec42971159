"""Make what follows from other files: the settings reference, JSON schemas and the mock configurations.

``python docs/generate.py`` writes them; the tests compare what is committed with ``generated()``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backport.builders.mockconfig import render_config
from backport.commands.schemas import NAMES, schema_for
from backport.files import write_atomically
from backport.recipe import Recipe
from backport.settings import Settings
from backport.site import Site
from backport.target import Target, load_target

ROOT = Path(__file__).resolve().parent.parent
_DOCUMENTS = ("probe", "selftest", "maillog")
"""What has a schema file of its own."""
_FILES: tuple[tuple[str, str, type[Settings]], ...] = (
    (
        "Recipe",
        "`specs/NAME.toml`: what is carried over, with which changes, and what proves the result.",
        Recipe,
    ),
    ("Target", "`mock-configs/NAME.toml`: the older release.", Target),
    ("Site", "`backport.toml`: hub, mirrors, keys and folders of one installation.", Site),
)


def generated() -> dict[Path, str]:
    """Every generated file's path and text."""
    files = {ROOT / "docs" / "reference.md": reference()}
    for name in _DOCUMENTS:
        files[ROOT / "docs" / f"{name}.schema.json"] = json.dumps(schema_for(name), indent=2) + "\n"
    others = {name: schema_for(name) for name in NAMES if name not in _DOCUMENTS}
    files[ROOT / "docs" / "commands.schemas.json"] = json.dumps(others, indent=2) + "\n"
    for path in sorted((ROOT / "mock-configs").glob("*.toml")):
        target = load_target(path.parent, path.stem)
        files[path.parent / f"{target.name}-{target.arch}.cfg"] = render_config(target)
    return files


def reference() -> str:
    """The settings reference as Markdown, from the models' JSON schema."""
    lines = [
        "# Settings reference",
        "",
        "Three kinds of TOML file. Unknown keys are errors. `backport schema recipe|target|site` prints the",
        "JSON schema that this page is made from.",
    ]
    for title, summary, model in _FILES:
        schema = model.model_json_schema()
        lines += ["", f"## {title}", "", summary, *_table("", schema, schema.get("$defs", {}))]
    return "\n".join(lines) + "\n"


def _table(prefix: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """One table for the schema's own keys, then one for each table below it."""
    nested: list[tuple[str, Mapping[str, Any]]] = []
    yield from ("", "| key | type | default | meaning |", "|---|---|---|---|")
    for name, field in schema["properties"].items():
        key = f"{prefix}{name}"
        below = _below(field, definitions)
        if below:
            nested.append((f"{key}{below[0]}.", below[1]))
        default = "required" if name in schema.get("required", ()) else _default(field)
        meaning = _prose(field.get("description") or (below[1].get("description", "") if below else ""))
        yield f"| `{key}` | {_type(field, definitions)} | {default} | {meaning} |"
    for key, definition in nested:
        yield from ("", f"### {key.removesuffix('.')}", "", _prose(definition.get("description", "")))
        yield from _table(key, definition, definitions)


def _below(
    field: Mapping[str, Any], definitions: Mapping[str, Any], suffix: str = ""
) -> tuple[str, Mapping[str, Any]] | None:
    """The table that a key holds, with ``[]`` or ``.NAME`` for lists and named tables of it."""
    if "$ref" in field:
        definition = definitions[field["$ref"].rsplit("/", 1)[1]]
        return (suffix, definition) if "properties" in definition else None
    candidates = [(option, suffix) for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if isinstance(field.get("items"), dict):
        candidates.append((field["items"], f"{suffix}[]"))
    named = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
    candidates += [(option, f"{suffix}.NAME") for option in named if isinstance(option, dict)]
    return next((found for option, end in candidates if (found := _below(option, definitions, end))), None)


def _type(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    options = [option for option in field.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return " or ".join(_type(option, definitions) for option in options)
    if values := field.get("enum", [field["const"]] if "const" in field else ()):
        return " or ".join(f"`{value}`" for value in values)
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), definitions)}"
    names = {"object": "table of named entries", "boolean": "true or false", "string": "text"}
    kind = str(field.get("type", "table" if "$ref" in field else "text"))
    return names.get(kind, kind)


def _prose(text: str) -> str:
    """A docstring as one line of Markdown."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    if default is None:
        return "none" if "anyOf" in field else "see meaning"
    if isinstance(default, dict | list | str) and not default:
        return "empty"
    if isinstance(default, dict | list):
        return "as below"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    for path, text in generated().items():
        write_atomically(path, text)
