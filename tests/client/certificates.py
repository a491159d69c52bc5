"""Certificates that are good for two days, and the TLS of servers that show them."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

OPENSSL = shutil.which("openssl")


def make_certificates(folder: Path) -> None:
    """Make two authorities, ca.pem and other.pem, and what they signed, each as `<name>.pem` with `<name>.key`.

    Of ca: server (localhost, inside.example), expired (localhost) and client, whose key is also in locked.key, under
    a password. Of other: stranger.
    """

    def openssl(*arguments: str) -> None:
        subprocess.run([str(OPENSSL), *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for authority in ("ca", "other"):
        subject = ("-subj", f"/CN={authority}", "-days", "2", "-addext", "keyUsage=critical,keyCertSign")
        openssl("req", "-x509", *key, "-keyout", f"{authority}.key", "-out", f"{authority}.pem", *subject)
    for name, authority, names, days in (
        ("server", "ca", "DNS:localhost,DNS:inside.example", "2"),
        ("expired", "ca", "DNS:localhost", "-1"),
        ("client", "ca", "DNS:client", "2"),
        ("stranger", "other", "DNS:client", "2"),
    ):
        (folder / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("-CA", f"{authority}.pem", "-CAkey", f"{authority}.key", "-CAcreateserial", "-days", days)
        openssl("x509", "-req", "-in", f"{name}.csr", *signed, "-extfile", "extensions", "-out", f"{name}.pem")
    openssl("pkey", "-in", "client.key", "-aes256", "-passout", "pass:geheim", "-out", "locked.key")


def server_context(
    certificates: Path, name: str = "server", *, mutual: bool = False, newest: bool = True, alpn: tuple[str, ...] = ()
) -> ssl.SSLContext:
    """What a server needs to show the certificate of this name; mutual: and to ask for one that is of ca.

    newest: TLS 1.3, not 1.2.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if mutual:
        context.load_verify_locations(certificates / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context
