"""A small issuer of OpenID Connect tokens, over HTTP."""

import http.server
import json
import threading
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "model-sharing"
RSA_KEY = RSAKey.generate_key(2048, {"kid": "rsa"})
KEYS: dict[str, Key] = {
    "RS256": RSA_KEY,
    "PS256": RSAKey.import_key(RSA_KEY.as_dict(private=True) | {"kid": "pss"}),
    "ES256": ECKey.generate_key("P-256", {"kid": "ec"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
NEW_KEY = RSAKey.generate_key(2048, {"kid": "new"})
ANY = JWSRegistry(algorithms=list(JWSRegistry.algorithms), strict_check_header=False)


class Issuer:
    """Publishes keys; counts how often it was asked. `answers` replaces what is at a path."""

    def __init__(self, port: int = 0) -> None:
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                status, body = issuer.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Location", f"{issuer.url}/keys")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.asked: list[str] = []
        self.keys: list[dict[str, Any]] = [dict(key.as_dict(private=False)) for key in KEYS.values()]
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=lambda: self.server.serve_forever(0.01))
        self.thread.start()

    def answer(self, path: str) -> tuple[int, bytes]:
        if path in self.answers:
            return self.answers[path]
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}).encode()
        return (200, json.dumps({"keys": self.keys}).encode()) if path == "/keys" else (404, b"{}")

    def stop(self) -> None:
        if self.thread.is_alive():
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "exp": now + 60, "iat": now, "client_id": "mno"} | more
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, algorithm: str = "RS256", key: Key | None = None, header: Any = None, **claims: Any) -> str:
        key = key or KEYS[algorithm]
        named = {"alg": algorithm, "kid": key.kid} if header is None else header
        return jwt.encode(named, self.claims(**{"scope": "read:model"} | claims), key, registry=ANY)
