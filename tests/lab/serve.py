"""The lab's servers on loopback, and the site file that points backport at them."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from backport.site import Site, known_recipes
from tests.lab.koji import KojiServer
from tests.lab.layout import KEY_NAMES, NEW_DIST, Lab


@dataclass(frozen=True, kw_only=True)
class Served:
    """A lab that is being served: its URLs, and a site file for them in a folder of the caller's."""

    lab: Lab
    folder: Path
    site: Path
    koji: KojiServer
    repositories_url: str

    @property
    def hub_url(self) -> str:
        """The URL of Koji's XML-RPC interface."""
        return self.koji.hub_url

    @property
    def files_url(self) -> str:
        """The URL below which Koji's packages lie."""
        return self.koji.files_url


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
        """Nothing: the terminal belongs to the caller."""


@contextlib.contextmanager
def served(lab: Lab, folder: Path, **overrides: Any) -> Iterator[Served]:
    """Serve the repositories and Koji while the block lasts; ``folder`` gets the site file.

    ``overrides`` replace or add tables of the site file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handler = functools.partial(_QuietHandler, directory=str(lab.repositories))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, KojiServer(lab.koji) as koji:
        thread = threading.Thread(target=server.serve_forever, name="lab repositories")
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            site = write_site(
                folder, lab=lab, hub_url=koji.hub_url, files_url=koji.files_url, repos_url=url, **overrides
            )
            yield Served(
                lab=lab,
                folder=folder,
                site=site,
                koji=koji,
                repositories_url=url,
            )
        finally:
            server.shutdown()
            thread.join()


def write_site(
    folder: Path, *, lab: Lab, hub_url: str, files_url: str, repos_url: str, **overrides: Any
) -> Path:
    """Write ``folder/backport.toml``: the lab's servers, builds and keys, and folders beside it."""
    builds = {nvr.rsplit("-", 2)[0]: nvr for nvr in lab.info["builds"] if nvr.endswith(NEW_DIST)}
    packages = {name for recipe in known_recipes(Site()) for name in recipe.packages}
    tables: dict[str, Any] = {
        "builder": "auto",
        "koji": {"hub": hub_url, "files": files_url},
        "paths": {"cache": str(folder / "cache"), "repository": str(folder / "repository")},
        "signing": {"gnupghome": str(folder / "gnupg")},
        "pins": {name: nvr for name, nvr in builds.items() if name in packages},
        "mirrors": {"f28": {name: f"{repos_url}/{name}" for name in ("fedora", "updates")}},
        "keys": {
            name: {"fingerprint": lab.fingerprint(name), "file": str(lab.key_file(name))}
            for name in KEY_NAMES
        },
    }
    site = folder / "backport.toml"
    site.write_text("\n".join(_toml({**tables, **overrides})) + "\n")
    return site


def _toml(table: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[str]:
    """A table of strings, numbers, lists and tables as TOML; JSON's strings and lists are TOML's too."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if path and (plain or not table):
        yield f"\n[{'.'.join(path)}]"
    for key, value in plain.items():
        yield f"{key} = {json.dumps(value)}"
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _toml(value, (*path, key))
