import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from livekit.plugins import convex

NOW = 1_795_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def key() -> convex.AgentKey:
    return convex.AgentKey.generate(issuer="https://issuer.example")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def token(key: convex.AgentKey, clock: Clock) -> convex.AgentToken:
    return convex.AgentToken(key, subject="student:k57", student_id="k57", clock=clock)


def public_jwk(key: convex.AgentKey) -> dict[str, str]:
    head, _, encoded = key.jwks_data_uri().partition(",")
    assert head == "data:text/plain;charset=utf-8;base64"
    public: dict[str, str] = json.loads(base64.b64decode(encoded))["keys"][0]
    return public


def claims(key: convex.AgentKey, value: str) -> dict[str, Any]:
    """Verified as a deployment would: by the key set alone."""
    return jwt.decode(
        value,
        jwt.PyJWK(public_jwk(key)).key,
        algorithms=["ES256"],
        audience="convex",
        options={"verify_exp": False, "verify_iat": False},
    )


def pem_of(
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    encryption: serialization.KeySerializationEncryption | None = None,
) -> str:
    return private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    ).decode()


def test_token_says_who_is_calling_for_whom(key: convex.AgentKey, token: convex.AgentToken) -> None:
    value = token.value()

    assert jwt.get_unverified_header(value) == {"alg": "ES256", "kid": key.key_id, "typ": "JWT"}
    assert claims(key, value) == {
        "iss": "https://issuer.example",
        "aud": "convex",
        "sub": "student:k57",
        "iat": int(NOW),
        "exp": int(NOW) + 600,
        "role": "agent",
        "student_id": "k57",
    }


def test_guest_has_no_student_claim(key: convex.AgentKey) -> None:
    value = convex.AgentToken(key, subject="guest:s1").value()

    assert "student_id" not in claims(key, value)


def test_key_set_has_the_thumbprint_as_kid_and_nothing_private(key: convex.AgentKey) -> None:
    public = public_jwk(key)

    members = {name: public[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=")
    assert public == {**members, "alg": "ES256", "use": "sig", "kid": thumbprint.decode()}


def test_token_is_kept_until_80_percent_of_its_life(token: convex.AgentToken, clock: Clock) -> None:
    first = token.value()

    clock.now += 479
    assert token.value() == first
    assert token.renew_in_s() == pytest.approx(1)

    clock.now += 2
    assert token.value() != first
    assert token.renew_in_s() == pytest.approx(480)


def test_clock_set_back_does_not_keep_an_old_token(token: convex.AgentToken, clock: Clock) -> None:
    first = token.value()

    clock.now -= 86_400

    assert token.value() != first


def test_refused_token_is_made_anew(token: convex.AgentToken) -> None:
    first = token.value()

    token.invalidate()

    assert token.renew_in_s() == 0
    assert token.value() != first


@pytest.mark.parametrize("error_s", [30.0, -30.0, 86_400.0])
def test_wrong_clock_is_corrected_by_the_servers(
    key: convex.AgentKey, token: convex.AgentToken, clock: Clock, error_s: float
) -> None:
    token.value()

    token.learn_clock(clock.now + error_s)

    assert claims(key, token.value())["iat"] == int(NOW + error_s)


@pytest.mark.parametrize("error_s", [1.9, -1.9])
def test_two_seconds_off_is_the_networks_jitter(
    token: convex.AgentToken, clock: Clock, error_s: float
) -> None:
    first = token.value()

    token.learn_clock(clock.now + error_s)

    assert token.value() == first


def test_repaired_clock_ends_the_correction(
    key: convex.AgentKey, token: convex.AgentToken, clock: Clock
) -> None:
    token.learn_clock(clock.now + 100)

    clock.now += 100
    token.learn_clock(clock.now + 1.5)

    assert claims(key, token.value())["iat"] == int(NOW + 100)


def test_key_survives_its_pem(key: convex.AgentKey) -> None:
    again = convex.AgentKey.from_pem(key.pem(), issuer=key.issuer)

    assert again.key_id == key.key_id


@pytest.mark.parametrize("escaped", [False, True])
def test_key_from_the_variable_itself(key: convex.AgentKey, escaped: bool) -> None:
    text = key.pem().replace("\n", "\\n") if escaped else key.pem()

    found = convex.AgentKey.from_env({"CONVEX_AGENT_KEY": text, "CONVEX_AGENT_ISSUER": "https://x"})

    assert (found.key_id, found.issuer) == (key.key_id, "https://x")


def test_key_from_a_file(key: convex.AgentKey, tmp_path: Path) -> None:
    path = tmp_path / "agent.pem"
    path.write_text(key.pem())

    found = convex.AgentKey.from_env({"CONVEX_AGENT_KEY": str(path)})

    assert (found.key_id, found.issuer) == (key.key_id, "https://emma.invalid/agent")


def foreign_keys() -> dict[str, str]:
    wrong_curve = ec.generate_private_key(ec.SECP384R1())
    p256 = ec.generate_private_key(ec.SECP256R1())
    public = p256.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    secret = serialization.BestAvailableEncryption(b"secret")
    return {
        "secp384r1": pem_of(wrong_curve),
        "RSA": pem_of(rsa.generate_private_key(65537, 2048)),
        "a public key": public.decode(),
        "encrypted": pem_of(p256, encryption=secret),
        "no key that can be read": pem_of(p256)[:80],
        "neither PEM text": "bm90IGEga2V5",
        "not set": "  ",
    }


@pytest.mark.parametrize(
    ("fault", "value"), [pytest.param(*each, id=each[0]) for each in foreign_keys().items()]
)
def test_wrong_key_is_named_with_its_fault_and_never_shown(fault: str, value: str) -> None:
    with pytest.raises(convex.ConfigurationError) as caught:
        convex.AgentKey.from_env({"CONVEX_AGENT_KEY": value})

    text = str(caught.value)
    assert fault in text
    assert text.startswith("CONVEX_AGENT_KEY ")
    assert "AgentKey.generate()" in text or "openssl" in text
    for line in filter(str.strip, value.splitlines()):
        assert line not in text
    # A cause would be printed along with the traceback.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_key_is_not_shown_by_repr(key: convex.AgentKey, token: convex.AgentToken) -> None:
    assert "PRIVATE" not in repr(key)
    assert repr(token) == f"AgentToken(subject='student:k57', key={key!r})"


def test_token_needs_a_subject(key: convex.AgentKey) -> None:
    with pytest.raises(convex.ConfigurationError, match="subject"):
        convex.AgentToken(key, subject="")
