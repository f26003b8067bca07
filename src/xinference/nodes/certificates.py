"""The certificates of a cluster: its authority, the certificates of its nodes, and TLS between them.

Keys are ECDSA P-256, connections TLS 1.3, and both ends show a certificate of the cluster's authority. The name in a
node's certificate is its id, under the domain `hosts.NODE_DOMAIN`, so that a node can speak for itself only.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xinference.error_codes import Code
from xinference.errors import Problem
from xinference.files.private_file import write_private
from xinference.files.small_file import read_small
from xinference.hosts import NODE_DOMAIN, node_name

#: How long a node's certificate is valid; it is renewed after two thirds of that time.
NODE_DAYS = 30
#: How long the authority's own certificate is valid.
AUTHORITY_DAYS = 3650
#: Clocks of two nodes may differ by this much.
CLOCK_SKEW = timedelta(minutes=5)
#: Number of hexadecimal digits of the authority's fingerprint in a join token.
FINGERPRINT_DIGITS = 16
NODE_ID = re.compile(r"n[0-9a-f]{12}", re.ASCII)


def key_fingerprint(request: bytes) -> str:
    """The SHA-256 of the public key in a signing request: two requests of one machine have the same.

    Raises:
        Problem: 400 ``invalid_request``: the request is damaged.
    """
    try:
        key = x509.load_pem_x509_csr(request).public_key()
        return hashlib.sha256(
            key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        ).hexdigest()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Problem(Code.INVALID_REQUEST, "The signing request of the node is damaged.") from error


def trusting_context(authority: bytes) -> ssl.SSLContext:
    """TLS for a machine without a certificate that knows the cluster's authority, as PEM."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


def fingerprint(certificate: x509.Certificate) -> str:
    """The first `FINGERPRINT_DIGITS` of the SHA-256 of a certificate: what a join token says of the authority."""
    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return digest[:FINGERPRINT_DIGITS]


@dataclass(frozen=True)
class ClusterAuthority:
    """The authority that signs the certificates of a cluster."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def load_or_create(cls, folder: Path, now: datetime) -> ClusterAuthority:
        """The authority in `folder`, which is created with mode 0600 if there is none. Blocks.

        Raises:
            Problem: 500 ``cluster_identity_damaged``: the files are damaged; a new authority would shut out all nodes.
        """
        key_path, certificate_path = folder / "authority.key", folder / "authority.pem"
        if not key_path.exists() and not certificate_path.exists():
            authority = cls._create(now)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The certificate is written last: a key without it is of an authority that has signed nothing.
            write_private(key_path, private_bytes(authority.key))
            write_private(certificate_path, public_bytes(authority.certificate))
            return authority
        if key_path.exists() and not certificate_path.exists():
            key_path.unlink()
            return cls.load_or_create(folder, now)
        try:
            key = serialization.load_pem_private_key(read_small(key_path), None)
            certificate = x509.load_pem_x509_certificate(read_small(certificate_path))
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(folder, str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise _damaged(folder, "the key is not that of the certificate")
        return cls(certificate, key)

    @classmethod
    def _create(cls, now: datetime) -> ClusterAuthority:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"xinference cluster {serial % 2**32:08x}")])
        builder = (
            x509.CertificateBuilder(name, name, key.public_key(), serial)
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    def issue(self, request: bytes, node_id: str, now: datetime) -> bytes:
        """The certificate, as PEM, for the signing request of a node. The names in the request are not read.

        Raises:
            Problem: 400 ``invalid_request``: the request is damaged, or its key is not one of P-256.
        """
        if not NODE_ID.fullmatch(node_id):
            raise Problem(Code.INVALID_REQUEST, f"{node_id!r} is not the id of a node.")
        try:
            signing = x509.load_pem_x509_csr(request)
            key = signing.public_key()
            signed = signing.is_signature_valid
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
            raise Problem(Code.INVALID_REQUEST, f"The signing request of the node {node_id} is damaged.") from error
        if not signed or not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            cause = f"The signing request of the node {node_id} is not signed by a key of the curve P-256."
            raise Problem(Code.INVALID_REQUEST, cause)
        names = [x509.DNSName(node_name(node_id))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)]))
            .issuer_name(self.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + timedelta(days=NODE_DAYS))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return public_bytes(builder.sign(self.key, hashes.SHA256()))


@dataclass(frozen=True)
class NodeIdentity:
    """The files with which a node proves who it is: its key, its certificate, and the authority's certificate."""

    folder: Path

    @property
    def key_path(self) -> Path:
        return self.folder / "node.key"

    @property
    def certificate_path(self) -> Path:
        return self.folder / "node.pem"

    @property
    def authority_path(self) -> Path:
        return self.folder / "authority.pem"

    def signing_request(self) -> bytes:
        """A signing request, as PEM, for the node's key, which is created with mode 0600 if there is none. Blocks.

        Raises:
            Problem: 500 ``cluster_identity_damaged``: the file of the key is damaged.
        """
        if not self.key_path.exists():
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.key_path, private_bytes(ec.generate_private_key(ec.SECP256R1())))
        try:
            key = serialization.load_pem_private_key(read_small(self.key_path), None)
        except (OSError, ValueError, TypeError) as error:
            raise _damaged(self.folder, str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _damaged(self.folder, "node.key is no key of the curve P-256")
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)

    def save(self, certificate: bytes, authority: bytes) -> None:
        """Replace the node's certificate and the authority's. Blocks.

        Raises:
            Problem: 502 ``node_message_refused``: it is damaged, or not for the key of this node.
        """
        if not self._is_of_key(certificate):
            cause = "The certificate that the supervisor has sent is damaged, or is not for the key of this node."
            raise Problem(Code.NODE_MESSAGE_REFUSED, cause, hint="Install the same version of Xinference on both.")
        write_private(self.authority_path, authority)
        write_private(self.certificate_path, certificate)

    def _is_of_key(self, certificate: bytes) -> bool:
        with suppress(OSError, ValueError, TypeError, UnsupportedAlgorithm):
            key = serialization.load_pem_private_key(read_small(self.key_path), None)
            return x509.load_pem_x509_certificate(certificate).public_key() == key.public_key()
        return False

    def is_due(self, now: datetime) -> bool:
        """Whether the certificate is to be renewed: two thirds of its time are over, or it cannot be read."""
        with suppress(OSError, ValueError):
            certificate = x509.load_pem_x509_certificate(read_small(self.certificate_path))
            begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            return now >= begin + (end - begin) * 2 / 3
        return True

    def is_valid(self, now: datetime) -> bool:
        """Whether there is a certificate whose time is not over."""
        with suppress(OSError, ValueError):
            return x509.load_pem_x509_certificate(read_small(self.certificate_path)).not_valid_after_utc > now
        return False

    def authority_fingerprint(self) -> str:
        """The fingerprint of the authority that signed the node's certificate; empty: its file cannot be read."""
        with suppress(OSError, ValueError):
            return fingerprint(x509.load_pem_x509_certificate(read_small(self.authority_path)))
        return ""

    def server_context(self, *, admits_strangers: bool = False) -> ssl.SSLContext:
        """TLS for what listens on this node: only clients with a certificate of the cluster get in.

        `admits_strangers`: clients without a certificate get in, too; those with a wrong one do not.
        """
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        if admits_strangers:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for connections of this node; `server_hostname` must be the `node_name` of the other one."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate_path, self.key_path)
            context.load_verify_locations(self.authority_path)
        except (OSError, ssl.SSLError) as error:
            raise _damaged(self.folder, str(error)) from error
        return context


def peer_node(certificate: bytes | None) -> tuple[str, int] | None:
    """The node id and the serial number in the DER form of a certificate that TLS has verified; None: not a node's."""
    if certificate is None:
        return None
    with suppress(ValueError, x509.ExtensionNotFound):
        parsed = x509.load_der_x509_certificate(certificate)
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for name in names.get_values_for_type(x509.DNSName):
            node_id = name.removesuffix(f".{NODE_DOMAIN}")
            if name != node_id and NODE_ID.fullmatch(node_id):
                return node_id, parsed.serial_number
    return None


def public_bytes(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A key as PEM, without a password: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def now() -> datetime:
    """The time of this machine's clock."""
    return datetime.now(UTC)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _damaged(folder: Path, cause: str) -> Problem:
    return Problem(
        Code.CLUSTER_IDENTITY_DAMAGED,
        f"The certificates of the cluster in {folder} cannot be read: {cause}.",
        hint="Restore the folder from a backup. Without one, delete it, and let each worker join again.",
    )
