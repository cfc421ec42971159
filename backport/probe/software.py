"""Which mail server it is, by what it says of itself, and advice in its own words."""

from __future__ import annotations

import re
from enum import Enum

from backport.probe.smtp import Contact


class Software(Enum):
    """A mail server's name as its greeting has it."""

    EXIM = "Exim"
    POSTFIX = "Postfix"
    OTHER = "the mail server"


def software_of(contact: Contact) -> Software:
    """The server by its banner; most others say nothing, and Exim's is told by default."""
    banner = str(contact.banner or "")
    found = (
        one
        for one in (Software.EXIM, Software.POSTFIX)
        if re.search(rf"\b{one.value}\b", banner, re.IGNORECASE)
    )
    return next(found, Software.OTHER if contact.banner else Software.EXIM)


# What is written for Exim, then Postfix's words for it, then those for any other server; the first match of
# each row counts, so that longer texts come before parts of them.
_WORDS = (
    (
        "(host_lookup, rfc1413_query_timeout), or a delay in an ACL,",
        "or postscreen_greet_wait",
        "or a delay that is meant",
    ),
    (
        "Set tls_advertise_hosts = * and tls_certificate in Exim's configuration",
        "Set smtpd_tls_security_level = may and smtpd_tls_chain_files",
        "Switch STARTTLS on, with a certificate",
    ),
    (
        "usually tls_certificate or tls_privatekey is missing or not readable for Exim",
        "usually the file of smtpd_tls_chain_files is missing",
        "usually its certificate or key cannot be read",
    ),
    ("acl_smtp_helo refuses", "smtpd_helo_restrictions refuse", "it refuses"),
    (
        "tls_require_ciphers, openssl_options, openssl.cnf and the crypto policy",
        "smtpd_tls_protocols, smtpd_tls_ciphers and the crypto policy",
        "its list of versions and suites",
    ),
    (
        "tls_require_ciphers, openssl.cnf and the crypto policy",
        "smtpd_tls_protocols, smtpd_tls_ciphers and the crypto policy",
        "its list of versions and suites",
    ),
    (
        " (tls_require_ciphers in Exim, smtpd_tls_exclude_ciphers in Postfix)",
        " (smtpd_tls_exclude_ciphers)",
        "",
    ),
    (
        " (tls_dhparam in Exim, smtpd_tls_dh1024_param_file in Postfix)",
        " (smtpd_tls_dh1024_param_file)",
        "",
    ),
    (
        "openssl_options = +cipher_server_preference in Exim",
        "tls_preempt_cipherlist = yes",
        "the server's own order",
    ),
    (" (Groups in openssl.cnf, tls_eccurve in Exim)", " (tls_eecdh_auto_curves)", ""),
    (
        "Ciphersuites (TLS 1.3: openssl.cnf or the crypto policy) or in tls_require_ciphers (TLS 1.2)",
        "Ciphersuites (TLS 1.3: openssl.cnf or the crypto policy) or in tls_high_cipherlist (TLS 1.2)",
        "the server's list",
    ),
    ("the file of tls_certificate", "the file of smtpd_tls_chain_files", "the certificate's file"),
    (
        "into the file of tls_ocsp_file: Exim silently leaves out one that is missing, stale or says revoked",
        "where the server staples from, which Postfix itself cannot do",
        "where the server staples from",
    ),
    ("into the file of tls_ocsp_file", "where the server staples from", "where the server staples from"),
    ("Exim's main log and panic log", "Postfix's log", "the server's log"),
    ("Exim's reject log", "Postfix's log", "the server's log"),
    ("Exim's main log", "Postfix's log", "the server's log"),
    ("Exim", "Postfix", "the mail server"),
)
_LOWEST = re.compile(r"MinProtocol = TLSv1\.2 in openssl\.cnf.*smtpd_tls_protocols = >=TLSv1\.2\.", re.DOTALL)
_LOWEST_WORDS = {
    Software.POSTFIX: "smtpd_tls_protocols = >=TLSv1.2 and smtpd_tls_mandatory_protocols = >=TLSv1.2.",
    Software.OTHER: "set the server's lowest version to TLS 1.2.",
}


def in_its_words(advice: str, software: Software) -> str:
    """Advice, which is written for Exim, as an admin of that server needs it.

    >>> in_its_words("Read Exim's main log: it says why.", Software.POSTFIX)
    "Read Postfix's log: it says why."
    """
    if software is Software.EXIM:
        return advice
    advice = _LOWEST.sub(_LOWEST_WORDS[software], advice)
    for exims, postfix, other in _WORDS:
        advice = advice.replace(exims, postfix if software is Software.POSTFIX else other)
    return advice
