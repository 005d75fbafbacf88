# SPDX-License-Identifier: Apache-2.0
"""Challenges and tokens: vectors W1 to W17 and T1 to T13 of registry.md."""

import unittest
from collections.abc import Mapping

from cip.errors import AuthenticationError, ErrorCode
from cip.net.url import Origin
from cip.registry.authorization import (
    VALUE_LIMIT,
    Challenge,
    Token,
    choose_challenge,
    parse_challenges,
    parse_token,
    scopes_to_try,
    token_request,
)
from cip.settings import Credentials

REGISTRY = Origin("https", "r", 443)
PULL = "repository:a/b:pull"


def parsed(*lines: str) -> list[tuple[str, Mapping[str, str]]]:
    return [(challenge.scheme, challenge.parameters) for challenge in parse_challenges(lines)]


class ChallengeTest(unittest.TestCase):
    def test_vectors_of_one_line(self) -> None:
        realm = {"realm": "https://a/t"}
        for row, line, scheme, parameters in (
            (
                "W1",
                'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull"',
                "bearer",
                {**realm, "service": "s", "scope": "repository:a/b:pull"},
            ),
            ("W2", 'BEARER Realm="https://a/t" , Service="x"', "bearer", {**realm, "service": "x"}),
            ("W3", 'BEARER Realm="https://a/t" , Service = "x"', "bearer", {**realm, "service": "x"}),
            ("W4", "bearer realm=https://a/t,service=s", "bearer", {"realm": "https"}),
            ("W5", 'Bearer realm="https://a/t" service="s"', "bearer", realm),
            ("W5", 'Bearer realm="https://a/t";service="s"', "bearer", realm),
            ("W5", 'Bearer realm="https://a/t",,service="s"', "bearer", {**realm, "service": "s"}),
            ("W6", 'Bearer realm="",service="s"', "bearer", {}),
            ("W7", 'Bearer service="s",realm="unterminated', "bearer", {"service": "s"}),
            ("W7", 'Bearer service="s",realm="x\\', "bearer", {"service": "s"}),
            ("W9", "Basic", "basic", {}),
            ("W9", "Negotiate abc==", "negotiate", {}),
            ("W11", 'Bearer,realm="x"', "bearer", {}),
            ("W12", 'Basic realm="a\\"b\\\\c"', "basic", {"realm": 'a"b\\c'}),
            ("W13", 'Bearer realm="a",realm="b"', "bearer", {"realm": "b"}),
        ):
            with self.subTest(row=row, line=line):
                self.assertEqual(parsed(line), [(scheme, parameters)])

    def test_one_line_may_hold_several_challenges(self) -> None:
        basic, realm = {"realm": "a"}, {"realm": "https://a/t", "service": "s"}
        for row, line, expected in (
            ("W8", 'Basic realm="a", Bearer realm="https://a/t",service="s"', [("basic", basic), ("bearer", realm)]),
            ("", 'Negotiate, Bearer realm="https://a/t",service="s"', [("negotiate", {}), ("bearer", realm)]),
            ("", 'Negotiate abc==, Basic realm="a" , , NTLM', [("negotiate", {}), ("basic", basic), ("ntlm", {})]),
            ("", "Basic, Bearer", [("basic", {}), ("bearer", {})]),
            ("", 'Basic realm="a" Bearer realm="https://a/t"', [("basic", basic)]),
            ("", 'Basic realm="a, Bearer realm=", x=y', [("basic", {"realm": "a, Bearer realm=", "x": "y"})]),
        ):
            with self.subTest(row=row, line=line):
                self.assertEqual(parsed(line), expected)

    def test_lines_without_a_scheme_are_ignored(self) -> None:
        for line in (' Basic realm="x"', ',Bearer realm="x"', '"q" realm="x"', ""):  # W10
            with self.subTest(line):
                self.assertEqual(parsed(line), [])

    def test_the_best_scheme_that_can_work_is_chosen(self) -> None:
        nobody, user, refresh = Credentials(), Credentials("u", "p"), Credentials("u", "", "t")
        bearer, unusable = 'Bearer realm="https://a/t"', 'Bearer realm="/t"'
        for row, lines, credentials, given, scheme in (
            ("W14", ("Negotiate", bearer), nobody, False, "bearer"),
            ("W15", ("Basic", bearer), nobody, False, "bearer"),
            ("W15", ("Basic", bearer), user, False, "bearer"),
            ("", (f'Basic realm="x", {bearer}',), user, False, "bearer"),
            ("", ("Basic",), user, False, "basic"),
            ("", ("Basic",), nobody, False, None),
            ("", ("Basic",), refresh, False, None),
            ("", (unusable, "Basic"), user, False, "basic"),
            ("", (unusable, "Basic"), nobody, False, "bearer"),
            ("", (unusable, "Basic"), user, True, "bearer"),
            ("W16", ('Digest realm="x"',), user, False, None),
            ("W17", (), user, False, None),
        ):
            with self.subTest(row=row, lines=lines):
                chosen = choose_challenge(parse_challenges(lines), credentials, given=given)
                self.assertEqual(chosen.scheme if chosen else None, scheme)

    def test_scopes_are_ours_then_both_then_an_opaque_one_alone(self) -> None:
        for scope, further in (
            ("", []),
            (PULL, []),
            ("repository:x/y:pull", [(PULL, "repository:x/y:pull")]),  # T11
            ("repository:x:pull repository:y:pull", [(PULL, "repository:x:pull", "repository:y:pull")]),
            ("aws", [(PULL, "aws"), ("aws",)]),
            ("foo:bar", [(PULL, "foo:bar"), ("foo:bar",)]),  # T12
        ):
            with self.subTest(scope):
                self.assertEqual(scopes_to_try(Challenge("bearer", {"scope": scope}), PULL), [(PULL,), *further])


class RequestTest(unittest.TestCase):
    def request(
        self, credentials: Credentials, realm: str = "https://auth/R", service: str = "svc"
    ) -> tuple[str, str, bytes]:
        challenge = Challenge("bearer", {"realm": realm, "service": service} if service else {"realm": realm})
        request = token_request(challenge, [PULL], credentials, REGISTRY)
        return request.url.target, request.authorization, request.form

    def test_a_get_carries_scope_service_and_account(self) -> None:
        scope = "scope=repository%3Aa%2Fb%3Apull"
        for row, credentials, realm, service, target, authorization in (
            ("T1", Credentials(), "https://auth/R", "svc", f"/R?{scope}&service=svc", ""),
            ("T2", Credentials("u", "p"), "https://auth/R", "svc", f"/R?account=u&{scope}&service=svc", "Basic dTpw"),
            ("T3", Credentials("u", ""), "https://auth/R", "svc", f"/R?account=u&{scope}&service=svc", ""),
            ("T3", Credentials("", "p"), "https://auth/R", "svc", f"/R?{scope}&service=svc", ""),
            (
                "T4",
                Credentials("u", ""),
                "https://auth/R?foo=bar&service=old",
                "a b&c",
                f"/R?account=u&foo=bar&{scope}&service=old&service=a+b%26c",
                "",
            ),
            ("", Credentials(), "https://auth/R", "", f"/R?{scope}", ""),
            (
                "argv in Latin-1",
                Credentials("\udcfc", "\udcff"),
                "https://auth/R",
                "",
                f"/R?account=%FC&{scope}",
                "Basic /Dr/",
            ),
        ):
            with self.subTest(row):
                self.assertEqual(self.request(credentials, realm, service), (target, authorization, b""))

    def test_an_identity_token_is_posted_and_never_basic(self) -> None:
        # T5
        target, authorization, body = self.request(Credentials("u", "p", "ID/+="), "https://auth/R?q=1", "s v")
        self.assertEqual((target, authorization), ("/R?q=1", ""))
        self.assertEqual(
            body,
            b"client_id=containers%2Fimage&grant_type=refresh_token&q=1&refresh_token=ID%2F%2B%3D"
            b"&scope=repository%3Aa%2Fb%3Apull&service=s+v",
        )

    def test_several_scopes_keep_their_order(self) -> None:
        challenge = Challenge("bearer", {"realm": "https://auth/R"})
        request = token_request(challenge, [PULL, "repository:x/y:pull"], Credentials(), REGISTRY)
        self.assertEqual(request.url.query, "scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ax%2Fy%3Apull")

    def test_an_unusable_realm_is_an_error_that_names_it(self) -> None:
        for realm in ("", "https", "/token", "token", "ftp://auth/", "https://u:p@auth/", "https://"):
            with self.subTest(realm), self.assertRaisesRegex(AuthenticationError, "r:443: the realm .* is unusable"):
                self.request(Credentials(), realm)

    def test_a_realm_at_the_registry_itself_is_not_foreign(self) -> None:
        for realm, configured in (("https://r/t", True), ("https://r:444/t", False), ("https://auth/t", False)):
            challenge = Challenge("bearer", {"realm": realm})
            self.assertIs(token_request(challenge, [], Credentials(), REGISTRY).configured, configured)


class TokenTest(unittest.TestCase):
    NOW = 1_000_000.0

    def parse(self, text: str) -> Token:
        return parse_token(text.encode(), self.NOW, "auth:443")

    def test_a_token_has_a_limit(self) -> None:
        """All that it consists of is remembered, to be hidden."""
        self.assertEqual(len(self.parse('{"token":"%s"}' % ("a" * VALUE_LIMIT)).value), VALUE_LIMIT)
        with self.assertRaisesRegex(AuthenticationError, "longer than 65536 characters"):
            self.parse('{"token":"%s"}' % ("a" * (VALUE_LIMIT + 1)))

    def test_token_or_access_token(self) -> None:
        for text, value in (
            ('{"token":"a","access_token":"b"}', "a"),  # T6
            ('{"token":"","access_token":"b"}', "b"),
            ('{"Access_Token":"b"}', "b"),
            ('{"token":null,"access_token":"b"}', "b"),
            ("{}", ""),  # T7
            ("null", ""),
        ):
            with self.subTest(text):
                self.assertEqual(self.parse(text).value, value)

    def test_a_token_lives_a_minute_at_least(self) -> None:
        for text, seconds in (
            ('{"expires_in":1}', 60),
            ('{"expires_in":-1}', 60),
            ("{}", 60),
            ('{"expires_in":300}', 300),  # T7
            ('{"expires_in":null}', 60),
            ('{"expires_in":9007199254740992}', 2**53),
        ):
            with self.subTest(text):
                self.assertEqual(self.parse(text).expires, self.NOW + seconds)

    def test_its_life_begins_when_it_was_issued(self) -> None:
        for text, expires in (
            ('{"issued_at":null}', self.NOW + 60),  # T9
            ('{"issued_at":"0001-01-01T00:00:00Z"}', self.NOW + 60),
            ('{"issued_at":"2020-01-01T00:00:00Z","expires_in":300}', 1577836800.0 + 300),
        ):
            with self.subTest(text):
                self.assertEqual(self.parse(text).expires, expires)

    def test_what_is_no_token_is_refused_and_not_shown(self) -> None:
        for text, reason in (
            ('{"token":"hush","expires_in":"300"}', "expires_in: expected an integer"),  # T8
            ('{"token":"hush","expires_in":300.5}', "expires_in: expected an integer"),
            ('{"token":"hush","issued_at":""}', "issued_at: expected an RFC 3339 time"),
            ('{"token":"hush","issued_at":"bogus"}', "issued_at: expected an RFC 3339 time"),
            ("[]", "expected an object"),
            ('{"token":"hush"} trailing', "not valid JSON"),
            ("", "not valid JSON"),
            ('{"token":1}', "token: expected a string"),
            ('{"token":"hush\\r\\nX: y"}', "a character that a header cannot have"),
            ('{"token":"hush x"}', "a character that a header cannot have"),
            ('{"token":"hush","Token":"other"}', "ambiguous"),
            ('{"token":"hush","token":"other"}', "duplicate key"),
            ("[" * 500 + "]" * 500, "nested deeper"),
        ):
            with self.subTest(text[:40]), self.assertRaisesRegex(AuthenticationError, reason) as caught:
                self.parse(text)
            self.assertNotIn("hush", str(caught.exception))
            self.assertIs(caught.exception.code, ErrorCode.AUTHENTICATION_FAILED)

    def test_a_token_is_not_shown(self) -> None:
        self.assertNotIn("hush", repr(Token("hush", 1.0)))
