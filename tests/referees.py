"""The probe's verdicts beside those of sslyze and testssl.sh, over the farm: ``python -m tests.referees``.

sslyze comes from PyPI into an environment of its own, since it binds cryptography to an old version.
``BACKPORT_TESTSSL`` names a testssl.sh; without it, that column stays empty. Each row says where they agree,
and else who is right by the farm's own truth: whoever differs from it is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backport.probe import Report, Subject, examine
from backport.probe.addresses import Place
from tests.e2e.tls_farm import HOST, Farm, Kind, serving
from tests.e2e.tls_kinds import KINDS
from tests.lab.build import cache_folder
from tests.lab.weak_openssl import ensure

TOPICS = ("sslv2", "sslv3", "tlsv1", "tlsv1.1", "weak", "certificate")
"""What all of them judge: whether an old version is taken, a weak suite, and whether a client is served whose
trust, names and clock are right."""
_CERTIFICATE = {"validity", "hostname", "intermediates", "chain", "readable"}
_WEAK_WORDS = ("NULL", "EXPORT", "RC4", "3DES", "_DES", "anon", "IDEA")
_ALIKE = "agree"

Findings = Mapping[str, bool | None]
"""What is wrong, by topic; None where it was not examined."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One topic of one server: the truth, and who said what."""

    kind: str
    topic: str
    truth: bool
    ours: bool | None
    theirs: Mapping[str, bool | None]

    def outcome(self, referee: str) -> str:
        """How our verdict stands beside a referee's."""
        other = self.theirs.get(referee)
        if other is None or self.ours is None:
            return "" if other is None else "not examined"
        if other == self.ours:
            return _ALIKE
        if self.ours == self.truth:
            return f"{'stricter' if self.ours else 'better'}: {referee} says {'wrong' if other else 'right'}"
        return f"WRONG: {referee} says {'wrong' if other else 'right'}"


def truth(kind: Kind) -> dict[str, bool]:
    """What is wrong with a server, by topic."""
    failing = {one.rstrip("?") for one in kind.wrong.split()}
    found = {topic: f"refuses-{topic}" in failing for topic in TOPICS[:4]}
    return {**found, "weak": "weak-suites" in failing, "certificate": bool(kind.expected[0] & _CERTIFICATE)}


def ours(report: Report) -> Findings:
    """The probe's own verdicts by topic."""
    verdicts = {check.id.partition(".")[2]: check.verdict.value for check in report.checks}
    bad = {"fail": True, "warn": True, "pass": False}
    found = {topic: bad.get(verdicts[f"refuses-{topic}"]) for topic in TOPICS[:4]}
    parts = [bad.get(verdicts[name]) for name in _CERTIFICATE]
    whole = any(verdicts[name] == "fail" for name in _CERTIFICATE)
    certificate = whole if any(part is not None for part in parts) else None
    return {**found, "weak": bad.get(verdicts["weak-suites"]), "certificate": certificate}


def sslyze(program: Path, farm: Farm, port: int) -> Findings:
    """What sslyze says."""
    command: list[str | Path] = [
        program, "--starttls=smtp", f"--certinfo_ca_file={farm.trust}", "--json_out=-", "--certinfo",
        "--sslv2",
        "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", f"{HOST}:{port}{{127.0.0.1}}",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    if "{" not in done.stdout:
        return {}
    scan = json.loads(done.stdout[done.stdout.index("{") :])["server_scan_results"][0]["scan_result"]
    if not scan:
        return {}
    results = {
        name: part["result"] for name, part in scan.items() if isinstance(part, dict) and "result" in part
    }
    parts = {"sslv2": "ssl_2_0", "sslv3": "ssl_3_0", "tlsv1": "tls_1_0", "tlsv1.1": "tls_1_1"}
    found: dict[str, bool | None] = {
        topic: _taken(results.get(f"{name}_cipher_suites")) for topic, name in parts.items()
    }
    versions = [results.get(f"{name}_cipher_suites") for name in (*parts.values(), "tls_1_2")]
    suites = [suite for version in versions if version for suite in version["accepted_cipher_suites"]]
    names = [suite["cipher_suite"]["name"] for suite in suites]
    found["weak"] = any(word in name for name in names for word in _WEAK_WORDS) if any(versions) else None
    for deployment in (results.get("certificate_info") or {}).get("certificate_deployments", [])[:1]:
        paths = deployment["path_validation_results"]
        own = [path for path in paths if path["trust_store"]["name"] == "Supplied CA file"]
        found["certificate"] = not own[0]["was_validation_successful"] if own else None
    return found


def _taken(result: Mapping[str, Any] | None) -> bool | None:
    return bool(result["is_tls_version_supported"]) if result else None


def testssl(program: Path, folder: Path, port: int) -> Findings:
    """What testssl.sh says of versions and suites; of trust it knows the great stores alone."""
    report = folder / f"testssl-{port}.json"
    command: list[str | Path] = [
        program, "-t", "smtp", "--ip", "127.0.0.1", "-p", "-s", "--jsonfile", report, "--warnings", "off",
        "--color", "0", f"{HOST}:{port}",
    ]  # fmt: skip
    subprocess.run(command, check=False, capture_output=True, timeout=600, stdin=subprocess.DEVNULL)
    if not report.exists():
        return {}
    said = {one["id"]: str(one["finding"]) for one in json.loads(report.read_text())}
    versions = {"sslv2": "SSLv2", "sslv3": "SSLv3", "tlsv1": "TLS1", "tlsv1.1": "TLS1_1"}
    found: dict[str, bool | None] = {topic: _offered(said.get(name)) for topic, name in versions.items()}
    lists = [
        _offered(said.get(f"cipherlist_{name}")) for name in ("NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA")
    ]
    found["weak"] = any(lists) if any(one is not None for one in lists) else None
    return found


def _offered(finding: str | None) -> bool | None:
    return None if finding is None else finding.startswith("offered")


def rows(farm: Farm, kind: Kind, program: Path, other: Path | None) -> Iterator[Row]:
    """All verdicts on one server."""
    with serving(farm, kind) as port:
        place = Place("127.0.0.1", port)
        subject = Subject(
            dial=place, host=HOST, servername=HOST, helo="client.example", trust=farm.trust, timeout=120
        )
        own, right = ours(examine(subject)), truth(kind)
        theirs = {"sslyze": sslyze(program, farm, port)}
        if other:
            theirs["testssl.sh"] = testssl(other, farm.folder, port)
    for topic in TOPICS:
        said = {name: findings.get(topic) for name, findings in theirs.items()}
        yield Row(kind=kind.name, topic=topic, truth=right[topic], ours=own[topic], theirs=said)


def sslyze_program() -> Path:
    """sslyze in an environment of its own, installed once."""
    folder = cache_folder() / "sslyze"
    program = folder / "bin/sslyze"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "sslyze"], check=True, timeout=600)
    return program


def main() -> int:
    """Print the table; 1 where one of our verdicts is wrong."""
    named = os.environ.get("BACKPORT_TESTSSL")
    program, other = sslyze_program(), Path(named) if named else None
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=2) as pool:
        farm = Farm(program=ensure(print), folder=Path(folder))
        found = [
            row
            for part in pool.map(lambda kind: list(rows(farm, kind, program, other)), KINDS)
            for row in part
        ]
    referees = list(found[0].theirs)
    for row in found:
        outcomes = [row.outcome(name) for name in referees]
        if any(outcome not in {"", _ALIKE} for outcome in outcomes) or row.ours not in {None, row.truth}:
            print(f"{row.kind:<55} {row.topic:<12} {' | '.join(outcomes)}")
    for name in referees:
        words = [row.outcome(name).partition(":")[0] or "no verdict" for row in found]
        print(name, {word: words.count(word) for word in sorted(set(words))})
    return int(any(row.ours not in {None, row.truth} for row in found))


if __name__ == "__main__":
    sys.exit(main())
