"""The servers of the farm, and what is wrong with each: the truth that verdicts are held against."""

from __future__ import annotations

from tests.e2e.tls_farm import Kind

_DHE_GCM = "DHE+AESGCM:@SECLEVEL=0"
_OLD_STRONG = "ECDHE+AES:@SECLEVEL=0"
_BOTH = ("tls1_2", "tls1_3")


def _mixed(version: str, label: str, weak: str, how: str) -> Kind:
    """A good server of TLS 1.2 and 1.3 that has an old version too, with one weak suite alone."""
    name = {"tls1": "tlsv1", "tls1_1": "tlsv1.1", "ssl3": "sslv3"}[version]
    return Kind(
        name=f"{name} with {label} alone, beside the good ones",
        versions=(version, *_BOTH),
        ciphers=f"ECDHE+AESGCM:{weak}:@SECLEVEL=0",
        wrong=f"refuses-{name} weak-suites{how}",
    )


def _only(version: str, label: str, weak: str, how: str) -> Kind:
    """A server that has nothing but an old version and a weak suite."""
    name = {"tls1": "tlsv1", "tls1_1": "tlsv1.1", "ssl3": "sslv3"}[version]
    nameless = " readable" if label == "anonymous" else ""
    return Kind(
        name=f"{name} with {label} and nothing else",
        versions=(version,),
        ciphers=f"{weak}:@SECLEVEL=0",
        wrong=f"handshake refuses-{name} weak-suites{how} protocol? cipher? serves-tlsv1.2?{nameless}",
    )


_WEAK = (
    ("RC4", "RC4-SHA", ""),
    ("3DES", "DES-CBC3-SHA", "?"),
    ("NULL", "NULL-SHA", ""),
    ("anonymous", "ADH-AES128-SHA", "?"),
)

_VERSIONS = (
    Kind(name="good"),
    Kind(name="1.2 alone", versions=("tls1_2",), wrong="protocol?"),
    Kind(name="1.3 alone", versions=("tls1_3",), wrong="serves-tlsv1.2?"),
    Kind(
        name="1.0 alone",
        versions=("tls1",),
        ciphers=_OLD_STRONG,
        wrong="handshake refuses-tlsv1 protocol? cipher? serves-tlsv1.2?",
    ),
    Kind(
        name="1.1 alone",
        versions=("tls1_1",),
        ciphers=_OLD_STRONG,
        wrong="handshake refuses-tlsv1.1 protocol? cipher? serves-tlsv1.2?",
    ),
    Kind(
        name="SSLv3 alone",
        versions=("ssl3",),
        ciphers="AES:!aNULL:@SECLEVEL=0",
        wrong="handshake refuses-sslv3 protocol? cipher? serves-tlsv1.2?",
    ),
    Kind(
        name="1.0 and 1.2",
        versions=("tls1", "tls1_2"),
        ciphers="ECDHE+AESGCM:ECDHE+AES:@SECLEVEL=0",
        wrong="refuses-tlsv1 protocol?",
    ),
    Kind(
        name="1.0 and 1.3",
        versions=("tls1", "tls1_3"),
        ciphers=_OLD_STRONG,
        wrong="refuses-tlsv1 serves-tlsv1.2?",
    ),
    Kind(name="1.1 to 1.3", versions=("tls1_1", *_BOTH), ciphers=_OLD_STRONG, wrong="refuses-tlsv1.1"),
    Kind(
        name="1.0 to 1.3",
        versions=("tls1", "tls1_1", *_BOTH),
        ciphers=_OLD_STRONG,
        wrong="refuses-tlsv1 refuses-tlsv1.1",
    ),
    Kind(
        name="SSLv3, 1.2 and 1.3",
        versions=("ssl3", *_BOTH),
        ciphers="ECDHE+AESGCM:AES128-SHA:@SECLEVEL=0",
        wrong="refuses-sslv3",
    ),
    Kind(
        name="SSLv3 to 1.2",
        versions=("ssl3", "tls1", "tls1_1", "tls1_2"),
        ciphers="ECDHE+AESGCM:AES128-SHA:@SECLEVEL=0",
        wrong="refuses-sslv3 refuses-tlsv1 refuses-tlsv1.1 protocol?",
    ),
)

_SUITES = (
    Kind(name="AES with CBC too", ciphers=_OLD_STRONG),
    Kind(name="RC4 too", ciphers="ECDHE+AESGCM:RC4-SHA:@SECLEVEL=0", wrong="weak-suites"),
    Kind(name="3DES too", ciphers="ECDHE+AESGCM:DES-CBC3-SHA:@SECLEVEL=0", wrong="weak-suites?"),
    Kind(name="NULL too", ciphers="ECDHE+AESGCM:NULL-SHA256:@SECLEVEL=0", wrong="weak-suites"),
    Kind(
        name="anonymous too", ciphers="ECDHE+AESGCM:ADH-AES128-GCM-SHA256:@SECLEVEL=0", wrong="weak-suites?"
    ),
    Kind(
        name="anonymous on a curve too",
        ciphers="ECDHE+AESGCM:AECDH-AES128-SHA:@SECLEVEL=0",
        wrong="weak-suites?",
    ),
    Kind(
        name="RC4 preferred",
        ciphers="RC4-SHA:ECDHE+AESGCM:@SECLEVEL=0",
        options=("-serverpref",),
        wrong="weak-suites",
    ),
    Kind(name="DHE of 2048 bits", ciphers=_DHE_GCM, options=("-dhparam", "{folder}/dh2048.pem")),
    Kind(
        name="DHE of 1024 bits too",
        ciphers="ECDHE+AESGCM:DHE+AESGCM:@SECLEVEL=0",
        options=("-dhparam", "{folder}/dh1024.pem"),
        wrong="dhe-group",
    ),
    Kind(
        name="DHE of 1024 bits alone",
        versions=("tls1_2",),
        ciphers=_DHE_GCM,
        options=("-dhparam", "{folder}/dh1024.pem"),
        wrong="handshake dhe-group protocol?",
    ),
    Kind(
        name="key transport by RSA",
        versions=("tls1_2",),
        ciphers="kRSA+AES:@SECLEVEL=0",
        wrong="protocol? cipher?",
    ),
    Kind(name="CHACHA20", ciphers="ECDHE+CHACHA20:@SECLEVEL=0"),
    Kind(
        name="CAMELLIA",
        versions=("tls1_2",),
        ciphers="kRSA+CAMELLIA:@SECLEVEL=0",
        wrong="handshake protocol? cipher?",
    ),
    Kind(name="server's order", ciphers=_OLD_STRONG, options=("-serverpref",)),
    Kind(name="P-256 alone", options=("-groups", "P-256")),
    Kind(name="P-521 alone", options=("-groups", "P-521")),
    Kind(name="X25519 alone", options=("-groups", "X25519")),
)

_CERTIFICATES = (
    Kind(name="expired", certificate="expired", wrong="validity"),
    Kind(name="not yet valid", certificate="future", wrong="validity"),
    Kind(name="ten days left of ninety", certificate="soon", wrong="validity?"),
    Kind(name="for another host", certificate="other host", wrong="hostname"),
    Kind(name="a name with a final dot", certificate="final dot", wrong="hostname"),
    Kind(name="wildcard", certificate="wildcard"),
    Kind(name="RSA of 1024 bits", certificate="short key", wrong="key"),
    Kind(name="signed with SHA-1", certificate="sha1", wrong="signature"),
    Kind(name="self-signed", certificate="self-signed", wrong="chain"),
    Kind(name="no intermediate", certificate="leaf alone", wrong="intermediates"),
    Kind(name="with the root", certificate="with root"),
    Kind(name="in disorder", certificate="disordered", wrong="order"),
    Kind(name="with a stranger", certificate="stranger in it", wrong="order?"),
    Kind(name="ECDSA", certificate="ecdsa"),
    Kind(name="RSA and ECDSA", certificate="two"),
    Kind(name="1.3 alone, two", versions=("tls1_3",), certificate="two", wrong="serves-tlsv1.2?"),
    Kind(
        name="1.3 alone, RSA for another host",
        versions=("tls1_3",),
        certificate="two, rsa for another host",
        wrong="second serves-tlsv1.2?",
    ),
    Kind(name="RSA for another host beside ECDSA", certificate="two, rsa for another host", wrong="second"),
    Kind(
        name="ECDSA for another host beside RSA", certificate="two, ecdsa for another host", wrong="hostname"
    ),
    Kind(
        name="an old server's expired certificate",
        certificate="expired",
        versions=("tls1",),
        ciphers="RC4-SHA:@SECLEVEL=0",
        wrong="handshake refuses-tlsv1 weak-suites validity protocol? cipher? serves-tlsv1.2?",
    ),
)

KINDS = (
    *_VERSIONS,
    *_SUITES,
    *_CERTIFICATES,
    *(_mixed(version, *weak) for version in ("tls1", "tls1_1") for weak in _WEAK),
    *(_only(version, *weak) for version in ("tls1", "tls1_1") for weak in _WEAK),
)
