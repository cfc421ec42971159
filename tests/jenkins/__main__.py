"""``python -m tests.jenkins [FILE…]``: say what is wrong with Jenkinsfiles; exit code 1 if anything is."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.jenkins.declarative import lint


def main(names: list[str]) -> int:
    """Lint the named files, without any ./Jenkinsfile."""
    wrong = 0
    for name in names or ["Jenkinsfile"]:
        for finding in lint(Path(name).read_text()):
            print(f"{name}:{finding.line}: {finding.message}")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
