"""Tokens between services: minted by the gateway, bound to one audience, signed with Ed25519, gone in a minute.

Minted by `rpc.client` for outgoing calls, verified by `rpc.auth` for incoming ones.
"""

from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from servicekit.errors import Unauthenticated
from servicekit.ports.clock import Clock, SystemClock
from servicekit.rpc.caller import Caller

ISSUER: Final = "binnacle-gateway"
LIFETIME_S: Final = 60
LEEWAY_S: Final = 5
_REUSE_S: Final = 30
_MAX_CACHED: Final = 4096
_ALGORITHM: Final = "EdDSA"


class TokenMinter:
    """Signs who a call is made for. A token is reused for 30 s for the same caller, scopes and audience."""

    def __init__(self, private_key: Ed25519PrivateKey, *, clock: Clock | None = None) -> None:
        self._key = private_key
        self._clock = clock or SystemClock()
        self._minted: dict[tuple[str, str, frozenset[str], str], tuple[str, float]] = {}

    def mint(self, caller: Caller, *, audience: str, scopes: frozenset[str] | None = None) -> str:
        """A token for `audience` (a service's name) with the caller's scopes, or the given ones instead."""
        granted = caller.scopes if scopes is None else scopes
        cache_key = (caller.tenant, caller.subject, granted, audience)
        now_s = self._clock.monotonic_s()
        cached = self._minted.get(cache_key)
        if cached is not None and now_s < cached[1]:
            return cached[0]
        token = self._sign(caller, audience, granted)
        if len(self._minted) >= _MAX_CACHED:
            self._minted.clear()
        self._minted[cache_key] = (token, now_s + _REUSE_S)
        return token

    def _sign(self, caller: Caller, audience: str, scopes: frozenset[str]) -> str:
        issued = int(self._clock.now().timestamp())
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": caller.subject,
            "tenant": caller.tenant,
            "scope": " ".join(sorted(scopes)),
            "iat": issued,
            "exp": issued + LIFETIME_S,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)


class TokenVerifier:
    """Accepts tokens of the gateway's key for one audience; a verified token is remembered until it expires."""

    def __init__(self, public_key: Ed25519PublicKey, *, audience: str, clock: Clock | None = None) -> None:
        self._key = public_key
        self._audience = audience
        self._clock = clock or SystemClock()
        self._verified: dict[str, tuple[Caller, float]] = {}

    def recall(self, token: str) -> Caller | None:
        """The caller of a token that was verified before and is still good."""
        known = self._verified.get(token)
        if known is None or self._clock.now().timestamp() > known[1]:
            return None
        return known[0]

    def verify(self, token: str) -> Caller:
        """The caller that the token names.

        Raises:
            Unauthenticated: not signed by the gateway, for another audience, expired, or too long-lived.
        """
        recalled = self.recall(token)
        if recalled is not None:
            return recalled
        now_s = self._clock.now().timestamp()
        claims = self._decode(token)
        self._check_times(claims, now_s)
        caller = Caller(
            tenant=str(claims["tenant"]),
            subject=str(claims["sub"]),
            scopes=frozenset(str(claims["scope"]).split()),
        )
        if len(self._verified) >= _MAX_CACHED:
            self._verified.clear()
        self._verified[token] = (caller, claims["exp"] + LEEWAY_S)
        return caller

    def _decode(self, token: str) -> dict[str, Any]:
        required = ["iss", "aud", "sub", "tenant", "scope", "iat", "exp"]
        # Times are checked below, against the injected clock.
        options: Any = {"require": required, "verify_exp": False, "verify_iat": False}
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], audience=self._audience, issuer=ISSUER, options=options
            )
        except jwt.InvalidAudienceError as exc:
            raise Unauthenticated(
                f"this token was minted for another service than {self._audience!r}", reason="TOKEN_WRONG_AUDIENCE"
            ) from exc
        except (jwt.PyJWTError, ValueError) as exc:
            raise Unauthenticated("this token does not verify", reason="TOKEN_INVALID") from exc
        return claims

    def _check_times(self, claims: dict[str, Any], now_s: float) -> None:
        issued, expires = claims["iat"], claims["exp"]
        if not isinstance(issued, int) or not isinstance(expires, int) or expires - issued > LIFETIME_S:
            raise Unauthenticated(f"a token lives at most {LIFETIME_S} s", reason="TOKEN_INVALID")
        if now_s > expires + LEEWAY_S:
            raise Unauthenticated("this token has expired; call again with a fresh one", reason="TOKEN_EXPIRED")
        if now_s < issued - LEEWAY_S:
            raise Unauthenticated("this token is from the future; set the clocks", reason="TOKEN_INVALID")
