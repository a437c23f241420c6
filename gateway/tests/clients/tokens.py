"""Keys and signed tokens (RS256) for tests, from Python's standard library alone."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import Any

# DigestInfo of a SHA-256, which the padding of a signature ends with (RFC 8017, 9.2).
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
EXPONENT = 65537
BYTES = 256


def hash_of(key: str) -> str:
    """What stands in the configuration for an API key."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def encoded(data: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def is_prime(number: int) -> bool:
    """Miller and Rabin's test; wrong once in 4^20."""
    if any(number % small == 0 for small in (3, 5, 7, 11, 13, 17, 19, 23, 29)):
        return False
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        x = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if x in (1, number - 1):
            continue
        for _ in range(twos - 1):
            x = pow(x, 2, number)
            if x == number - 1:
                break
        else:
            return False
    return True


def prime() -> int:
    """A random prime of half the bytes of a key."""
    bits = BYTES * 4
    while True:
        number = secrets.randbits(bits) | 1 | 3 << (bits - 2)
        if number % EXPONENT != 1 and is_prime(number):
            return number


class Issuer:
    """Signs tokens with an RSA key of its own."""

    def __init__(self, name: str) -> None:
        p, q = prime(), prime()
        self.name, self.modulus = name, p * q
        self.secret = pow(EXPONENT, -1, (p - 1) * (q - 1))

    def jwk(self) -> dict[str, str]:
        """The public key."""
        modulus = encoded(self.modulus.to_bytes(BYTES, "big"))
        return {"kty": "RSA", "kid": self.name, "n": modulus, "e": "AQAB", "use": "sig"}

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good for ten minutes, unless the claims say otherwise."""
        claims = {"sub": "ann", "aud": "penstock", "exp": int(time.time()) + 600} | claims
        header = {"alg": "RS256", "typ": "JWT", "kid": self.name} | (header or {})
        parts = [encoded(json.dumps(part).encode()) for part in (header, claims)]
        message = ".".join(parts)
        info = SHA256_INFO + hashlib.sha256(message.encode()).digest()
        padded = b"\0\1" + b"\xff" * (BYTES - len(info) - 3) + b"\0" + info
        signature = pow(int.from_bytes(padded, "big"), self.secret, self.modulus)
        return f"{message}.{encoded(signature.to_bytes(BYTES, 'big'))}"
