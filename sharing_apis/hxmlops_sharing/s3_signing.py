"""Presigned URLs of S3 (AWS Signature Version 4, in the query), with query parameters of the caller's."""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit


def presigned_url(
    method: str,
    url: str,
    query: Mapping[str, str],
    *,
    region: str,
    access_key: str,
    secret_key: str,
    expires_s: int,
) -> str:
    """The URL (its path percent-encoded already) as whoever has the key may request it for so many seconds from now."""
    now = datetime.now(UTC)
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    parameters = {
        **query,
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(expires_s),
        "X-Amz-SignedHeaders": "host",
    }
    canonical_query = "&".join(
        f"{quote(name, safe='')}={quote(parameters[name], safe='')}" for name in sorted(parameters)
    )
    parts = urlsplit(url)
    canonical = f"{method}\n{parts.path or '/'}\n{canonical_query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    to_sign = f"AWS4-HMAC-SHA256\n{now:%Y%m%dT%H%M%SZ}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + secret_key.encode()
    for word in (*scope.split("/"), to_sign):
        key = hmac.digest(key, word.encode(), "sha256")
    return f"{url}?{canonical_query}&X-Amz-Signature={key.hex()}"
