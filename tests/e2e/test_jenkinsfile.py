"""The Jenkinsfile's scripts, read by the shell that runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jenkins.groovy import parse

JENKINSFILE = Path(__file__).parents[2] / "Jenkinsfile"
SCRIPTS = [
    script
    for call in parse(JENKINSFILE.read_text())[0].walk()
    if call.name == "sh" and (script := call.first_text("script"))
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.split()[0])
def test_every_script_is_one(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=60)


REPORTS = [script for script in SCRIPTS if "jq " in script]


@pytest.mark.parametrize("script", REPORTS, ids=["build", "publish"])
@pytest.mark.parametrize("written", [None, "", '{"folder": "run"}'], ids=["none", "empty", "report"])
def test_a_report_is_kept_where_there_is_one(tmp_path: Path, script: str, written: str | None) -> None:
    """A stage that failed before its run began has a cause of its own: no second one is added."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "junit.xml").write_text("<testsuites/>")
    # What jq answers for the one document that the test writes.
    (tmp_path / "jq").write_text('#!/bin/sh\ngrep -q run "$3" && echo run\n')
    (tmp_path / "jq").chmod(0o755)
    stage = script.partition("reports/")[2].partition(";")[0]
    if written is not None:
        (tmp_path / f"{stage}.json").write_text(written)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert (tmp_path / "reports" / stage / "junit.xml").exists() == bool(written)


def test_the_linter_speaks_by_its_exit_code(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.jenkins"]
    root = JENKINSFILE.parent
    assert subprocess.run([*command, "Jenkinsfile"], cwd=root, check=False, timeout=60).returncode == 0
    (tmp_path / "Jenkinsfile").write_text("pipeline { }\n")
    done = subprocess.run(
        [*command, str(tmp_path / "Jenkinsfile")],
        cwd=root,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path}/Jenkinsfile:1: ")
