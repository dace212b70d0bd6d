"""Tokens and JWTs, verified without a server: what is accepted, what is refused and why."""

import base64
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import InvalidRequest, Unauthenticated
from servicekit.rpc.auth import Authenticator, JwtTrust
from servicekit.rpc.caller import Caller, current_caller
from servicekit.rpc.keyfiles import (
    ensure_hmac_key,
    ensure_token_keys,
    load_private_key,
    load_public_key,
    read_hmac_keys,
)
from servicekit.rpc.tokens import TokenMinter, TokenVerifier
from servicekit.testing.clocks import FakeClock

CALLER = Caller("acme", "key_1", frozenset({"search", "answer"}))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    """The gateway's signing key."""
    return Ed25519PrivateKey.generate()


def test_token_says_who_calls(key: Ed25519PrivateKey) -> None:
    """What is minted for a caller verifies as that caller, for its audience alone."""
    clock = FakeClock()
    minter = TokenMinter(key, clock=clock)
    token = minter.mint(CALLER, audience="retriever")
    assert TokenVerifier(key.public_key(), audience="retriever", clock=clock).verify(token) == CALLER
    with pytest.raises(Unauthenticated) as caught:
        TokenVerifier(key.public_key(), audience="generator", clock=clock).verify(token)
    assert caught.value.reason == "TOKEN_WRONG_AUDIENCE"


def test_token_expires(key: Ed25519PrivateKey) -> None:
    """After its minute and a small leeway a token is refused, also one that had been accepted before."""
    clock = FakeClock()
    token = TokenMinter(key, clock=clock).mint(CALLER, audience="retriever")
    verifier = TokenVerifier(key.public_key(), audience="retriever", clock=clock)
    verifier.verify(token)
    clock.advance(64)
    verifier.verify(token)
    clock.advance(2)
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(token)
    assert caught.value.reason == "TOKEN_EXPIRED"


def test_token_is_reused_for_half_its_life(key: Ed25519PrivateKey) -> None:
    """The same caller, scopes and audience get the same token for 30 s, anyone else another."""
    clock = FakeClock()
    minter = TokenMinter(key, clock=clock)
    token = minter.mint(CALLER, audience="retriever")
    clock.advance(29)
    assert minter.mint(CALLER, audience="retriever") == token
    others = [
        minter.mint(CALLER, audience="generator"),
        minter.mint(CALLER, audience="retriever", scopes=frozenset({"search"})),
        minter.mint(Caller("globex", "key_1", CALLER.scopes), audience="retriever"),
    ]
    clock.advance(2)
    assert len({token, *others, minter.mint(CALLER, audience="retriever")}) == 5


@pytest.mark.parametrize(
    "change",
    [{"exp": 4_000_000_000}, {"iat": 1_900_000_000}, {"tenant": None}, {"iss": "someone"}, {"aud": None}, {"exp": "x"}],
)
def test_token_with_odd_claims_is_refused(key: Ed25519PrivateKey, change: dict[str, Any]) -> None:
    """Even with the right signature: too long a life, times in the future, claims missing or foreign."""
    clock = FakeClock()
    issued = int(clock.now().timestamp())
    claims = {
        "iss": "binnacle-gateway", "aud": "retriever", "sub": "key_1", "tenant": "acme", "scope": "search",
        "iat": issued, "exp": issued + 60,
    } | change  # fmt: skip
    token = jwt.encode({k: v for k, v in claims.items() if v is not None}, key, algorithm="EdDSA")
    with pytest.raises(Unauthenticated):
        TokenVerifier(key.public_key(), audience="retriever", clock=clock).verify(token)


def test_unsigned_token_is_refused(key: Ed25519PrivateKey) -> None:
    """The algorithm is ours to choose, not the token's."""
    token = jwt.encode({"iss": "binnacle-gateway", "aud": "retriever"}, None, algorithm="none")
    with pytest.raises(Unauthenticated):
        TokenVerifier(key.public_key(), audience="retriever").verify(token)


def test_key_files_are_made_once(tmp_path: Path) -> None:
    """The supervisor's first start makes them, the next one finds them; the public key belongs to the private one."""
    private, public, hmac = (tmp_path / name for name in ("private.pem", "public.pem", "ids.key"))
    for _ in range(2):
        ensure_token_keys(private, public)
        ensure_hmac_key(hmac)
    made = (private.read_bytes(), hmac.read_bytes())
    ensure_token_keys(private, public)
    assert (private.read_bytes(), hmac.read_bytes()) == made
    minted = TokenMinter(load_private_key(private)).mint(CALLER, audience="x")
    assert TokenVerifier(load_public_key(public), audience="x").verify(minted) == CALLER
    assert [len(one) for one in read_hmac_keys(hmac)] == [32]


@pytest.mark.parametrize("content", [None, b"", b"not a key\n", b"# nothing\n"])
def test_unusable_key_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    """A missing or foreign key file is an error that names the file."""
    file = tmp_path / "some.key"
    if content is not None:
        file.write_bytes(content)
    for load in (read_hmac_keys, load_private_key, load_public_key):
        with pytest.raises(InvalidRequest, match=r"some\.key"):
            load(file)


class Issuer:
    """An outside issuer of JWTs."""

    def __init__(self, folder: Path, *, jwks: bool) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.kid = "k1" if jwks else None
        public = self.key.public_key()
        if jwks:
            document = jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True) | {"kid": "k1", "alg": "EdDSA"}
            file = folder / "jwks.json"
            file.write_text(json.dumps({"keys": [document]}))
        else:
            file = folder / "issuer.pem"
            file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        files = {"jwks_file" if jwks else "public_key_file": file}
        self.trust = JwtTrust(issuer="https://id.example", audience="binnacle", tenant_claim="org", **files)

    def token(self, **change: Any) -> str:
        """A signed JWT, its claims changed as told; None leaves one out."""
        claims = {
            "iss": "https://id.example", "aud": "binnacle", "sub": "user-1", "org": "acme",
            "scope": "answer feedback openid", "exp": 4_000_000_000,
        } | change  # fmt: skip
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.key, algorithm="EdDSA", headers={"kid": self.kid} if self.kid else None)


@pytest.mark.parametrize("jwks", [True, False])
def test_jwt_of_the_trusted_issuer_is_accepted(tmp_path: Path, *, jwks: bool) -> None:
    """Tenant, subject and the scopes known here come from the claims."""
    issuer = Issuer(tmp_path, jwks=jwks)
    authenticator = Authenticator(audience="gateway", jwt_trust=issuer.trust)
    caller = authenticator.authenticate([("authorization", f"Bearer {issuer.token()}")])
    assert caller == Caller("acme", "user-1", frozenset({"answer", "feedback"}))
    assert authenticator.accepts == ("jwt",)
    listed = authenticator.authenticate_credential(issuer.token(scope=["answer"]))
    assert listed.scopes == {"answer"}


@pytest.mark.parametrize(
    "change",
    [{"exp": 1}, {"iss": "https://else.example"}, {"aud": "other"}, {"org": None}, {"org": "../up"}, {"sub": None}],
)
def test_jwt_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Expired, foreign, without or with an unusable tenant: refused."""
    issuer = Issuer(tmp_path, jwks=True)
    with pytest.raises(Unauthenticated):
        Authenticator(audience="gateway", jwt_trust=issuer.trust).authenticate_credential(issuer.token(**change))


def test_jwt_trust_needs_exactly_one_key_source() -> None:
    """An issuer without a key file, or with two, is a mistake in the settings."""
    with pytest.raises(InvalidRequest, match="jwt_public_key_file or jwt_jwks_file"):
        Authenticator(audience="gateway", jwt_trust=JwtTrust(issuer="i", audience="a"))


def test_nothing_configured_accepts_nothing() -> None:
    """Without any trust every credential is refused."""
    authenticator = Authenticator(audience="gateway")
    assert authenticator.accepts == ()
    for credential in ("bk_x", "a.b.c", TokenMinter(Ed25519PrivateKey.generate()).mint(CALLER, audience="gateway")):
        with pytest.raises(Unauthenticated):
            authenticator.authenticate_credential(credential)


def _segment(content: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


_VALUES = st.one_of(
    st.text(max_size=40),
    st.binary(max_size=40),
    st.text(max_size=40).map("Bearer {}".format),
    st.builds(
        lambda header, claims: f"Bearer {_segment(header)}.{_segment(claims)}.AAAA",
        st.sampled_from(
            [{"alg": "EdDSA"}, {"alg": "none"}, {"alg": "HS256"}, [], {"alg": 1}, {"alg": "EdDSA", "kid": {}}]
        ),
        st.sampled_from([{"iss": "binnacle-gateway"}, {"iss": "https://id.example", "scope": 7}, {"iss": []}, [], 3]),
    ),
    st.just("Bearer e30." + base64.urlsafe_b64encode(b"[" * 6000).decode() + ".AAAA"),
)


@given(st.lists(st.tuples(st.sampled_from(["authorization", "x-api-key", "other"]), _VALUES), max_size=3))
def test_any_metadata_is_refused_properly(metadata: list[tuple[str, Any]]) -> None:
    """Whatever stands in the metadata, without a genuine credential the answer is UNAUTHENTICATED."""
    with pytest.raises(Unauthenticated):
        _everything_on().authenticate(metadata)


@cache
def _everything_on() -> Authenticator:
    """An authenticator that accepts all three kinds, and knows no key."""
    folder = Path(tempfile.mkdtemp())
    ensure_token_keys(folder / "private.pem", folder / "public.pem")
    return Authenticator(
        audience="gateway",
        api_keys_file=folder / "keys.json",
        token_public_key_file=folder / "public.pem",
        jwt_trust=Issuer(folder, jwks=True).trust,
    )


def test_no_caller_outside_of_a_call() -> None:
    """Code that runs for nobody cannot get a tenant by accident."""
    with pytest.raises(Unauthenticated):
        current_caller()
