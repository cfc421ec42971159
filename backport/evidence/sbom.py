"""The bill of materials of the packages that a run adds: CycloneDX 1.6, by the format's own library.

Packages are components with package URL, digest and licence as their headers declare it. A source package's
pedigree has Fedora's own as its ancestor and the whole change as a patch of class ``backport``; a binary
package's ancestor is its source package. Dependencies are those within the run's packages: what is needed
beyond them is the target's. To import this takes the library's time: import it where it is used.
"""

from __future__ import annotations

import base64
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import rpm as rpm_bindings
from cyclonedx.model import (
    AttachedText,
    Encoding,
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType, Diff, Patch, PatchClassification, Pedigree
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from backport import __version__
from backport.artifacts import BuiltRpms, Nevra, Rpm, TestedRpms
from backport.errors import PublishError, as_kind
from backport.evidence.provenance import PublishedFile, purl, source_purl
from backport.printable import xml_text
from backport.trust import read_header


@as_kind(PublishError)
def bill_of_materials(
    tested: TestedRpms, files: Sequence[PublishedFile], *, vendor: str, time: datetime
) -> str:
    """The CycloneDX document, JSON text, for ``files``, which are among the packages of ``tested``.

    ``vendor`` is the namespace of their package URLs.

    Raises PublishError when a header cannot be read.
    """
    packages = _packages(tested)
    headers = {file.nevra: read_header(packages[file.nevra][0].path) for file in files}
    components = {
        file.nevra: _component(*packages[file.nevra], headers[file.nevra], file=file, vendor=vendor)
        for file in files
    }
    identity = "\n".join(sorted(f"{file.sha256} {file.path}" for file in files))
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_OID, identity),
        components=components.values(),
        metadata=BomMetaData(timestamp=time),
    )
    bom.metadata.tools.components.add(
        Component(name="backport", version=__version__, type=ComponentType.APPLICATION)
    )
    needs = requirements(headers)
    for nevra, component in components.items():
        bom.register_dependency(component, [components[other] for other in needs[nevra]])
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return f"{text}\n"


def requirements(headers: Mapping[str, Any]) -> dict[str, list[str]]:
    """For each binary package the others of ``headers`` that provide what it requires, by NEVRA.

    Versions are not compared: the packages of one run are made for each other, and the gates have
    shown that they install together.
    """
    providers: dict[str, set[str]] = defaultdict(set)
    binary = {nevra: header for nevra, header in headers.items() if not header.isSource()}
    for nevra, header in binary.items():
        for name in (*header[rpm_bindings.RPMTAG_PROVIDENAME], *header[rpm_bindings.RPMTAG_FILENAMES]):
            providers[_text(name)].add(nevra)
    needs: dict[str, list[str]] = {nevra: [] for nevra in headers}
    for nevra, header in binary.items():
        names = {_text(name) for name in header[rpm_bindings.RPMTAG_REQUIRENAME]}
        found = {provider for name in names for provider in providers.get(name, ())}
        needs[nevra] = sorted(found - {nevra})
    return needs


def _packages(tested: TestedRpms) -> dict[str, tuple[Rpm, BuiltRpms]]:
    """Every signed package by its NEVRA, with the build that it is a result of."""
    builds = {str(rpm.nevra): built for built in tested.signed.built for rpm in (built.srpm, *built.rpms)}
    return {
        str(rpm.nevra): (rpm, builds[str(rpm.nevra)]) for rpm in (*tested.signed.srpms, *tested.signed.rpms)
    }


def _component(rpm: Rpm, built: BuiltRpms, header: Any, *, file: PublishedFile, vendor: str) -> Component:
    is_source = rpm.nevra.arch == "src"
    declared = _text(header[rpm_bindings.RPMTAG_LICENSE])
    return Component(
        name=rpm.nevra.name,
        version=rpm.nevra.evr,
        type=ComponentType.FILE if is_source else ComponentType.LIBRARY,
        bom_ref=file.path,
        purl=PackageURL.from_string(purl(rpm.nevra, vendor)),
        description=_text(header[rpm_bindings.RPMTAG_SUMMARY]),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        # The tag's notation is that of Fedora at the time, which is not SPDX's.
        licenses=[DisjunctiveLicense(name=declared)] if declared else [],
        pedigree=_source_pedigree(built)
        if is_source
        else Pedigree(ancestors=[_plain(built.srpm.nevra, purl(built.srpm.nevra, vendor))]),
        properties=[Property(name="backport:file", value=file.path)],
    )


def _source_pedigree(built: BuiltRpms) -> Pedigree:
    source = built.patched.source
    where = ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(source.url))
    content = base64.b64encode(built.patched.diff.encode()).decode("ascii")
    text = AttachedText(content=content, content_type="text/x-diff", encoding=Encoding.BASE_64)
    patch = Patch(type=PatchClassification.BACKPORT, diff=Diff(text=text))
    return Pedigree(
        ancestors=[
            _plain(
                source.rpm.nevra,
                source_purl(source.rpm.nevra),
                sha256=source.rpm.sha256,
                references=[where],
            )
        ],
        patches=[patch] if built.patched.diff else [],
        notes=f"signed by {source.signing_key}; the change is to the spec and its sources",
    )


def _plain(nevra: Nevra, url: str, *, sha256: str = "", references: Iterable[Any] = ()) -> Component:
    """A package that is only referred to."""
    return Component(
        name=nevra.name,
        version=nevra.evr,
        type=ComponentType.FILE,
        purl=PackageURL.from_string(url),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        external_references=references,
    )


def _text(value: Any) -> str:
    """A header's string. What is not UTF-8 comes as surrogates from the bindings; that and control
    characters are no text."""
    data = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "surrogateescape")
    return xml_text(data.decode("utf-8", "replace"))
