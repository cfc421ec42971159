from __future__ import annotations

import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from backport.probe.certificates import describe, dns_names, explain, host_matches, is_named
from backport.probe.tls import Session, VerifyError
from backport.probe.transcript import Style
from backport.selftest.authority import Authority, Identity, Services


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create()


@pytest.fixture(scope="module")
def leaf(authority: Authority) -> Identity:
    services = Services(crl_url="http://crl.test/ca.crl", ocsp_url="http://ocsp.test/")
    return authority.issue(["mail.example.org", "*.mx.example.org"], services=services)


@pytest.mark.parametrize(
    ("host", "pattern", "matches"),
    [
        ("mail.example.org", "mail.example.org", True),
        ("MAIL.example.org.", "mail.Example.org", True),
        ("mail.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("a.b.example.org", "*.example.org", False),
        ("mail.example.org", "m*.example.org", False),
        ("mail.example.org", "mail.*.org", False),
        ("example.org", "*.org", False),
        ("mail.example.org", "*", False),
        ("mail.example.org", "mail.example.com", False),
        ("mail..example.org", "*..example.org", False),
        ("", "", False),
        ("*.example.org", "*.example.org", False),
    ],
)
def test_names_match_by_rfc_6125(host: str, pattern: str, matches: bool) -> None:
    assert host_matches(host, pattern) is matches


def test_only_alternative_names_count(authority: Authority, leaf: Identity) -> None:
    assert dns_names(leaf.certificate) == ("mail.example.org", "*.mx.example.org")
    assert is_named(leaf.certificate, "a.mx.example.org")
    assert not is_named(leaf.certificate, "other.example.org")
    assert dns_names(authority.root.certificate) == ()


def test_chain_goes_from_leaf_to_root_and_each_signs_the_one_before(
    authority: Authority, leaf: Identity
) -> None:
    sent = x509.load_pem_x509_certificates(authority.chain(leaf))
    assert [certificate.subject for certificate in sent[1:]] == [
        certificate.issuer for certificate in sent[:2]
    ]
    for certificate, issuer in zip(sent, sent[1:] + sent[-1:], strict=True):
        certificate.verify_directly_issued_by(issuer)


def test_chain_verifies_as_a_server_s(authority: Authority, leaf: Identity) -> None:
    store = x509.verification.Store([authority.root.certificate])
    verifier = (
        x509.verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName("mail.example.org"))
    )
    chain = verifier.verify(leaf.certificate, [authority.intermediate.certificate])
    assert chain[-1] == authority.root.certificate


def test_crl_lists_the_revoked_and_is_signed_by_the_intermediate(
    authority: Authority, leaf: Identity
) -> None:
    crl = x509.load_pem_x509_crl(authority.crl([leaf]))
    issuer = authority.intermediate.certificate
    assert crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # an RSA key
    assert crl.get_revoked_certificate_by_serial_number(leaf.certificate.serial_number) is not None
    assert len(x509.load_pem_x509_crl(authority.crl())) == 0


@pytest.mark.parametrize("delegated", [False, True])
@pytest.mark.parametrize("revoked", [False, True])
def test_ocsp_answer_is_about_the_leaf_and_signed(
    authority: Authority, leaf: Identity, delegated: bool, revoked: bool
) -> None:
    responder = authority.issue(["ocsp.test"], usage=ExtendedKeyUsageOID.OCSP_SIGNING) if delegated else None
    answer = ocsp.load_der_ocsp_response(authority.ocsp_answer(leaf, revoked=revoked, responder=responder))
    assert answer.serial_number == leaf.certificate.serial_number
    expected = ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD
    assert answer.certificate_status is expected
    signer = responder or authority.intermediate
    assert answer.signature_hash_algorithm is not None
    signer.key.public_key().verify(
        answer.signature, answer.tbs_response_bytes, padding.PKCS1v15(), answer.signature_hash_algorithm
    )
    assert [found.subject for found in answer.certificates] == (
        [responder.certificate.subject] if responder else []
    )


def test_private_key_is_readable_by_old_openssl(leaf: Identity) -> None:
    assert leaf.key_pem.startswith(b"-----BEGIN RSA PRIVATE KEY-----")


def test_complaints_are_told_in_words_with_their_code() -> None:
    error = VerifyError(code=10, depth=0, subject="CN=mail")
    assert explain(error) == "certificate 1 (CN=mail): expired (verify code 10)"
    assert "verify code 4711" in explain(VerifyError(code=4711, depth=1, subject="CN=ca"))


def test_description_has_every_certificate_and_the_complaint_beside_its_own(
    authority: Authority, leaf: Identity
) -> None:
    session = Session(
        protocol="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        chain=tuple(x509.load_pem_x509_certificates(authority.chain(leaf))),
        errors=(VerifyError(code=19, depth=2, subject="CN=root"),),
    )
    lines = list(describe(session, "a.mx.example.org"))
    assert lines[:2] == ["SSLVersion in use: TLSv1_3", "Cipher in use: TLS_AES_256_GCM_SHA384"]
    assert [line for line in lines if "in chain" in line] == [
        "Certificate 1 of 3 in chain: Cert VALIDATED: ok",
        "Certificate 2 of 3 in chain: Cert VALIDATED: ok",
        f"Certificate 3 of 3 in chain: Cert NOT VALIDATED: {explain(session.errors[0])}",
    ]
    assert (
        "Cert Hostname VERIFIED (a.mx.example.org = mail.example.org | DNS:mail.example.org "
        "| DNS:*.mx.example.org)"
    ) in lines
    assert any("NOT VERIFIED" in line for line in describe(session, "other.org"))


def test_the_form_of_checktls_has_serial_and_names_as_openssl_writes_them() -> None:
    leaf = Authority.create("lab").issue(["mail.example.org"]).certificate
    session = Session(protocol="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", chain=(leaf,), errors=())
    lines = list(describe(session, "mail.example.org", style=Style.CHECKTLS))
    assert "subject= /CN=mail.example.org" in lines
    assert "issuer= /CN=lab intermediate" in lines
    (serial,) = (line for line in lines if line.startswith("serialNumber="))
    assert int(serial.removeprefix("serialNumber=").replace(":", ""), 16) == leaf.serial_number
    assert re.fullmatch(r"serialNumber=([0-9a-f]{2}:)*[0-9a-f]{2}", serial)
