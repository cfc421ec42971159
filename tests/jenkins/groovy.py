"""A Jenkinsfile's calls, read from the syntax tree of tree-sitter's Groovy grammar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import tree_sitter
import tree_sitter_groovy

_LANGUAGE = tree_sitter.Language(tree_sitter_groovy.language())
_CALLS = ("method_invocation", "juxt_function_call", "local_variable_declaration")
_STRINGS = ("character_literal", "string_literal")


class SyntaxProblem(Exception):
    """The text is not Groovy; ``line`` counts from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Text:
    """A string; one in double quotes interpolates what stands in ``${}``."""

    value: str
    interpolates: bool


@dataclass(frozen=True)
class Word:
    """A bare word or number, such as ``any`` or ``6``."""

    value: str


@dataclass
class Call:
    """``name arguments { body }``; ``body`` is None where there are no braces."""

    name: str
    line: int
    positional: list[Value] = field(default_factory=list)
    named: dict[str, Value] = field(default_factory=dict)
    body: list[Call] | None = None
    assigned: bool = False
    """It is ``name = value``, with the value as the only argument."""

    def first_text(self, name: str) -> str | None:
        """The string given as the argument ``name``, or as the only one without a name."""
        value = self.named.get(name, self.positional[0] if self.positional else None)
        return value.value if isinstance(value, Text) else None

    def walk(self) -> Iterator[Call]:
        """This call and all below it."""
        yield self
        for call in self.body or ():
            yield from call.walk()


Value = Text | Word | Call | list["Value"]


def parse(source: str) -> list[Call]:
    """The calls that stand at the top. Raises SyntaxProblem for the first thing that is not Groovy."""
    root = tree_sitter.Parser(_LANGUAGE).parse(source.encode()).root_node
    if root.has_error:
        worst = next(node for node in _below(root) if node.is_error or node.is_missing)
        # With a brace missing the whole file is one error: its first child in trouble says more.
        raise SyntaxProblem(_line(worst), f"not Groovy: {_text(worst).strip()[:60]!r}")
    return _statements(root)


def _below(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from _below(child)


def _line(node: tree_sitter.Node) -> int:
    return node.start_point.row + 1


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def _statements(node: tree_sitter.Node) -> list[Call]:
    calls = []
    for child in node.named_children:
        inner = child.named_children[0] if child.type == "expression_statement" else child
        if inner.type.endswith("comment"):
            continue
        calls.append(_call(inner))
    return calls


def _call(node: tree_sitter.Node) -> Call:
    if node.type == "assignment_expression":
        name, value = node.named_children
        return Call(_text(name), _line(node), positional=[_value(value)], assigned=True)
    if node.type not in _CALLS:
        return Call(f"<{node.type}>", _line(node))
    call = Call(_text(node.named_children[0]), _line(node))
    for part in node.named_children[1:]:
        if part.type == "closure":
            call.body = _statements(part)
        elif part.type == "argument_list":
            _take_arguments(call, part)
        else:
            # The grammar takes `agent any` for the declaration of a variable.
            call.positional.append(Word(_text(part)))
    return call


def _take_arguments(call: Call, arguments: tree_sitter.Node) -> None:
    for argument in arguments.named_children:
        if argument.type == "map_item":
            name, value = argument.named_children
            call.named[_text(name)] = _value(value)
        elif argument.type == "closure":
            call.body = _statements(argument)
        else:
            call.positional.append(_value(argument))


def _value(node: tree_sitter.Node) -> Value:
    if node.type in _STRINGS:
        return _string(_text(node))
    if node.type == "array_literal":
        return [_value(item) for item in node.named_children]
    if node.type in _CALLS:
        return _call(node)
    return Word(_text(node))


def _string(literal: str) -> Text:
    quote = literal[:3] if literal.startswith(("'''", '"""')) else literal[0]
    content = literal[len(quote) : -len(quote)]
    return Text(content.replace("\\\n", ""), interpolates=quote[0] == '"' and "$" in content)
