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
