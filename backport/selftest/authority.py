"""A certificate authority for tests: root, intermediate, leaves with subject alternative names,
revocation lists and OCSP answers, following the profile of RFC 5280 and RFC 6960.

Its keys live as long as the test does and vouch for nothing outside it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

KEY_BITS = 2048
CLOCK_SKEW = dt.timedelta(hours=1)
"""Certificates are valid from this long ago, so that a server whose clock lags accepts them."""


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """From when until when a certificate, a list or an answer is valid (aware, in UTC)."""

    start: dt.datetime
    end: dt.datetime

    @classmethod
    def days(cls, count: float, *, since: float = 0.0) -> Lifetime:
        """``count`` days that begin ``since`` days from now, less the allowance for skewed clocks."""
        start = dt.datetime.now(dt.UTC) + dt.timedelta(days=since) - CLOCK_SKEW
        return cls(start=start, end=start + dt.timedelta(days=count))


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def pem(self) -> bytes:
        """The certificate, in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, unencrypted, in the form that OpenSSL of every age reads (PKCS #1)."""
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


@dataclass(frozen=True, kw_only=True)
class Services:
    """Where a certificate says that its revocation can be asked for; None leaves the pointer out."""

    crl_url: str | None = None
    ocsp_url: str | None = None


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A root, and below it the intermediate that issues leaves."""

    root: Identity
    intermediate: Identity

    @classmethod
    def create(cls, name: str = "backport self-test") -> Authority:
        """A new authority with fresh keys, valid for ten days."""
        lifetime = Lifetime.days(10)
        root_key = new_key()
        root_name = _name(f"{name} root")
        root = _certify(
            root_name, root_key, issuer=(root_name, root_key), lifetime=lifetime, extensions=_ca_extensions(1)
        )
        key = new_key()
        intermediate = _certify(
            _name(f"{name} intermediate"),
            key,
            issuer=(root_name, root_key),
            lifetime=lifetime,
            extensions=_ca_extensions(0),
        )
        return cls(
            root=Identity(certificate=root, key=root_key),
            intermediate=Identity(certificate=intermediate, key=key),
        )

    def issue(
        self,
        names: Sequence[str],
        *,
        lifetime: Lifetime | None = None,
        key: rsa.RSAPrivateKey | None = None,
        services: Services | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ) -> Identity:
        """A leaf for DNS ``names`` (the first is also the subject's CN), issued by the intermediate.

        ``usage`` OCSP_SIGNING makes a delegated OCSP responder (RFC 6960 section 4.2.2.2).
        """
        own_key = key or new_key()
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), False),
            (x509.ExtendedKeyUsage([usage]), False),
            *((extension, False) for extension in _pointers(services or Services())),
        ]
        certificate = _certify(
            _name(names[0]),
            own_key,
            issuer=(self.intermediate.certificate.subject, self.intermediate.key),
            lifetime=lifetime or Lifetime.days(5),
            extensions=extensions,
        )
        return Identity(certificate=certificate, key=own_key)

    def chain(self, leaf: Identity) -> bytes:
        """Leaf, intermediate and root in the order in which a server sends them, in PEM."""
        return leaf.pem + self.intermediate.pem + self.root.pem

    def crl(
        self,
        revoked: Sequence[Identity] = (),
        *,
        issuer: Identity | None = None,
        lifetime: Lifetime | None = None,
    ) -> bytes:
        """A revocation list (RFC 5280 section 5) by the intermediate, or by ``issuer``, in PEM."""
        signer, valid = issuer or self.intermediate, lifetime or Lifetime.days(2)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(signer.certificate.subject)
            .last_update(valid.start)
            .next_update(valid.end)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(_authority_key(signer.key), critical=False)
        )
        for identity in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(identity.certificate.serial_number)
                .revocation_date(valid.start)
                .build()
            )
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def ocsp_answer(
        self,
        identity: Identity,
        *,
        revoked: bool = False,
        responder: Identity | None = None,
        lifetime: Lifetime | None = None,
    ) -> bytes:
        """An OCSP response (RFC 6960 section 4.2) about ``identity``, in DER.

        The intermediate signs it, or ``responder``, whose certificate is then enclosed.
        """
        signer, valid = responder or self.intermediate, lifetime or Lifetime.days(2)
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=identity.certificate,
                issuer=self.intermediate.certificate,
                algorithm=hashes.SHA1(),  # noqa: S303 - names the issuer in the CertID, as every responder does
                cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
                this_update=valid.start,
                next_update=valid.end,
                revocation_time=valid.start if revoked else None,
                revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        )
        if responder is not None:
            builder = builder.certificates([responder.certificate])
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def new_key(bits: int = KEY_BITS) -> rsa.RSAPrivateKey:
    """A fresh RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def _certify(
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    *,
    issuer: tuple[x509.Name, rsa.RSAPrivateKey],
    lifetime: Lifetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    issuer_name, issuer_key = issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(lifetime.start)
        .not_valid_after(lifetime.end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_authority_key(issuer_key), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())


def _ca_extensions(path_length: int) -> list[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    return [(x509.BasicConstraints(ca=True, path_length=path_length), True), (usage, True)]


def _pointers(services: Services) -> list[x509.ExtensionType]:
    found: list[x509.ExtensionType] = []
    if services.crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(services.crl_url)], None, None, None)
        found.append(x509.CRLDistributionPoints([point]))
    if services.ocsp_url:
        location = x509.UniformResourceIdentifier(services.ocsp_url)
        access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, location)
        found.append(x509.AuthorityInformationAccess([access]))
    return found


def _authority_key(key: rsa.RSAPrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
