"""How an agent proves itself to Convex: a short ES256 token of its own.

Convex checks it with a `customJwt` provider whose key set is a data URI in the deployment's
environment (https://docs.convex.dev/auth/advanced/custom-jwt), so no identity server is asked.

    key = convex.AgentKey.from_env()                       # CONVEX_AGENT_KEY
    token = convex.AgentToken(key, subject="student:k57", student_id="k57")
    client = convex.AsyncConvexClient(token=token)
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .errors import ConfigurationError
from .log import logger

AUDIENCE = "convex"
DEFAULT_ISSUER = "https://emma.invalid/agent"

TOKEN_LIFETIME_S = 600.0
# A token is replaced at this share of its life, so that none expires on its way.
RENEW_AT = 0.8
# The Date header counts whole seconds and the backend forgives 5 s; below this there is nothing
# to correct, and correcting would only follow the jitter of the network.
MAX_CLOCK_ERROR_S = 2.0

KEY_VARIABLE = "CONVEX_AGENT_KEY"
ISSUER_VARIABLE = "CONVEX_AGENT_ISSUER"
_MAKE_A_KEY = (
    'make one with: python -c "from livekit.plugins import convex; '
    'print(convex.AgentKey.generate().pem())"'
)


class TokenSource(Protocol):
    """Where a client gets the bearer token of its calls. Implement it for your own tokens.

    All methods are called on the event loop and must not block.
    """

    def value(self) -> str:
        """A token that is valid now."""
        ...

    def invalidate(self) -> None:
        """The last token was refused: make another one next time."""
        ...

    def renew_in_s(self) -> float | None:
        """Seconds until a long-lived connection should be given a new token; None if never."""
        ...

    def learn_clock(self, server_time: float) -> None:
        """The server's clock as just seen, in Unix seconds."""
        ...


class AgentKey:
    """The P-256 key an agent signs its tokens with, and the issuer it signs for.

    Attributes:
        issuer: the `iss` of every token; `issuer` of the provider in `auth.config.ts`.
        key_id: the `kid`, the key's RFC 7638 thumbprint.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, *, issuer: str = DEFAULT_ISSUER) -> None:
        if not isinstance(key.curve, ec.SECP256R1):
            raise ConfigurationError(
                f"{KEY_VARIABLE} holds a key on the curve {key.curve.name}; ES256 needs P-256 "
                f"(prime256v1): {_MAKE_A_KEY}"
            )
        self._key = key
        self.issuer = issuer
        numbers = key.public_key().public_numbers()
        self._public_jwk = {
            "crv": "P-256",
            "kty": "EC",
            "x": _base64url(numbers.x.to_bytes(32, "big")),
            "y": _base64url(numbers.y.to_bytes(32, "big")),
        }
        # RFC 7638: the required members, in this order, without white space.
        canonical = json.dumps(self._public_jwk, sort_keys=True, separators=(",", ":"))
        self.key_id = _base64url(hashlib.sha256(canonical.encode()).digest())

    def __repr__(self) -> str:
        return f"AgentKey(issuer={self.issuer!r}, key_id={self.key_id!r})"

    @classmethod
    def generate(cls, *, issuer: str = DEFAULT_ISSUER) -> AgentKey:
        """A new key; store its `pem()` where only the worker reads it."""
        return cls(ec.generate_private_key(ec.SECP256R1()), issuer=issuer)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> AgentKey:
        """The key named by `CONVEX_AGENT_KEY`, for the issuer in `CONVEX_AGENT_ISSUER`.

        The variable holds the PEM text itself (a line end may be written as a backslash and an
        n, as in .env files) or the path of a PEM file.

        Raises:
            ConfigurationError: missing, unreadable or foreign; it says what to do.
        """
        env = os.environ if environ is None else environ
        value = env.get(KEY_VARIABLE, "").strip()
        issuer = env.get(ISSUER_VARIABLE, "").strip() or DEFAULT_ISSUER
        if not value:
            raise ConfigurationError(
                f"{KEY_VARIABLE} is not set: it holds the agent's private key as PEM text, "
                f"or the path of a PEM file; {_MAKE_A_KEY}"
            )
        if "-----BEGIN" not in value:
            value = _read_file(value)
        return cls.from_pem(value, issuer=issuer)

    @classmethod
    def from_pem(cls, text: str, *, issuer: str = DEFAULT_ISSUER) -> AgentKey:
        """The key in an unencrypted PEM text, PKCS#8 or SEC 1.

        Raises:
            ConfigurationError: not such a key; it says what it is instead, if that is known.
        """
        pem = text.replace("\\n", "\n").strip().encode()
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ConfigurationError(
                f"{KEY_VARIABLE} holds an encrypted key; take its passphrase off with "
                "`openssl pkcs8 -topk8 -nocrypt` and protect the place it is stored in"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            # The cause is dropped on purpose: it may quote the text.
            raise ConfigurationError(
                f"{KEY_VARIABLE} holds {_what_else(text)}; it must be a P-256 private key: "
                f"{_MAKE_A_KEY}"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey")
            raise ConfigurationError(
                f"{KEY_VARIABLE} holds a key of another kind ({kind}); ES256 needs a P-256 "
                f"private key: {_MAKE_A_KEY}"
            )
        return cls(key, issuer=issuer)

    def pem(self) -> str:
        """The private key as PKCS#8 PEM text: a secret."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    def jwks_data_uri(self) -> str:
        """The public key set for the deployment's `AGENT_JWKS` variable. Not a secret."""
        public = {**self._public_jwk, "alg": "ES256", "use": "sig", "kid": self.key_id}
        document = json.dumps({"keys": [public]}, separators=(",", ":"))
        encoded = base64.b64encode(document.encode()).decode()
        return f"data:text/plain;charset=utf-8;base64,{encoded}"

    def sign(self, claims: Mapping[str, object]) -> str:
        """A JWT with these claims, signed with ES256."""
        return jwt.encode(
            dict(claims),
            self._key,
            algorithm="ES256",
            headers={"kid": self.key_id, "typ": "JWT"},
        )


class AgentToken:
    """The token of one agent acting for one student or guest; renewed before it expires.

    Args:
        key: signs the tokens.
        subject: `sub` of the identity, such as `student:<id>` or `guest:<session key>`.
        student_id: claimed as `student_id`; left out of the token if None.
        clock: Unix seconds.
    """

    def __init__(
        self,
        key: AgentKey,
        *,
        subject: str,
        student_id: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not subject:
            raise ConfigurationError("AgentToken needs a subject, such as 'student:<id>'")
        self.key = key
        self.subject = subject
        self.student_id = student_id
        self._clock = clock
        self._clock_error_s = 0.0
        self._value: str | None = None
        self._renew_at = 0.0

    def __repr__(self) -> str:
        return f"AgentToken(subject={self.subject!r}, key={self.key!r})"

    def value(self) -> str:
        """A token that is valid now: the last one, or a new one after 80 % of its 600 s."""
        now = self._clock()
        # A clock set back by more than a life's length would keep an old token for ever.
        fresh = 0 <= self._renew_at - now <= TOKEN_LIFETIME_S
        if self._value is None or not fresh:
            self._value = self._sign(now)
            self._renew_at = now + RENEW_AT * TOKEN_LIFETIME_S
        return self._value

    def invalidate(self) -> None:
        """Forget the last token; the next `value()` signs a new one."""
        self._value = None

    def renew_in_s(self) -> float:
        """Seconds until `value()` gives a new token."""
        if self._value is None:
            return 0.0
        return max(0.0, self._renew_at - self._clock())

    def learn_clock(self, server_time: float) -> None:
        """Sign by the server's clock if ours is off by more than 2 s.

        Args:
            server_time: Unix seconds, as the server's answer has just said.
        """
        error_s = server_time - self._clock()
        if abs(error_s) <= MAX_CLOCK_ERROR_S:
            error_s = 0.0
        if abs(error_s - self._clock_error_s) > MAX_CLOCK_ERROR_S:
            logger.warning("auth.clock_corrected", extra={"offset_s": round(error_s, 1)})
            self._clock_error_s = error_s
            self.invalidate()

    def _sign(self, now: float) -> str:
        issued_at = int(now + self._clock_error_s)
        claims: dict[str, object] = {
            "iss": self.key.issuer,
            "aud": AUDIENCE,
            "sub": self.subject,
            "iat": issued_at,
            "exp": issued_at + int(TOKEN_LIFETIME_S),
            "role": "agent",
        }
        if self.student_id is not None:
            claims["student_id"] = self.student_id
        return self.key.sign(claims)


class StaticToken:
    """A token somebody else made. It cannot be renewed: when it is refused, that is the end."""

    def __init__(self, token: str) -> None:
        self._token = token

    def value(self) -> str:
        return self._token

    def invalidate(self) -> None:
        pass

    def renew_in_s(self) -> None:
        return None

    def learn_clock(self, server_time: float) -> None:
        pass


def _read_file(path: str) -> str:
    # The value is never shown: what is not a path is likely a key that lost its first line.
    try:
        return Path(path).expanduser().read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{KEY_VARIABLE} is neither PEM text (it has no '-----BEGIN' line) nor the path of a "
            f"file that can be read ({type(error).__name__}); {_MAKE_A_KEY}"
        ) from None


def _what_else(text: str) -> str:
    if "PUBLIC KEY-----" in text:
        return "a public key"
    if "CERTIFICATE-----" in text:
        return "a certificate"
    if "ENCRYPTED" in text:
        return "an encrypted key"
    return "no key that can be read (cut off, or with its line ends lost?)"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
