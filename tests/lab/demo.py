"""The main job, shown in the lab: `backport build openssl --target f28` by its own command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from backport.runs.history import last_run
from backport.runs.report import RunReport
from backport.site import load_site
from tests.lab.build import cache_folder, ensure
from tests.lab.serve import served


def main() -> int:
    """Build the lab where needed, run the command in it, and show what came of it."""
    lab = ensure(lambda line: print(line, flush=True))
    with served(lab, cache_folder() / "demo") as services:
        if not (services.folder / "gnupg").is_dir():
            _backport(services.site, "keys", "init")
        print("$ backport build openssl --target f28", flush=True)
        started = time.monotonic()
        code = _backport(services.site, "build", "openssl", "--target", "f28")
        seconds = time.monotonic() - started
        runs = load_site(services.site).paths.cache / "runs"
    report = last_run(runs, "openssl", "f28")
    if code or report is None:
        return code or 1
    _show(report, seconds, load_site(services.site).paths.repository / "f28")
    return 0


def _backport(site: Path, *arguments: str) -> int:
    command = [sys.executable, "-m", "backport", *arguments, "--config", str(site)]
    return subprocess.run(command, check=False).returncode


def _show(report: RunReport, seconds: float, repository: Path) -> None:
    print()
    if report.outcome == "unchanged":
        print(f"nothing to do: published already; the command took {seconds:.1f} s")
    for line in report.headline:
        print(line)
    print(f"repository: {repository}")
    repo_file = (repository / "backport.repo").as_uri()
    print(f"to use it:  dnf config-manager --add-repo {repo_file} && dnf update openssl")


if __name__ == "__main__":
    sys.exit(main())
