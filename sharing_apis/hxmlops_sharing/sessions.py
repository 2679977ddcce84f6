"""Sessions of people on the catalogue page: a bearer token, encrypted in a cookie.

The cookie is the whole session, so every server of a database answers it and none has to remember it. Its key is made
once, in the database: whoever copies the database still lacks the cookies, and whoever takes a cookie has no token for
the API and a session that ends within hours. The token in it is looked up at every request, so that revoking it ends
the session at once. To end all sessions remove the row `catalogue` of the table `secrets`.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets as random
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import insert, select

from hxmlops_sharing.database import Database
from hxmlops_sharing.tables import secrets

LASTS_S = 8 * 3600
MAX_TOKEN = 2900
"""Characters of a token that a cookie has room for: browsers keep 4,096 of a cookie."""

_PURPOSE = "catalogue"
_NONCE = 12


class Sessions:
    """Makes and reads the cookies of one database's servers."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._form_key = hashlib.sha256(b"form" + key).digest()
        mark = hashlib.sha256(b"name" + key).hexdigest()[:8]
        self.cookie = f"hxmlops-session-{mark}"
        """The cookie's name, of this database alone: browsers share cookies among all ports of a host."""
        self.form_cookie = f"hxmlops-form-{mark}"

    def seal(self, token: str) -> str:
        """A new session's cookie."""
        nonce = os.urandom(_NONCE)
        text = json.dumps([int(time.time()) + LASTS_S, token]).encode()
        return base64.urlsafe_b64encode(nonce + self._cipher.encrypt(nonce, text, None)).decode().rstrip("=")

    def open(self, cookie: str) -> str | None:
        """The token of a session; None when the cookie is not ours or its time is over."""
        try:
            sealed = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
            text = self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
        except (ValueError, binascii.Error, InvalidTag):
            return None
        ends, token = json.loads(text)
        return str(token) if ends > time.time() else None

    def form_token(self, cookie: str) -> str:
        """What a form must send back: known only to pages that were made for this cookie."""
        return hmac.digest(self._form_key, cookie.encode(), "sha256").hex()

    def is_form_token(self, cookie: str, given: str) -> bool:
        return bool(cookie) and hmac.compare_digest(self.form_token(cookie).encode(), given.encode())


async def sessions_of(database: Database) -> Sessions:
    """The sessions of a database, whose key is made when it is the first time."""
    key = select(secrets.c.secret).where(secrets.c.purpose == _PURPOSE)
    async with database.read() as connection:
        secret = (await connection.execute(key)).scalar()
    if secret is None:
        async with database.write() as connection:
            secret = (await connection.execute(key)).scalar()  # another server may have been first
            if secret is None:
                secret = base64.b64encode(random.token_bytes(32)).decode()
                await connection.execute(insert(secrets), {"purpose": _PURPOSE, "secret": secret})
                await connection.commit()
    return Sessions(base64.b64decode(secret))
