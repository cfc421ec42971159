"""Debian's nginx as a web server of one folder: unpacked, not installed, so that no service starts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.build import cache_folder

NOBODY = 65534
_CONFIGURATION = """\
daemon off;
pid {folder}/nginx.pid;
worker_processes 2;
events {{ worker_connections 64; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        autoindex on;
        location ~ /repodata/repomd\\.xml {{ add_header Cache-Control "no-cache"; }}
        location ~ /\\. {{ deny all; }}
    }}
}}
"""


def program() -> Path:
    """The program, unpacked from its package once. Raises CalledProcessError."""
    folder = cache_folder() / "nginx"
    found = folder / "usr/sbin/nginx"
    if not found.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            Path(scratch).chmod(0o755)
            for command in (["apt-get", "update", "-qq"], ["apt-get", "download", "-qq", "nginx"]):
                subprocess.run(command, cwd=scratch, check=True, capture_output=True, timeout=300)
            (package,) = Path(scratch).glob("nginx_*.deb")
            subprocess.run(["dpkg-deb", "--extract", package, folder], check=True, timeout=60)
    return found


@contextlib.contextmanager
def serving(root: Path) -> Iterator[str]:
    """The URL of a folder that nginx serves as user nobody, who must be able to read it."""
    with (
        tempfile.TemporaryDirectory(prefix="nginx-") as name,
        socket.create_server(("127.0.0.1", 0)) as probe,
    ):
        folder, port = Path(name), probe.getsockname()[1]
        probe.close()
        os.chown(folder, NOBODY, NOBODY)
        configuration = folder / "nginx.conf"
        configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, root=root))
        copy = folder / "nginx"
        copy.write_bytes(program().read_bytes())
        copy.chmod(0o755)
        server = subprocess.Popen(
            [copy, "-e", folder / "error.log", "-c", configuration, "-p", folder],
            user=NOBODY, group=NOBODY, extra_groups=[], stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            _wait_for(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.communicate(timeout=30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
