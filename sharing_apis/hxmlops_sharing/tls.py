"""Certificates of a server: checked before it starts, taken anew when the files change."""

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hxmlops_sharing.settings import ENVIRONMENT, Settings, SettingsError

RENEW_S = 60.0
"""Seconds between looks at the files."""

log = structlog.get_logger("hxmlops_sharing")


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """The context to serve with; None without a certificate. SettingsError when the files do not fit."""
    if settings.certificate is None or settings.private_key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _take(context, settings.certificate, settings.private_key)
    if settings.client_ca is not None:
        name = ENVIRONMENT + "CLIENT_CA"
        for authority in _certificates(name, settings.client_ca):
            _check_dates(name, settings.client_ca, authority)
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def renew(context: ssl.SSLContext, settings: Settings) -> None:
    """Use new certificates as soon as they are there, for connections from then on; keep the old ones on errors."""
    if settings.certificate is None or settings.private_key is None:
        return
    seen = _times(settings)
    while True:
        await asyncio.sleep(RENEW_S)
        now = _times(settings)
        if now == seen:
            continue
        seen = now
        try:
            _take(context, settings.certificate, settings.private_key)
            log.info("certificate_renewed")
        except SettingsError as error:
            log.error("certificate_not_renewed", reason=str(error))


def _take(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    name = ENVIRONMENT + "CERTIFICATE"
    leaf = _certificates(name, certificate)[0]
    _check_dates(name, certificate, leaf)
    key_name = ENVIRONMENT + "PRIVATE_KEY"
    try:
        key = load_pem_private_key(_read(key_name, private_key), None)
    except TypeError:
        raise SettingsError(f"{key_name} {private_key} has a passphrase: name a file without one, mode 0600") from None
    except ValueError:
        raise SettingsError(f"{key_name} {private_key} is no PEM private key: name the certificate's key") from None
    if key.public_key() != leaf.public_key():
        raise SettingsError(
            f"{key_name} {private_key} is not the key of {certificate}: name the two that belong together"
        )
    try:
        context.load_cert_chain(certificate, private_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{name} {certificate}: {error.strerror or error}: name a usable certificate") from None


def _certificates(name: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(name, path))
    except ValueError:
        raise SettingsError(f"{name} {path} has no PEM certificate: name a file that has") from None


def _check_dates(name: str, path: Path, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc <= now:
        raise SettingsError(f"{name} {path} expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}: renew it")
    if certificate.not_valid_before_utc > now:
        raise SettingsError(
            f"{name} {path} is valid from {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}: "
            "wait until then, or set this machine's clock"
        )


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} {path}: {error.strerror}: name a file that this user may read") from None


def _times(settings: Settings) -> list[int]:
    times = []
    for path in (settings.certificate, settings.private_key):
        try:
            times.append(path.stat().st_mtime_ns if path else 0)
        except OSError:
            times.append(0)
    return times
