"""Session tokens and JWTs against the interoperability vectors and the rules stated a second time."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.auth import base64url
from aero_l2.auth.jwt import JwtClaims, mint_jwt, verify_jwt
from aero_l2.auth.session_token import SessionClaims, mint_session_token, verify_session_token
from aero_l2.auth.signed import InvalidToken

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "auth-tokens.json").read_text("utf-8")
)
SESSION_VECTORS = VECTORS["sessionTokens"]["vectors"]
JWT_VECTORS = VECTORS["jwtTokens"]["vectors"]
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
KEY = b"k"  # short on purpose: no library may warn about it, or know better
OTHER_KEY = b"another"
NOW = 1_700_000_000
SESSION = mint_session_token(SessionClaims("sid", NOW + 60), KEY)
JWT = mint_jwt(JwtClaims(NOW, NOW + 60, "sid", "https://a.example", "aud", "iss", NOW), KEY)

Verifier = Callable[[str, Sequence[bytes], float], object]
BOTH_KINDS = pytest.mark.parametrize(
    ("verify", "token"), [(verify_session_token, SESSION), (verify_jwt, JWT)], ids=["session", "jwt"]
)


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def is_accepted(verify: Verifier, token: str, keys: Sequence[bytes] = (KEY,), now: float = NOW) -> bool:
    try:
        verify(token, keys, now)
    except InvalidToken:
        return False
    return True


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def signed(*parts: bytes | str, key: bytes = KEY) -> str:
    """A token of these parts with a good signature, whatever the parts are; text is taken as encoded."""
    message = ".".join(part if isinstance(part, str) else encoded(part) for part in parts)
    return f"{message}.{encoded(hmac.new(key, message.encode(), hashlib.sha256).digest())}"


# --- The vectors -------------------------------------------------------------------------------------------


def test_vectors_are_all_there() -> None:
    assert [len(SESSION_VECTORS), len(JWT_VECTORS)] == [25, 44]
    assert sum("expectError" not in vector for vector in SESSION_VECTORS) == 2
    assert sum("expectError" not in vector for vector in JWT_VECTORS) == 5


@pytest.mark.parametrize("vector", SESSION_VECTORS, ids=named)
def test_session_vector_verifies_or_is_refused(vector: dict[str, Any]) -> None:
    keys, now = (vector["secret"].encode(),), vector["nowMs"] / 1000
    if vector.get("expectError"):
        assert not is_accepted(verify_session_token, vector["token"], keys, now)
    else:
        claims = verify_session_token(vector["token"], keys, now)
        assert (claims.sid, claims.exp) == (vector["sid"], vector["exp"])


@pytest.mark.parametrize("vector", JWT_VECTORS, ids=named)
def test_jwt_vector_verifies_or_is_refused(vector: dict[str, Any]) -> None:
    keys, now = (vector["secret"].encode(),), vector["nowSec"]
    if vector.get("expectError"):
        assert not is_accepted(verify_jwt, vector["token"], keys, now)
    else:
        claims = verify_jwt(vector["token"], keys, now)
        found = {name: getattr(claims, name) for name in ("sid", "exp", "iat", "origin", "aud", "iss")}
        assert found == {name: vector.get(name) for name in found}


def test_minting_makes_the_valid_vectors() -> None:
    session, jwt = SESSION_VECTORS[0], JWT_VECTORS[0]
    made = mint_session_token(SessionClaims(session["sid"], session["exp"]), session["secret"].encode())
    assert made == session["token"]
    names = ("sid", "exp", "iat", "origin", "aud", "iss")
    claims = JwtClaims(**{name: jwt[name] for name in names})
    assert mint_jwt(claims, jwt["secret"].encode()) == jwt["token"]


# --- Signatures --------------------------------------------------------------------------------------------


@BOTH_KINDS
def test_no_change_of_one_character_verifies(verify: Verifier, token: str) -> None:
    assert is_accepted(verify, token)
    for place, old in enumerate(token):
        for new in ALPHABET + ".=+/ é\0":
            assert new == old or not is_accepted(verify, token[:place] + new + token[place + 1 :])
        assert not is_accepted(verify, token[:place] + token[place + 1 :])
        assert not is_accepted(verify, f"{token[:place]}A{token[place:]}")


@BOTH_KINDS
def test_only_the_keys_given_verify(verify: Verifier, token: str) -> None:
    assert not is_accepted(verify, token, ())
    assert not is_accepted(verify, token, (OTHER_KEY,))
    assert is_accepted(verify, token, (OTHER_KEY, KEY))
    assert is_accepted(verify, token, (KEY, OTHER_KEY))


def test_one_kind_is_not_the_other() -> None:
    assert not is_accepted(verify_session_token, JWT)
    assert not is_accepted(verify_jwt, SESSION)


def test_json_is_not_read_before_the_signature_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(json, "loads", read)
    assert not is_accepted(verify_session_token, SESSION, (OTHER_KEY,))
    assert not is_accepted(verify_jwt, JWT, (OTHER_KEY,))
    with pytest.raises(AssertionError, match="read"):
        verify_jwt(JWT, (KEY,), NOW)


def test_short_keys_are_no_reason_to_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_accepted(verify_jwt, mint_jwt(JwtClaims(NOW, NOW + 1, "sid"), KEY))


@pytest.mark.parametrize("key", [b'{"kty":"oct","k":"AA"}', b"-----BEGIN PUBLIC KEY-----\nAAAA\n", b"\0\xff"])
def test_any_bytes_are_a_key(key: bytes) -> None:
    assert is_accepted(verify_jwt, mint_jwt(JwtClaims(NOW, NOW + 1, "sid"), key), (key,))


@given(st.text() | st.text(ALPHABET + "."), st.sampled_from([verify_session_token, verify_jwt]))
def test_any_text_is_refused_and_nothing_else_happens(text: str, verify: Verifier) -> None:
    assert not is_accepted(verify, text)


@given(st.lists(st.binary() | st.text(), max_size=4), st.sampled_from([verify_session_token, verify_jwt]))
def test_any_signed_bytes_are_refused_and_nothing_else_happens(
    parts: list[bytes | str], verify: Verifier
) -> None:
    assert not is_accepted(verify, signed(*parts))


# --- base64url ---------------------------------------------------------------------------------------------


def bits_by_hand(text: str) -> bytes | None:
    """The rule stated a second time: six bits a character; what is left over is zero and less than one."""
    if not set(text) <= set(ALPHABET):
        return None
    bits = "".join(f"{ALPHABET.index(character):06b}" for character in text)
    whole = len(bits) // 8 * 8
    if len(bits) - whole >= 6 or "1" in bits[whole:]:
        return None
    return bytes(int(bits[start : start + 8], 2) for start in range(0, whole, 8))


@given(st.text(ALPHABET, max_size=12) | st.text(ALPHABET + "=+/ \n\u0663é", max_size=12))
def test_base64url_is_read_as_the_rule_says(text: str) -> None:
    try:
        found: bytes | None = base64url.decode(text)
    except base64url.NotBase64url:
        found = None
    assert found == bits_by_hand(text)


@given(st.binary())
def test_base64url_round_trips(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data)) == data


# --- Lengths -----------------------------------------------------------------------------------------------


def padded(members: bytes, chars: int) -> bytes:
    """A JSON object that is `chars` long when encoded."""
    size = chars * 3 // 4
    return b"{" + members + b" " * (size - len(members) - 2) + b"}"


def test_payloads_up_to_16_kib_verify() -> None:
    session = b'"v":1,"sid":"s","exp":1700000001'
    assert is_accepted(verify_session_token, signed(padded(session, 16384)))
    assert not is_accepted(verify_session_token, signed(padded(session, 16386)))
    header, jwt = b'{"alg":"HS256"}', b'"iat":1,"sid":"s","exp":1700000001'
    assert is_accepted(verify_jwt, signed(header, padded(jwt, 16384)))
    assert not is_accepted(verify_jwt, signed(header, padded(jwt, 16386)))


def test_jwt_headers_up_to_4_kib_verify() -> None:
    payload = b'{"iat":1,"sid":"s","exp":1700000001}'
    assert is_accepted(verify_jwt, signed(padded(b'"alg":"HS256"', 4096), payload))
    assert not is_accepted(verify_jwt, signed(padded(b'"alg":"HS256"', 4098), payload))


# --- JSON, fragment by fragment: beside each is whether a token with it is good ----------------------------

NUMBERS = {
    "1700000001": True,
    "1700000000": False,
    "9223372036854775807": True,
    "9223372036854775808": False,
    "1" + "0" * 5000: False,
    "-1": False,
    "-9223372036854775809": False,
    "true": False,
    "null": False,
    '"1700000001"': False,
    "[1700000001]": False,
    "NaN": False,
    "Infinity": False,
    "1e400": False,
    "01700000001": False,
    "+1700000001": False,
    "1_700_000_001": False,
    "0x7fffffff": False,
    "": False,
}
WITH_FRACTIONS = {
    "1700000001.0": True,
    "1700000000.5": True,
    "1700000000.0": False,
    "17.00000001e8": True,
    "1e18": True,
    "9223372036854774784.0": True,
    "9223372036854775808.0": False,
    "1e300": False,
    "-1e300": False,
}
STRINGS = {
    '"s"': True,
    '"\\u0041"': True,
    '"é"': True,
    '"\\ud83d\\ude00"': True,
    '"\\ud83d"': False,
    '"\\ude00\\ud83d"': False,
    '"a\nb"': False,
    '"a\\nb"': True,
    "null": False,
    "1": False,
    "true": False,
    '["s"]': False,
    "{}": False,
    "'s'": False,
}
SID = {**STRINGS, '""': False, '" "': True}
VERSION = {
    "1": True,
    "1.0": True,
    "1e0": True,
    "10e-1": True,
    "true": False,
    "2": False,
    "1.5": False,
    "0": False,
    "-1": False,
    '"1"': False,
    "null": False,
    "[1]": False,
    "NaN": False,
}
INTEGERS = {**NUMBERS, **dict.fromkeys(WITH_FRACTIONS, False)}
ANY_INTEGER = {**INTEGERS, "1700000000": True, "-1": True, "0": True, "-9223372036854775808": True}
PAST_INTEGER = {
    **ANY_INTEGER,
    "1700000001": False,
    "9223372036854775807": False,
    "1699999999": True,
}
SESSION_CLAIMS = {"v": VERSION, "sid": SID, "exp": {**NUMBERS, **WITH_FRACTIONS}}
JWT_CLAIMS = {
    "iat": ANY_INTEGER,
    "exp": INTEGERS,
    "sid": SID,
    "nbf": PAST_INTEGER,
    "origin": {**STRINGS, '""': True},
    "aud": {**STRINGS, '""': True},
    "iss": {**STRINGS, '""': True},
}
JWT_HEADER = {
    "alg": {
        '"HS256"': True,
        '"\\u0048S256"': True,
        '"hs256"': False,
        '"none"': False,
        '"HS512"': False,
        '"RS256"': False,
        "null": False,
        '["HS256"]': False,
        '"HS256 "': False,
    },
    "typ": {**STRINGS, '""': True, '"at+jwt"': True},
    "crit": {"[]": False, '["exp"]': False, "null": False},
}
GOOD_SESSION = {"v": "1", "sid": '"s"', "exp": "1700000001"}
GOOD_JWT = {"iat": "1700000000", "exp": "1700000001", "sid": '"s"'}
GOOD_HEADER = {"alg": '"HS256"'}

Table = dict[str, dict[str, bool]]


def written(members: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


def session_of(members: dict[str, str]) -> str:
    return signed(written(members))


def jwt_of(header: dict[str, str], payload: dict[str, str]) -> str:
    return signed(written(header), written(payload))


def cases(table: Table) -> list[tuple[str, str, bool]]:
    return [(name, text, good) for name, row in table.items() for text, good in row.items()]


def short(value: object) -> str | None:
    return value[:30].encode("unicode_escape").decode() if isinstance(value, str) else None


@pytest.mark.parametrize(("name", "text", "good"), cases(SESSION_CLAIMS), ids=short)
def test_session_claim_is_read_strictly(name: str, text: str, good: bool) -> None:
    assert is_accepted(verify_session_token, session_of({**GOOD_SESSION, name: text})) is good


@pytest.mark.parametrize(("name", "text", "good"), cases(JWT_CLAIMS), ids=short)
def test_jwt_claim_is_read_strictly(name: str, text: str, good: bool) -> None:
    assert is_accepted(verify_jwt, jwt_of(GOOD_HEADER, {**GOOD_JWT, name: text})) is good


@pytest.mark.parametrize(("name", "text", "good"), cases(JWT_HEADER), ids=short)
def test_jwt_header_is_read_strictly(name: str, text: str, good: bool) -> None:
    assert is_accepted(verify_jwt, jwt_of({**GOOD_HEADER, name: text}, GOOD_JWT)) is good


def without(members: dict[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in members.items() if other != name}


def test_every_needed_claim_is_needed() -> None:
    for name in GOOD_SESSION:
        assert not is_accepted(verify_session_token, session_of(without(GOOD_SESSION, name)))
    for name in GOOD_JWT:
        assert not is_accepted(verify_jwt, jwt_of(GOOD_HEADER, without(GOOD_JWT, name)))
    assert not is_accepted(verify_jwt, jwt_of({}, GOOD_JWT))


PLAIN = b'{"v":1,"sid":"s","exp":1700000001,"iat":1}'
ODD_TEXTS = {
    PLAIN: True,
    b" \n" + PLAIN + b"\t\r\n": True,
    PLAIN[:-1] + b',"x":[null,{"y":1.5}]}': True,
    PLAIN[:-1] + b',"sid":"t"}': False,
    PLAIN[:-1] + b',"\\u0073id":"s"}': False,
    PLAIN[:-1] + b',"x":{"y":1,"y":1}}': False,
    PLAIN[:-1] + b',"x":NaN}': False,
    PLAIN[:-1] + b',"x":[1e999]}': False,
    PLAIN[:-1] + b',"x":["\\udc00"]}': False,
    PLAIN[:-1] + b',"\\ud800":1}': False,
    PLAIN[:-1] + b',"x":"\xff"}': False,
    PLAIN[:-1] + b',"x":"\xed\xa0\x80"}': False,
    PLAIN[:-1] + b',"x":"\xc0\x80"}': False,
    PLAIN[:-1] + b',"x":' + b"[" * 6000 + b"]" * 6000 + b"}": False,
    PLAIN[:-1] + b',"x":' + b"[" * 12000: False,
    PLAIN[:-1] + b',"x":' + b"9" * 12000 + b"}": False,
    PLAIN[:-1] + b",}": False,
    PLAIN + b"{}": False,
    PLAIN + b"\0": False,
    b"\xef\xbb\xbf" + PLAIN: False,
    PLAIN.decode().encode("utf-16"): False,
    PLAIN.decode().encode("utf-16-le"): False,
    PLAIN.decode().encode("utf-32-be"): False,
    b"[" + PLAIN + b"]": False,
    b"null": False,
    b'"s"': False,
    b"1": False,
    b" ": False,
}


@pytest.mark.parametrize(("payload", "good"), ODD_TEXTS.items(), ids=lambda value: repr(value)[-30:])
def test_payload_is_one_json_object_without_ambiguity(payload: bytes, good: bool) -> None:
    assert is_accepted(verify_session_token, signed(payload)) is good
    assert is_accepted(verify_jwt, signed(b'{"alg":"HS256"}', payload)) is good


@pytest.mark.parametrize(
    "header", [text for text, good in ODD_TEXTS.items() if not good and len(text) < 3000]
)
def test_header_is_one_json_object_without_ambiguity(header: bytes) -> None:
    odd = header.replace(b'"v":1', b'"alg":"HS256"')
    assert not is_accepted(verify_jwt, signed(odd, PLAIN))


def chosen(data: st.DataObject, table: Table, needed: dict[str, str]) -> tuple[dict[str, str], bool]:
    """Members, each good or bad or left out, and whether all are as they should be."""
    members, good = {}, True
    for name, row in table.items():
        text = data.draw(st.sampled_from([None, needed.get(name), *row]))
        if text is not None:
            members[name] = text
        good = good and (name not in needed if text is None else row[text])
    return members, good


@given(st.data(), st.sampled_from([KEY, OTHER_KEY]))
def test_session_token_is_accepted_if_and_only_if_everything_is_right(
    data: st.DataObject, key: bytes
) -> None:
    members, good = chosen(data, SESSION_CLAIMS, GOOD_SESSION)
    token = signed(written(members), key=key)
    assert is_accepted(verify_session_token, token) is (good and key == KEY)


@given(st.data(), st.sampled_from([KEY, OTHER_KEY]))
def test_jwt_is_accepted_if_and_only_if_everything_is_right(data: st.DataObject, key: bytes) -> None:
    header, good_header = chosen(data, JWT_HEADER, GOOD_HEADER)
    payload, good_payload = chosen(data, JWT_CLAIMS, GOOD_JWT)
    token = signed(written(header), written(payload), key=key)
    assert is_accepted(verify_jwt, token) is (good_header and good_payload and key == KEY)


# --- Time, audience, issuer --------------------------------------------------------------------------------


@pytest.mark.parametrize(("exp", "now", "good"), [
    (100, 99.999, True), (100, 100, False), (100.5, 100.499, True), (100.5, 100.5, False),
    (0, -1, True), (-1, -1, False), (2**63 - 1, 1.7e9, True),
])  # fmt: skip
def test_session_token_ends_at_its_exp(exp: float, now: float, good: bool) -> None:
    token = mint_session_token(SessionClaims("s", exp), KEY)
    assert is_accepted(verify_session_token, token, (KEY,), now) is good


@pytest.mark.parametrize(("now", "good"), [(9.999, False), (10, True), (19.999, True), (20, False)])
def test_jwt_is_good_from_nbf_until_exp(now: float, good: bool) -> None:
    token = mint_jwt(JwtClaims(0, 20, "s", nbf=10), KEY)
    assert is_accepted(verify_jwt, token, (KEY,), now) is good


@pytest.mark.parametrize("name", ["aud", "iss"])
def test_audience_and_issuer_are_asked_for_where_configured(name: str) -> None:
    setting = {"aud": "audience", "iss": "issuer"}[name]
    for said, wanted, good in [("a", "a", True), ("a", "b", False), (None, "a", False), ("a", None, True),
                               ("", "a", False), ("A", "a", False)]:  # fmt: skip
        token = mint_jwt(JwtClaims(NOW, NOW + 1, "s", **{name: said}), KEY)  # type: ignore[arg-type]

        def verify(token: str, keys: Sequence[bytes], now: float, wanted: str | None = wanted) -> object:
            return verify_jwt(token, keys, now, **{setting: wanted})

        assert is_accepted(verify, token) is good


# --- Minting -----------------------------------------------------------------------------------------------


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
integers = st.integers(NOW + 1, 2**63 - 1)


@given(texts, integers | st.floats(NOW + 1, 2**62), st.binary(min_size=1))
def test_minted_session_token_verifies(sid: str, exp: float, key: bytes) -> None:
    claims = SessionClaims(sid, exp)
    assert verify_session_token(mint_session_token(claims, key), (key,), NOW) == claims


@given(texts, integers, st.none() | texts, st.none() | texts, st.none() | texts, st.binary(min_size=1))
def test_minted_jwt_verifies(
    sid: str, exp: int, origin: str | None, aud: str | None, iss: str | None, key: bytes
) -> None:
    claims = JwtClaims(NOW, exp, sid, origin, aud, iss, NOW)
    assert verify_jwt(mint_jwt(claims, key), (key,), NOW, audience=aud, issuer=iss) == claims


@pytest.mark.parametrize("sid", ["", "\ud800", "s" * 12300, None, 1])
def test_what_does_not_fit_a_token_is_not_minted(sid: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        mint_session_token(SessionClaims(sid, NOW), KEY)
    with pytest.raises(ValueError, match=r"."):
        mint_jwt(JwtClaims(NOW, NOW, sid), KEY)


@pytest.mark.parametrize("exp", [float("nan"), float("inf"), 2**63, -(2**63) - 1, True, "1"])
def test_no_expiry_that_is_none_is_minted(exp: Any) -> None:
    with pytest.raises(InvalidToken):
        SessionClaims("s", exp)
    with pytest.raises(InvalidToken):
        JwtClaims(NOW, exp, "s")


def test_errors_quote_nothing_of_the_token() -> None:
    secret = b'{"v":"canary","alg":"canary"}'
    tokens: list[tuple[Verifier, str]] = [
        (verify_session_token, signed(secret)),
        (verify_jwt, signed(secret, secret)),
        (verify_jwt, signed(b'{"alg":"HS256"}', b'{"canary":1,"sid":"canary","iat":"canary","exp":1}')),
    ]
    for verify, token in tokens:
        with pytest.raises(InvalidToken) as caught:
            verify(token, (KEY,), NOW)
        assert "canary" not in str(caught.value)
