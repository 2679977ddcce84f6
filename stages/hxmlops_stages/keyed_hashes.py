"""HMAC-SHA256 (RFC 2104) of a column, inside the database: pseudonyms, split, row tokens.

HMAC(key, text) = SHA256((key ^ opad) || SHA256((key ^ ipad) || text)) with the key padded to a block of 64
bytes. The two padded blocks are bound as a one-row table, so that no key ever stands in a query's text.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from hxmlops_recipe.tables import Database

_BLOCK = 64


def derive(secret: bytes, *purpose: str) -> bytes:
    """A key of its own for each purpose, made from a domain's secret: purposes cannot be told to be related."""
    return hmac.digest(secret, "\x1f".join(purpose).encode(), hashlib.sha256)


def token(key: bytes, text: object) -> str:
    """The first 16 hexadecimal digits of HMAC-SHA256(key, text), for examples in reports."""
    return hmac.new(key, str(text).encode(), hashlib.sha256).hexdigest()[:16]


def with_hmac(
    tables: Database,
    table: ir.Table,
    name: str,
    column: str,
    key: bytes | Mapping[bool, bytes],
    by: str | None = None,
) -> ir.Table:
    """The table with a column `name`: HMAC-SHA256(key, text of `column`) in 64 hexadecimal digits.

    With `by`, a boolean column, each row takes the key for its value there.
    """
    import ibis
    import numpy as np

    keys = [key] if isinstance(key, bytes) else list(key.values())
    padded = [(hashlib.sha256(each).digest() if len(each) > _BLOCK else each).ljust(_BLOCK, b"\0") for each in keys]
    blocks = {
        "hmac_inner": np.array([bytes(byte ^ 0x36 for byte in block) for block in padded], object),
        "hmac_outer": np.array([bytes(byte ^ 0x5C for byte in block) for block in padded], object),
    }
    if isinstance(key, bytes):
        keyed = table.cross_join(tables.bind(f"key of {name}", blocks))
    else:
        bound = tables.bind(f"key of {name}", blocks | {"hmac_by": np.array(list(key))})
        keyed = table.inner_join(bound, table[by] == bound.hmac_by).drop("hmac_by")
    function = ibis.udf.scalar.builtin
    sha256 = function(lambda data: data, name="sha256", signature=(("binary",), "string"))
    unhex = function(lambda text: text, name="unhex", signature=(("string",), "binary"))
    encode = function(lambda text: text, name="encode", signature=(("string",), "binary"))
    join = function(lambda first, second: first + second, name="||", signature=(("binary", "binary"), "binary"))
    message = encode(keyed[column].cast("string"))
    value = sha256(join(keyed.hmac_outer, unhex(sha256(join(keyed.hmac_inner, message)))))
    return keyed.mutate(value.name(name)).drop("hmac_inner", "hmac_outer")


def below(share: float) -> str:
    """The hexadecimal text below which that share of all hashes lies, to compare their first 13 digits with.

    13 digits are 52 bits: all that a float has. The share is between 0 and 1.
    """
    return f"{round(share * 16**13):013x}"
