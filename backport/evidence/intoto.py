"""in-toto statements: who asserts what about which files, as data and as JSON.

The form is that of the in-toto Attestation Framework, "Statement v1" and "ResourceDescriptor v1". A field
that is not known is passed over on reading, as the framework's parsing rules ask for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic.alias_generators import to_camel

from backport.errors import PublishError

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PROVENANCE: Final = "https://slsa.dev/provenance/v1"
TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
MAX_BYTES = 256 * 1024 * 1024
"""A statement larger than this is a mistake."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]+$")]
"""A digest in lower-case hex (in-toto's DigestSet)."""


class _Form(BaseModel):
    """Base of every part: frozen, its keys in lowerCamelCase, unknown ones passed over."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Null, and an empty list or table, mean to in-toto what a missing field means."""
        return {name: value for name, value in serialize(self).items() if value not in (None, {}, [])}


class Resource(_Form):
    """A file or another artifact (ResourceDescriptor): one of name, URI, digest and content must be there."""

    name: str | None = None
    uri: str | None = None
    digest: dict[str, Digest] = {}
    content: str | None = None
    """The content itself, base64."""
    download_location: str | None = None
    media_type: str | None = None
    annotations: dict[str, Any] = {}

    @model_validator(mode="after")
    def _names_something(self) -> Resource:
        if not (self.uri or self.digest or self.content):
            raise ValueError("a resource needs at least one of uri, digest and content")
        return self

    @classmethod
    def of_text(cls, name: str, text: str, *, media_type: str, limit: int, **annotations: Any) -> Resource:
        """A text with its digest; the text itself too, up to ``limit`` bytes of UTF-8."""
        data = text.encode()
        return cls(
            name=name,
            digest={"sha256": hashlib.sha256(data).hexdigest()},
            content=base64.b64encode(data).decode("ascii") if len(data) <= limit else None,
            media_type=media_type,
            annotations=annotations,
        )

    @property
    def sha256(self) -> str:
        """The SHA-256 digest; empty where there is none."""
        return self.digest.get("sha256", "")

    @property
    def text(self) -> str | None:
        """The content as text; None where the statement does not hold it, or not what it says."""
        if self.content is None:
            return None
        try:
            data = base64.b64decode(self.content, validate=True)
        except binascii.Error:
            return None
        if self.sha256 and hashlib.sha256(data).hexdigest() != self.sha256:
            return None
        return data.decode("utf-8", "replace")


class Subject(Resource):
    """What a statement is about: named, and told apart from all else by its digest."""

    name: str
    digest: dict[str, Digest] = Field(min_length=1)


class BuildDefinition(_Form):
    """What was to be built, from what (SLSA provenance v1, BuildDefinition)."""

    build_type: str
    external_parameters: dict[str, Any]
    internal_parameters: dict[str, Any] = {}
    resolved_dependencies: tuple[Resource, ...] = ()


class Builder(_Form):
    """Whom one has to trust for the statement (SLSA provenance v1, Builder)."""

    id: str
    version: dict[str, str] = {}
    builder_dependencies: tuple[Resource, ...] = ()


class BuildMetadata(_Form):
    """Which run it was, and when (SLSA provenance v1, BuildMetadata); times as RFC 3339."""

    invocation_id: str | None = None
    started_on: str | None = None
    finished_on: str | None = None


class RunDetails(_Form):
    """How one particular run went (SLSA provenance v1, RunDetails)."""

    builder: Builder
    metadata: BuildMetadata = BuildMetadata()
    byproducts: tuple[Resource, ...] = ()


class Provenance(_Form):
    """The predicate https://slsa.dev/provenance/v1."""

    build_definition: BuildDefinition
    run_details: RunDetails
    slsa: dict[str, Any] = Field(default={}, alias="backport_slsa")
    """An extension, named as the specification asks for: the level that is met, and what is not."""


class TestResult(_Form):
    """The predicate https://in-toto.io/attestation/test-result/v0.1."""

    __test__ = False

    result: Literal["PASSED", "WARNED", "FAILED"]
    configuration: tuple[Resource, ...] = ()
    url: str | None = None
    passed_tests: tuple[str, ...] = ()
    warned_tests: tuple[str, ...] = ()
    failed_tests: tuple[str, ...] = ()
    checks: tuple[dict[str, Any], ...] = Field(default=(), alias="backport_checks")
    """An extension: every check with what was expected, what was found, and the evidence."""
    headline: tuple[str, ...] = Field(default=(), alias="backport_headline")
    """An extension: the result in a few lines for people."""
    transcript: Resource | None = Field(default=None, alias="backport_transcript")
    """An extension: what the self-test's programs said to each other."""


class _Statement(_Form):
    what: ClassVar[str]
    """The predicate in words."""
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(default=STATEMENT, alias="_type")
    subject: tuple[Subject, ...] = Field(min_length=1)

    def to_json(self) -> str:
        """The statement's text, keys in a stable order; what is empty is left out."""
        data = self.model_dump(mode="json", by_alias=True)
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


_S = TypeVar("_S", bound=_Statement)


class ProvenanceStatement(_Statement):
    """How files were made."""

    what = "SLSA provenance"
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = PROVENANCE
    predicate: Provenance


class TestStatement(_Statement):
    """What was tested of files."""

    __test__ = False

    what = "test results"
    predicate_type: Literal["https://in-toto.io/attestation/test-result/v0.1"] = TEST_RESULT
    predicate: TestResult


def read_statement(kind: type[_S], text: str, *, name: str) -> _S:
    """The statement that ``text``, a file called ``name``, holds. Raises PublishError for anything else."""
    try:
        return kind.model_validate_json(text)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PublishError(
            f"{name}: is not an in-toto statement of {kind.what}: {where}: {first['msg']}",
            hint="restore it from a copy, or publish the packages again",
        ) from None
