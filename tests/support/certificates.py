"""A certificate authority that nobody trusts, made for one test."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def server_context(directory: Path, name: str = "localhost", *, days: int = 1) -> ssl.SSLContext:
    """A server's context with a self-signed certificate for `name`, kept in `directory`.

    It is good for `days` more.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    number = x509.random_serial_number()
    # Of two authorities with one name OpenSSL asks the first, whoever has signed.
    of_its_own = x509.NameAttribute(NameOID.SERIAL_NUMBER, str(number))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), of_its_own])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority(directory).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority(directory), directory / "key.pem")
    return context


def authority(directory: Path) -> Path:
    """The file of the certificate that a client must trust."""
    return directory / "authority.pem"
