"""What the probe's figures need: a correct server, its examination, and sslyze's scan of the same."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from backport.probe.addresses import Place
from backport.probe.smtp import converse
from backport.probe.tls import Offer
from backport.probe.transcript import Transcript
from backport.selftest.authority import Authority
from tests.e2e.gnutls_exim import HOST, State, running
from tests.lab.gnutls_exim import ensure

HANDSHAKES = 50


@dataclass(frozen=True, kw_only=True)
class Peers:
    """A running server, and the other tool that looks at it."""

    place: Place
    trust: Path
    sslyze: Path

    def handshakes(self) -> float:
        """Whole conversations with STARTTLS a second, one after the other."""
        started = time.monotonic()
        for _ in range(HANDSHAKES):
            converse(self.place, Offer(servername=HOST), helo="c.example", transcript=Transcript())
        return HANDSHAKES / (time.monotonic() - started)

    def examination(self) -> tuple[float, float]:
        """Seconds of one whole `backport probe` as an admin runs it, and of its processor time."""
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "backport", "probe", f"127.0.0.1:{self.place.port}"]
        trusting = ["--servername", HOST, "--ca", str(self.trust)]
        subprocess.run([*command, *trusting], check=True, capture_output=True, timeout=300)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.monotonic() - started, processor

    def scan(self) -> float:
        """Seconds of one scan by sslyze."""
        started = time.monotonic()
        command = [str(self.sslyze), "--starttls=smtp", f"127.0.0.1:{self.place.port}"]
        # Its exit code says whether the server is as Mozilla wants it, which is not what is measured.
        subprocess.run(command, check=False, capture_output=True, timeout=300)
        return time.monotonic() - started


@contextlib.contextmanager
def peers(folder: Path) -> Iterator[Peers]:
    """The server and a sslyze in an environment of its own, below ``folder``."""
    venv = folder / "sslyze"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    subprocess.run([venv / "bin/pip", "install", "--quiet", "sslyze"], check=True, stdout=subprocess.DEVNULL)
    authority = Authority.create()
    leaf, trust = authority.issue([HOST]), folder / "root.pem"
    trust.write_bytes(authority.root.pem)
    tree = ensure(lambda line: print(line, file=sys.stderr, flush=True))
    state = State(chain=authority.chain(leaf), key=leaf.key_pem)
    with running(tree, folder / "exim", state) as place:
        yield Peers(place=place, trust=trust, sslyze=venv / "bin/sslyze")
