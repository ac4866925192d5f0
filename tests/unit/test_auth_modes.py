"""Every mode with every combination of credentials: who is let in, and what the others are told."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.auth.credentials import Credentials
from aero_l2.auth.jwt import JwtClaims, mint_jwt
from aero_l2.auth.keys import Keys, random_key
from aero_l2.auth.modes import Admitted, AuthMode, AuthRules, Rejected, judge, parse_mode
from aero_l2.auth.session_token import SessionClaims, mint_session_token

NOW: Final = 1_700_000_000
HOME: Final = "https://app.example"
SESSION: Final = Keys(b"session secret", (b"former session secret",))
API_KEY: Final = Keys(b"the key", (b"the former key",))
JWT: Final = Keys(b"jwt secret", (b"former jwt secret",))


def cookie_by(key: bytes, exp: float = NOW + 60) -> str:
    return mint_session_token(SessionClaims("cookie's", exp), key)


def jwt_by(key: bytes, origin: str | None = None, exp: int = NOW + 50) -> str:
    return mint_jwt(JwtClaims(NOW, exp, "jwt's", origin), key)


COOKIES: Final = {
    "none": None,
    "good": cookie_by(b"session secret"),
    "bad": cookie_by(b"session secret", NOW),
}
API_KEYS: Final = {"none": None, "good": "the key", "bad": "another key"}
JWTS: Final = {
    "none": None,
    "good": jwt_by(b"jwt secret", HOME + "/"),
    "bad": jwt_by(b"jwt secret", exp=NOW),
    "elsewhere": jwt_by(b"jwt secret", "https://other.example"),
}
BY_COOKIE: Final = Admitted("cookie's", NOW + 60)
BY_KEY: Final = Admitted(None, None)
BY_JWT: Final = Admitted("jwt's", NOW + 50)

NO_TOKEN: Final = ("invalid token", "missing_credentials")
BAD_TOKEN: Final = ("invalid token", "invalid_api_key")
NO_SESSION: Final = ("missing or expired session", "missing_credentials")
BAD_SESSION: Final = ("missing or expired session", "invalid_cookie")
NO_JWT: Final = ("invalid jwt", "missing_credentials")
BAD_JWT: Final = ("invalid jwt", "invalid_jwt")
OTHER_ORIGIN: Final = ("invalid jwt", "jwt_origin_mismatch")
NOTHING: Final = ("missing or invalid auth", "missing_credentials")
BAD_COOKIE: Final = ("missing or invalid auth", "invalid_cookie")
BAD_KEY: Final = ("missing or invalid auth", "invalid_api_key")

Verdict = Admitted | tuple[str, str]

# One row for each cookie (none, good, bad), one column for each API key (none, good, bad).
BY_COOKIE_AND_KEY: Final[dict[AuthMode, list[list[Verdict]]]] = {
    AuthMode.NONE: [[BY_KEY] * 3] * 3,
    AuthMode.SESSION: [[NO_SESSION] * 3, [BY_COOKIE] * 3, [BAD_SESSION] * 3],
    AuthMode.TOKEN: [[NO_TOKEN, BY_KEY, BAD_TOKEN]] * 3,
    AuthMode.SESSION_OR_TOKEN: [
        [NOTHING, BY_KEY, BAD_KEY],
        [BY_COOKIE, BY_COOKIE, BY_COOKIE],
        [BAD_COOKIE, BY_KEY, BAD_KEY],
    ],
    AuthMode.SESSION_AND_TOKEN: [
        [NOTHING, NOTHING, BAD_KEY],
        [NOTHING, BY_COOKIE, BAD_KEY],
        [BAD_COOKIE, BAD_COOKIE, BAD_KEY],
    ],
}
# One row for each cookie, one column for each JWT (none, good, bad, elsewhere).
BY_COOKIE_AND_JWT: Final[dict[AuthMode, list[list[Verdict]]]] = {
    AuthMode.NONE: [[BY_KEY] * 4] * 3,
    AuthMode.JWT: [[NO_JWT, BY_JWT, BAD_JWT, OTHER_ORIGIN]] * 3,
    AuthMode.COOKIE_OR_JWT: [
        [NOTHING, BY_JWT, BAD_JWT, OTHER_ORIGIN],
        [BY_COOKIE] * 4,
        [BAD_COOKIE, BY_JWT, BAD_JWT, OTHER_ORIGIN],
    ],
}


def rules(mode: AuthMode, *, is_open: bool = False, api_key: Keys = API_KEY) -> AuthRules:
    return AuthRules(mode, SESSION, api_key, JWT, open=is_open)


def verdict(
    rules: AuthRules, credentials: Credentials, origins: tuple[str, ...] = (HOME,), now: float = NOW
) -> Verdict:
    found = judge(rules, credentials, origins, now)
    return (found.text, found.reason) if isinstance(found, Rejected) else found


def test_tables_cover_every_mode() -> None:
    assert BY_COOKIE_AND_KEY.keys() | BY_COOKIE_AND_JWT.keys() == set(AuthMode)


@pytest.mark.parametrize("mode", BY_COOKIE_AND_KEY)
def test_cookie_and_api_key_are_judged_as_the_table_says(mode: AuthMode) -> None:
    for (row, cookie), (column, key) in product(enumerate(COOKIES), enumerate(API_KEYS)):
        for place in ("token", "api_key", "subprotocol"):
            presented = Credentials(cookie=COOKIES[cookie], **{place: API_KEYS[key]})
            wanted = BY_COOKIE_AND_KEY[mode][row][column]
            assert verdict(rules(mode), presented) == wanted, (cookie, key, place)


@pytest.mark.parametrize("mode", BY_COOKIE_AND_JWT)
def test_cookie_and_jwt_are_judged_as_the_table_says(mode: AuthMode) -> None:
    for (row, cookie), (column, jwt) in product(enumerate(COOKIES), enumerate(JWTS)):
        for place in ("bearer", "token", "api_key", "subprotocol"):
            presented = Credentials(cookie=COOKIES[cookie], **{place: JWTS[jwt]})
            wanted = BY_COOKIE_AND_JWT[mode][row][column]
            assert verdict(rules(mode), presented) == wanted, (cookie, jwt, place)


def test_bearer_is_no_place_for_an_api_key() -> None:
    assert verdict(rules(AuthMode.TOKEN), Credentials(bearer="the key")) == NO_TOKEN


def test_only_the_first_place_with_an_api_key_counts() -> None:
    assert verdict(rules(AuthMode.TOKEN), Credentials(token="x", api_key="the key")) == BAD_TOKEN
    assert verdict(rules(AuthMode.TOKEN), Credentials(token="", subprotocol="the key")) == BAD_TOKEN


@pytest.mark.parametrize("mode", [AuthMode.JWT, AuthMode.COOKIE_OR_JWT])
def test_jwts_are_tried_until_one_verifies_for_this_request(mode: AuthMode) -> None:
    good, bad, elsewhere = JWTS["good"], JWTS["bad"], JWTS["elsewhere"]
    assert verdict(rules(mode), Credentials("junk", elsewhere, bad, good)) == BY_JWT
    assert verdict(rules(mode), Credentials("junk", bad, elsewhere, "")) == OTHER_ORIGIN
    assert verdict(rules(mode), Credentials("junk", bad, "", bad)) == BAD_JWT


def test_session_or_token_without_a_key_lets_only_cookies_in() -> None:
    without = rules(AuthMode.SESSION_OR_TOKEN, api_key=Keys())
    assert verdict(without, Credentials(cookie=COOKIES["good"])) == BY_COOKIE
    for presented in ("", "the key", "None", "***"):
        assert verdict(without, Credentials(token=presented)) == BAD_KEY


@pytest.mark.parametrize("mode", AuthMode)
def test_without_secrets_nothing_verifies(mode: AuthMode) -> None:
    bare = AuthRules(mode, Keys(), Keys(), Keys())
    presented = Credentials(JWTS["good"], "", "the key", "", COOKIES["good"])
    assert isinstance(judge(bare, presented, [HOME], NOW), Rejected) is (mode is not AuthMode.NONE)


def test_former_secrets_still_verify() -> None:
    assert (
        verdict(rules(AuthMode.SESSION), Credentials(cookie=cookie_by(b"former session secret"))) == BY_COOKIE
    )
    assert verdict(rules(AuthMode.TOKEN), Credentials(token="the former key")) == BY_KEY
    assert verdict(rules(AuthMode.JWT), Credentials(bearer=jwt_by(b"former jwt secret"))) == BY_JWT


def test_audience_and_issuer_are_asked_for() -> None:
    asked = AuthRules(AuthMode.JWT, SESSION, API_KEY, JWT, "tunnel", "gateway")
    assert verdict(asked, Credentials(bearer=JWTS["good"])) == BAD_JWT
    said = mint_jwt(JwtClaims(NOW, NOW + 50, "jwt's", None, "tunnel", "gateway"), b"jwt secret")
    assert verdict(asked, Credentials(bearer=said)) == BY_JWT


@pytest.mark.parametrize(
    ("claim", "origins", "admitted", "admitted_if_open"),
    [
        (None, (), True, True),
        (None, ("rubbish",), True, True),
        (HOME, (HOME,), True, True),
        ("HTTPS://APP.example:443/", ("https://app.EXAMPLE",), True, True),
        (HOME, (" " + HOME,), True, True),
        (HOME, ("https://app.example.evil",), False, False),
        (HOME, ("http://app.example",), False, False),
        (HOME, ("https://app.example:444",), False, False),
        ("null", ("null",), True, True),
        (HOME, ("null",), False, False),
        (HOME, (), True, False),
        (HOME, ("",), True, False),
        (HOME, (" \t",), True, False),
        (HOME, ("", ""), False, False),
        (HOME, ("", HOME), False, False),
        (HOME, (HOME, HOME), False, False),
        (HOME, (f"{HOME}, {HOME}",), False, False),
        (HOME, ("https://app.example/path",), False, False),
        ("not an origin", (HOME,), False, False),
        ("not an origin", ("not an origin",), False, False),
        ("not an origin", (), False, False),
        ("", (HOME,), False, False),
        ("", ("",), False, False),
        ("*", (HOME,), False, False),
    ],
)
def test_jwt_with_an_origin_is_bound_to_it(
    claim: str | None, origins: tuple[str, ...], admitted: bool, admitted_if_open: bool
) -> None:
    presented = Credentials(bearer=jwt_by(b"jwt secret", claim))
    for is_open, wanted in [(False, admitted), (True, admitted_if_open)]:
        found = verdict(rules(AuthMode.JWT, is_open=is_open), presented, origins)
        assert found == (BY_JWT if wanted else OTHER_ORIGIN)


def test_expiry_is_that_of_what_let_in() -> None:
    presented = Credentials(JWTS["good"], "the key", cookie=COOKIES["good"])
    found = {mode: judge(rules(mode), presented, [HOME], NOW) for mode in AuthMode}
    assert {mode.value: getattr(verdict, "expires_at", "") for mode, verdict in found.items()} == {
        "none": None,
        "session": NOW + 60,
        "token": None,
        "jwt": NOW + 50,
        "cookie_or_jwt": NOW + 60,
        "session_or_token": NOW + 60,
        "session_and_token": NOW + 60,
    }


def test_detail_names_the_fault_and_no_credential() -> None:
    presented = Credentials(jwt_by(b"canary"), cookie="canary.canary")
    found = judge(rules(AuthMode.COOKIE_OR_JWT), presented, [HOME], NOW)
    assert found == Rejected("invalid jwt", "invalid_jwt", "JWT: no secret of ours signed it")


values = st.none() | st.text() | st.sampled_from([*COOKIES.values(), *API_KEYS.values(), *JWTS.values()])
origin_lines = st.lists(st.text() | st.sampled_from([HOME, "", "null"]), max_size=3)


@given(st.sampled_from(AuthMode), st.builds(Credentials, *[values] * 6),
       origin_lines, st.booleans())  # fmt: skip
def test_nobody_is_let_in_without_what_the_mode_asks_for(
    mode: AuthMode, presented: Credentials, origins: list[str], is_open: bool
) -> None:
    """The rule stated a second time, over any text in any place."""
    found = judge(rules(mode, is_open=is_open), presented, origins, NOW)
    cookie = presented.cookie == COOKIES["good"]
    places = (presented.path, presented.token, presented.api_key, presented.subprotocol)
    keys = [value for value in places if value is not None]
    key = keys[:1] in (["the key"], ["the former key"])
    not_judged = not is_open and "".join(origins).strip(" \t") == "" and len(origins) < 2
    good, elsewhere = (JWTS[name] in (presented.bearer, *keys) for name in ("good", "elsewhere"))
    jwt = (good and (origins == [HOME] or not_judged)) or (elsewhere and not_judged)
    wanted = {
        AuthMode.NONE: True,
        AuthMode.SESSION: cookie,
        AuthMode.TOKEN: key,
        AuthMode.JWT: jwt,
        AuthMode.COOKIE_OR_JWT: cookie or jwt,
        AuthMode.SESSION_OR_TOKEN: cookie or key,
        AuthMode.SESSION_AND_TOKEN: cookie and key,
    }
    assert isinstance(found, Admitted) is wanted[mode]


# --- Names and keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        *((mode.value, mode) for mode in AuthMode),
        ("cookie", AuthMode.SESSION),
        ("api_key", AuthMode.TOKEN),
        ("cookie_or_api_key", AuthMode.SESSION_OR_TOKEN),
        ("cookie_and_api_key", AuthMode.SESSION_AND_TOKEN),
        (" Cookie_Or_JWT ", AuthMode.COOKIE_OR_JWT),
    ],
)
def test_modes_have_names_and_aliases_in_any_case(text: str, mode: AuthMode) -> None:
    assert parse_mode(text) is parse_mode(text.upper()) is mode


@pytest.mark.parametrize("text", ["", "jwts", "session-or-token", "basic", "\u017fession"])
def test_unknown_mode_is_refused_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="none, session, token, jwt, cookie_or_jwt, session_or_token"):
        parse_mode(text)


def test_modes_say_which_secrets_they_need() -> None:
    assert {mode.value: mode.needs for mode in AuthMode} == {
        "none": (),
        "session": ("session",),
        "token": ("api_key",),
        "jwt": ("jwt",),
        "cookie_or_jwt": ("session", "jwt"),
        "session_or_token": ("session",),
        "session_and_token": ("session", "api_key"),
    }


def test_keys_do_not_show_themselves() -> None:
    keys = Keys(b"canary", (b"canary",))
    assert repr(keys) == str(keys) == "Keys(current=***, previous=1)"
    assert "canary" not in repr(AuthRules(AuthMode.JWT, keys, keys, keys))


def test_keys_are_true_if_there_is_a_current_one() -> None:
    assert Keys(b"a")
    assert not Keys()
    assert not Keys(None, (b"a",))
    assert Keys(b"a", (b"b", b"c")).verifying() == (b"a", b"b", b"c")
    assert Keys(None, (b"a",)).verifying() == (b"a",)


@pytest.mark.parametrize(("current", "previous"), [(b"", ()), (b"a", (b"",)), (None, (b"b", b""))])
def test_empty_secret_is_refused(current: bytes | None, previous: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="empty"):
        Keys(current, previous)


@given(st.binary(), st.lists(st.binary(min_size=1), max_size=3))
def test_keys_match_themselves_and_nothing_else(presented: bytes, keys: list[bytes]) -> None:
    assert Keys(None, tuple(keys)).match(presented) is (presented in keys)


def test_random_keys_differ_and_fit_a_url() -> None:
    keys = {random_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 43 and key.replace("-", "").replace("_", "").isalnum() for key in keys)
