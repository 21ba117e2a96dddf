"""How values become text, and come back."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any


class JsonCodec:
    """JSON."""

    name = "json"

    def encode(self, value: Any) -> bytes:
        """A value as bytes."""
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    def decode(self, data: bytes) -> Any:
        """The value again."""
        return json.loads(data)

    def fingerprint(self, value: Any) -> bytes:
        """16 bytes that are the same for equal values."""
        return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).digest()
