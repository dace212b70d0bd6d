"""Finds out who calls: by API key, by a JWT of a configured issuer, or by a token that the gateway minted.

Used by the RPC server's interceptor and by HTTP entries. Where a call comes from is no credential: loopback neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from servicekit.errors import InvalidRequest, Unauthenticated
from servicekit.ports.clock import Clock
from servicekit.rpc.api_keys import PREFIX, ApiKeyStore
from servicekit.rpc.caller import (
    SCOPES,
    TENANT_RULE,
    Caller,
    acting_as,
    caller_or_none,
    current_caller,
    is_tenant,
    require_scope,
    set_caller,
)
from servicekit.rpc.keyfiles import load_public_key
from servicekit.rpc.tokens import ISSUER, LEEWAY_S, TokenMinter, TokenVerifier

__all__ = [
    "SCOPES",
    "Authenticator",
    "Caller",
    "JwtTrust",
    "TokenMinter",
    "acting_as",
    "caller_or_none",
    "current_caller",
    "require_scope",
    "set_caller",
]

_JWT_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]
_MAX_CREDENTIAL_CHARS = 8192


@dataclass(frozen=True, slots=True)
class JwtTrust:
    """Whose JWTs are accepted: of `issuer`, for `audience`, signed by a key of the PEM or JWKS file.

    `sub` becomes the subject, `tenant_claim` the tenant, `scope` (words in one string, or a list) the scopes.
    """

    issuer: str
    audience: str
    public_key_file: Path | None = None
    jwks_file: Path | None = None
    tenant_claim: str = "tenant"


class Authenticator:
    """Turns the credential of a call's metadata into its caller.

    Args:
        audience: this service's name; tokens minted for another are refused.
        api_keys_file: API keys of direct callers; without it none is accepted.
        token_public_key_file: the gateway's public key; without it no minted token is accepted.
        jwt_trust: an outside issuer, if any.
        clock: time for expiry.
    """

    def __init__(
        self,
        *,
        audience: str,
        api_keys_file: Path | None = None,
        token_public_key_file: Path | None = None,
        jwt_trust: JwtTrust | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._api_keys = ApiKeyStore(api_keys_file, clock=clock) if api_keys_file else None
        self._tokens = (
            TokenVerifier(load_public_key(token_public_key_file), audience=audience, clock=clock)
            if token_public_key_file
            else None
        )
        self._jwt = _JwtVerifier(jwt_trust) if jwt_trust else None

    @property
    def accepts(self) -> tuple[str, ...]:
        """The kinds of credential that can succeed at all; empty: every call is refused."""
        kinds = {"api_key": self._api_keys, "gateway_token": self._tokens, "jwt": self._jwt}
        return tuple(name for name, verifier in kinds.items() if verifier is not None)

    def authenticate(self, metadata: Iterable[tuple[str, Any]]) -> Caller:
        """The caller named by `authorization: Bearer …` or `x-api-key: …` (names in lower case).

        Raises:
            Unauthenticated: no credential, two different ones, or one that does not verify.
        """
        return self.authenticate_credential(_credential(metadata))

    def authenticate_credential(self, credential: str) -> Caller:
        """The caller that a bare API key or token stands for.

        Raises:
            Unauthenticated: the credential does not verify.
        """
        recalled = self._tokens.recall(credential) if self._tokens else None
        if recalled is not None:
            return recalled
        if credential.startswith(PREFIX):
            if self._api_keys is None:
                raise Unauthenticated("API keys are not accepted here", reason="API_KEY_NOT_ACCEPTED")
            return self._api_keys.authenticate(credential)
        if _unverified_issuer(credential) == ISSUER:
            if self._tokens is None:
                raise Unauthenticated("gateway tokens are not accepted here", reason="TOKEN_NOT_ACCEPTED")
            return self._tokens.verify(credential)
        if self._jwt is None:
            raise Unauthenticated(f"the credential is no API key ({PREFIX}…)", reason="CREDENTIAL_UNKNOWN")
        return self._jwt.verify(credential)


def _credential(metadata: Iterable[tuple[str, Any]]) -> str:
    found: set[str] = set()
    for name, value in metadata:
        if name not in ("authorization", "x-api-key"):
            continue
        text = value if isinstance(value, str) else ""
        if name == "authorization":
            scheme, _, text = text.partition(" ")
            text = text.strip() if scheme.lower() == "bearer" else ""
        if not text or len(text) > _MAX_CREDENTIAL_CHARS:
            raise Unauthenticated(
                f"{name} must be {'`Bearer <key or token>`' if name == 'authorization' else 'an API key'}",
                reason="CREDENTIAL_MALFORMED",
            )
        found.add(text)
    if not found:
        raise Unauthenticated(
            "no credential: send `authorization: Bearer <API key>` or `x-api-key: <API key>`",
            reason="CREDENTIAL_MISSING",
        )
    if len(found) > 1:
        raise Unauthenticated("two different credentials; send one", reason="CREDENTIAL_AMBIGUOUS")
    return found.pop()


def _unverified_issuer(credential: str) -> str:
    """Who the token says issued it: chooses the verifier, proves nothing."""
    try:
        claims: dict[str, Any] = jwt.decode(credential, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return ""
    return str(claims.get("iss", ""))


class _JwtVerifier:
    def __init__(self, trust: JwtTrust) -> None:
        self._trust = trust
        self._keys = _load_keys(trust)

    def verify(self, token: str) -> Caller:
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key_for(token),
                algorithms=_JWT_ALGORITHMS,
                issuer=self._trust.issuer,
                audience=self._trust.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub", self._trust.tenant_claim]},
            )
        except jwt.ExpiredSignatureError as exc:
            raise Unauthenticated("this JWT has expired", reason="JWT_EXPIRED") from exc
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as exc:
            raise Unauthenticated("this JWT does not verify", reason="JWT_INVALID") from exc
        scopes = claims.get("scope")
        words = scopes.split() if isinstance(scopes, str) else scopes if isinstance(scopes, list) else []
        tenant = str(claims[self._trust.tenant_claim])
        if not is_tenant(tenant):
            raise Unauthenticated(f"{self._trust.tenant_claim} must be {TENANT_RULE}", reason="JWT_INVALID")
        return Caller(
            tenant=tenant,
            subject=str(claims["sub"]),
            scopes=frozenset(str(word) for word in words) & SCOPES,
        )

    def _key_for(self, token: str) -> Any:
        kid = jwt.get_unverified_header(token).get("kid")
        if len(self._keys) == 1 and (kid is None or None in self._keys):
            return next(iter(self._keys.values()))
        if kid not in self._keys:
            raise Unauthenticated("this JWT names a key that is not known here", reason="JWT_KEY_UNKNOWN")
        return self._keys[kid]


def _load_keys(trust: JwtTrust) -> dict[str | None, Any]:
    if (trust.public_key_file is None) == (trust.jwks_file is None):
        raise InvalidRequest("a JWT issuer needs either jwt_public_key_file or jwt_jwks_file", field="jwt_issuer")
    file = trust.public_key_file or trust.jwks_file
    assert file is not None
    try:
        if trust.public_key_file is not None:
            from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415  # only when configured
                load_pem_public_key,
            )

            return {None: load_pem_public_key(file.read_bytes())}
        return {key.key_id: key.key for key in jwt.PyJWKSet.from_json(file.read_text(encoding="utf-8")).keys}
    except (OSError, ValueError, jwt.PyJWTError) as exc:
        raise InvalidRequest(f"{file} holds no usable public key", field=str(file)) from exc
