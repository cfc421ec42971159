"""Sixty servers, and every verdict on each of them: no false pass, no false alarm."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backport.artifacts import Verdict
from backport.probe import Report, Subject, examine
from backport.probe.addresses import Place
from tests.e2e.tls_farm import HOST, Farm, Kind, serving
from tests.e2e.tls_kinds import KINDS
from tests.lab.weak_openssl import ensure


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    program = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    return Farm(program=program, folder=tmp_path_factory.mktemp("farm"))


def probe(farm: Farm, kind: Kind, trust: Path) -> Report:
    with serving(farm, kind) as port:
        place = Place("127.0.0.1", port)
        return examine(
            Subject(dial=place, host=HOST, servername=HOST, helo="client.example", trust=trust, timeout=120)
        )


def short(check_id: str) -> str:
    return check_id.partition(".")[2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_verdict_is_right(farm: Farm, kind: Kind) -> None:
    report = probe(farm, kind, farm.trust)
    failed = {short(check.id) for check in report.checks if check.stops}
    warned = {short(check.id) for check in report.checks if check.verdict is Verdict.WARN}
    assert (failed, warned) == kind.expected, {check.id: check.found for check in report.checks}
    assert report.connections <= 8
    errors = {check.id: check.found for check in report.checks if check.verdict is Verdict.ERROR}
    assert errors == {}
