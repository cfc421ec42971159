"""A DNS of its own on loopback: zones that are signed here, Knot that serves them, Unbound that validates.

``example.`` is signed; ``plain.`` is not; the signatures of ``bogus.`` do not fit its DS record.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from backport.probe.resolver import Resolver

NAMESERVER = "127.0.53.53"
_SOA = "@ 60 IN SOA ns.example. admin.example. 1 3600 600 86400 60\n@ 60 IN NS ns.example.\n"
_LIFETIME = 86400


class Key:
    """A zone's key."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        self.public = dns.dnssec.make_dnskey(
            self.private.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257
        )

    def ds(self, zone: str) -> str:
        return f"{zone} 60 IN DS {dns.dnssec.make_ds(zone, self.public, 'SHA256')}\n"


def signed(zone: dns.zone.Zone, key: Key) -> None:
    """Sign a zone's records, and with NSEC that there are no others (RFC 4035 section 2)."""
    assert zone.origin is not None
    zone.replace_rdataset(zone.origin, dns.rdataset.from_rdata(60, key.public))
    names = sorted(zone.nodes)
    for name, following in zip(names, [*names[1:], names[0]], strict=True):
        delegated = name != zone.origin and zone.get_rdataset(name, "NS") is not None
        kinds = {dns.rdatatype.to_text(one.rdtype) for one in zone.nodes[name]} | {"NSEC", "RRSIG"}
        nsec = dns.rdataset.from_text("IN", "NSEC", 60, f"{following} {' '.join(sorted(kinds))}")
        zone.replace_rdataset(name, nsec)
        for one in list(zone.nodes[name]):
            if not delegated or one.rdtype in {dns.rdatatype.DS, dns.rdatatype.NSEC}:
                whole = dns.rrset.from_rdata_list(name, 60, list(one))
                made = dns.dnssec.sign(
                    whole, key.private, zone.origin, key.public, inception=time.time() - 3600,
                    lifetime=_LIFETIME,
                )  # fmt: skip
                zone.replace_rdataset(name, dns.rdataset.from_rdata(60, made))


def read_zone(origin: str, text: str) -> dns.zone.Zone:
    return dns.zone.from_text(_SOA + text, origin=origin, relativize=False)


@contextlib.contextmanager
def resolving(folder: Path, zones: Mapping[str, str], *, altered: Mapping[str, str]) -> Iterator[Resolver]:
    """A validating resolver for the zones ``example.``, ``plain.`` and ``bogus.``, by their records.

    ``altered`` has records that take the place of those of a name and type after they are signed.
    """
    keys = {name: Key() for name in (".", "example.", "bogus.")}
    root = "example. 60 IN NS ns.example.\nplain. 60 IN NS ns.example.\nbogus. 60 IN NS ns.example.\n"
    root += f"ns.example. 60 IN A {NAMESERVER}\n" + keys["example."].ds("example.") + Key().ds("bogus.")
    made = {name: read_zone(name, text) for name, text in zones.items()} | {".": read_zone(".", root)}
    for name, key in keys.items():
        signed(made[name], key)
    for name, line in altered.items():
        kind, _, data = line.partition(" ")
        changed = dns.rdataset.from_text("IN", kind, 60, data)
        made["example."].replace_rdataset(dns.name.from_text(name), changed)
    for name, zone in made.items():
        zone.to_file(str(folder / f"{name}zone"), relativize=False)
    (folder / "anchor").write_text(f". 60 IN DNSKEY {keys['.'].public}\n")
    authoritative, port = free_port(), free_port()
    (folder / "knot.conf").write_text(_knot(folder, authoritative, made))
    (folder / "unbound.conf").write_text(_unbound(folder, authoritative, port, made))
    with (
        running("knotd", "-c", folder / "knot.conf", log=folder / "knot.log"),
        running("unbound", "-d", "-c", folder / "unbound.conf", log=folder / "unbound.log"),
    ):
        _await(port, folder)
        yield Resolver("127.0.0.1", port)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def running(*command: str | Path, log: Path) -> Iterator[None]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            process.terminate()


def _await(port: int, folder: Path) -> None:
    query = dns.message.make_query(".", "SOA")
    query.flags |= dns.flags.AD
    for _ in range(100):
        with contextlib.suppress(Exception):
            answer = dns.query.udp(query, "127.0.0.1", timeout=1, port=port)
            if answer.flags & dns.flags.AD:
                return
        time.sleep(0.1)
    raise AssertionError((folder / "unbound.log").read_text() + (folder / "knot.log").read_text())


def _knot(folder: Path, port: int, zones: Mapping[str, object]) -> str:
    served = "".join(f"  - domain: {name}\n    file: {folder}/{name}zone\n" for name in zones)
    return (
        f"server:\n    rundir: {folder}\n    listen: 127.0.0.1@{port}\n"
        f"database:\n    storage: {folder}\nlog:\n  - target: stderr\n    any: warning\nzone:\n{served}"
    )


def _unbound(folder: Path, authoritative: int, port: int, zones: Mapping[str, object]) -> str:
    stubs = "".join(
        f'stub-zone:\n  name: "{name}"\n  stub-addr: 127.0.0.1@{authoritative}\n' for name in zones
    )
    return (
        f'server:\n  interface: 127.0.0.1@{port}\n  chroot: ""\n  username: ""\n  directory: "{folder}"\n'
        f'  pidfile: ""\n  use-syslog: no\n  do-daemonize: no\n  do-not-query-localhost: no\n  do-ip6: no\n'
        f'  trust-anchor-file: "{folder}/anchor"\n  num-threads: 1\n'
        f"remote-control:\n  control-enable: no\n{stubs}"
    )
