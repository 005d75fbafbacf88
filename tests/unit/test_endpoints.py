# SPDX-License-Identifier: Apache-2.0
"""Endpoints: how each is entered, over which scheme, and which host is told what."""

import base64
import json
from unittest import mock

from cip import log
from cip.errors import (
    AuthenticationError,
    CipError,
    ErrorCode,
    NetworkError,
    Phase,
    RegistryError,
    SourceError,
    redact_with,
)
from cip.hostconfig.proxyenv import Proxy
from cip.hostconfig.registriesconf import ConfiguredEndpoint, RegistriesConfig
from cip.model.reference import parse_docker_reference
from cip.net.limits import Limits
from cip.net.opener import Request
from cip.net.response import Response
from cip.net.tls import NotTlsError
from cip.registry.endpoints import Endpoint
from cip.settings import CredentialOptions, Settings
from tests.support.host import make_host
from tests.support.leaks import LeakCheckedTestCase
from tests.support.origins import Asked, FakeClock, Origins, RecordedEvents, Reply, Script, reply

BASIC = "Basic dTpodXNo"  # u:hush
REALM = 'Bearer realm="https://auth.example/token",service="s"'


def token(value: str, seconds: int = 300) -> Reply:
    return reply(200, json.dumps({"token": value, "expires_in": seconds}).encode())


def guarded(challenge: str, accepted: set[str]) -> Script:
    """A registry that wants one of the `accepted` authorizations."""

    def answer(asked: Asked) -> Reply:
        if asked.fields.get("authorization", "") in accepted:
            return reply(200, b"in")
        return reply(401, b"{}", {"WWW-Authenticate": challenge})

    return answer


class EndpointCase(LeakCheckedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.host = make_host(self)
        self.clock = FakeClock()
        self.events = RecordedEvents()
        self.origins = Origins()
        self.addCleanup(self.origins.wait)
        previous = log._Stream.threshold
        log.set_threshold(log.Level.SILENT)
        self.addCleanup(log.set_threshold, previous)

    def endpoint(
        self,
        name: str = "r.example/a/b:t",
        *,
        logical: str | None = None,
        credentials: CredentialOptions | None = None,
        tls_verify: bool | None = None,
        insecure: bool = False,
        blocked: bool = False,
    ) -> Endpoint:
        settings = self.host.settings()._replace(credentials=credentials or CredentialOptions(), tls_verify=tls_verify)
        return self.endpoint_with(settings, name, logical or name, insecure=insecure, blocked=blocked)

    def endpoint_with(
        self, settings: Settings, name: str, logical: str, *, insecure: bool = False, blocked: bool = False
    ) -> Endpoint:
        session = self.origins.session(settings, self.clock, self.events)
        self.addCleanup(session.close)
        self.limits = session.limits()
        place = ConfiguredEndpoint(parse_docker_reference(name), "", "", insecure, blocked, True)
        return Endpoint(place, parse_docker_reference(logical), settings, RegistriesConfig(), session)

    def get(self, endpoint: Endpoint, path: str = "manifests/t") -> Response:
        response = endpoint.get(path, self.limits)
        self.addCleanup(response.close)
        return response

    def status(self, endpoint: Endpoint, path: str = "manifests/t") -> int:
        response = self.get(endpoint, path)
        response.read_all(1000, "body")
        return response.status

    def told(self, host: str) -> list[str | None]:
        """What each request to a host had as its authorization."""
        return [asked.fields.get("authorization") for asked in self.origins.asked if asked.host == host]


class BasicTest(EndpointCase):
    def test_the_challenge_of_the_request_itself_is_answered(self) -> None:
        self.origins.add("https://r.example:443", guarded('Basic realm="x"', {BASIC}))
        endpoint = self.endpoint(credentials=CredentialOptions(creds="u:hush"))
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        self.assertEqual(self.told("r.example:443"), [None, BASIC, BASIC])
        self.assertEqual(self.origins.targets(), ["/v2/a/b/manifests/t"] * 3)
        self.assertEqual(len(self.origins.opened), 1)
        self.assertEqual(self.events.of("auth"), [{"host": "r.example:443", "scheme": "basic", "file": "command line"}])

    def test_without_credentials_an_empty_basic_is_never_sent(self) -> None:
        self.origins.add("https://r.example:443", guarded("Basic", set()))
        endpoint = self.endpoint()
        self.assertEqual(self.status(endpoint), 401)
        self.assertEqual(self.told("r.example:443"), [None])
        self.assertRegex(endpoint._prepare()[1].describe(), "^authorization scheme basic, no credentials found")

    def test_without_a_challenge_that_we_know_nothing_is_sent(self) -> None:
        # W16, W17
        for challenge in ('Digest realm="x"', "", "Negotiate"):
            with self.subTest(challenge):
                self.origins.asked.clear()
                self.origins.add("https://r.example:443", guarded(challenge, set()))
                self.assertEqual(self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush"))), 401)
                self.assertEqual(self.told("r.example:443"), [None])

    def test_a_registry_that_asks_for_nothing_is_told_nothing(self) -> None:
        self.origins.add("https://r.example:443", lambda asked: reply(200))
        self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush")))
        self.assertEqual(self.told("r.example:443"), [None])

    def test_a_403_is_no_challenge(self) -> None:
        self.origins.add("https://r.example:443", lambda a: reply(403, b"{}", {"WWW-Authenticate": "Basic"}))
        self.assertEqual(self.status(self.endpoint()), 403)
        self.assertEqual(len(self.origins.asked), 1)

    def test_credentials_of_a_registry_that_hides_what_is_private_are_offered(self) -> None:
        def hiding(asked: Asked) -> Reply:
            if asked.fields.get("authorization") == BASIC:
                return reply(200, b"in")
            if asked.target == "/v2/":
                return reply(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
            return reply(status, b"{}")

        for status in (403, 404):
            with self.subTest(status):
                self.origins.asked.clear()
                self.origins.add("https://r.example:443", hiding)
                endpoint = self.endpoint(credentials=CredentialOptions(creds="u:hush"))
                self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
                path = "/v2/a/b/manifests/t"
                self.assertEqual(self.origins.targets(), [path, "/v2/", path, path])
                self.assertEqual(self.status(self.endpoint()), status)  # without credentials nothing is asked twice
                self.assertEqual(len(self.origins.asked), 5)

    def test_the_challenge_of_a_place_that_the_registry_redirects_to_is_not_answered(self) -> None:
        def registry(asked: Asked) -> Reply:
            elsewhere = {"Location": "https://other.example/v2/"}
            return reply(307, b"", elsewhere) if asked.target == "/v2/" else reply(404, b"{}")

        for challenge in ("Basic", 'Bearer realm="https://other.example/token"'):
            with self.subTest(challenge):
                self.origins.add("https://r.example:443", registry)
                self.origins.add("https://other.example:443", guarded(challenge, set()))
                self.assertEqual(self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush"))), 404)
                self.assertEqual({asked.fields.get("authorization") for asked in self.origins.asked}, {None})
                self.assertEqual(self.origins.targets("other.example:443"), ["/v2/"])
                self.origins.asked.clear()

    def test_credentials_that_nobody_asked_for_are_told(self) -> None:
        self.origins.add("https://r.example:443", lambda asked: reply(200 if asked.target == "/v2/" else 404, b"{}"))
        endpoint = self.endpoint(credentials=CredentialOptions(creds="u:hush"))
        for _ in range(2):
            response = self.get(endpoint)
            self.assertRegex(response.note, "the credentials of command line were never asked for")
        self.assertEqual(self.origins.targets().count("/v2/"), 1)


class BearerTest(EndpointCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens = [token("one"), token("two"), token("three"), token("four")]
        self.origins.add("https://auth.example:443", lambda asked: self.tokens.pop(0))

    def test_a_token_is_fetched_once_and_used_until_it_expires(self) -> None:
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer one", "Bearer two"}))
        endpoint = self.endpoint(credentials=CredentialOptions(creds="u:hush"))
        for _ in range(3):
            self.assertEqual(self.status(endpoint), 200)
        self.clock.now += 301
        self.assertEqual(self.status(endpoint), 200)
        self.assertEqual(self.told("r.example:443"), [None, "Bearer one", "Bearer one", "Bearer one", "Bearer two"])
        self.assertEqual(self.told("auth.example:443"), [BASIC, BASIC])
        self.assertEqual(
            self.origins.targets("auth.example:443")[0], "/token?account=u&scope=repository%3Aa%2Fb%3Apull&service=s"
        )

    def test_a_token_that_the_registry_does_not_like_any_more_is_renewed_once(self) -> None:
        accepted = {"Bearer one"}
        self.origins.add("https://r.example:443", guarded(REALM + ',error="invalid_token"', accepted))
        endpoint = self.endpoint()
        self.assertEqual(self.status(endpoint), 200)
        accepted.clear()
        accepted.add("Bearer two")
        self.assertEqual(self.status(endpoint), 200)
        accepted.clear()
        self.assertEqual(self.status(endpoint), 401)
        self.assertEqual(
            self.told("r.example:443"), [None, "Bearer one", "Bearer one", "Bearer two", "Bearer two", "Bearer three"]
        )

    def test_a_fresh_token_that_is_refused_is_not_renewed(self) -> None:
        self.origins.add("https://r.example:443", guarded(REALM, set()))
        self.assertEqual(self.status(self.endpoint()), 401)
        self.assertEqual(len(self.told("auth.example:443")), 1)

    def test_a_further_scope_is_asked_for_once_and_not_learned(self) -> None:
        # T11
        more = REALM + ',error="insufficient_scope",scope="repository:x/y:pull"'
        self.origins.add("https://r.example:443", guarded(more, {"Bearer two"}))
        self.origins.add("https://r.example:443", self.with_first(guarded(REALM, set()), guarded(more, {"Bearer two"})))
        endpoint = self.endpoint()
        self.assertEqual(self.status(endpoint), 200)
        both = "scope=repository%3Aa%2Fb%3Apull&scope=repository%3Ax%2Fy%3Apull"
        self.assertEqual(self.origins.targets("auth.example:443")[1], f"/token?{both}&service=s")
        self.assertEqual(self.told("r.example:443"), [None, "Bearer one", "Bearer two"])
        self.status(endpoint)
        self.assertEqual(self.told("r.example:443")[3], "Bearer one")

    def test_an_opaque_scope_is_asked_for_beside_ours_and_last_alone(self) -> None:
        ours = "scope=repository%3Aa%2Fb%3Apull"
        targets = [f"/token?{ours}&service=s", f"/token?{ours}&scope=aws&service=s", "/token?scope=aws&service=s"]
        self.origins.add("https://r.example:443", guarded(f'{REALM},scope="aws"', {"Bearer three"}))
        endpoint = self.endpoint()
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        self.assertEqual(self.origins.targets("auth.example:443"), targets)
        expected = [None, "Bearer one", "Bearer two", "Bearer three", "Bearer three"]
        self.assertEqual(self.told("r.example:443"), expected)

    def test_a_token_server_that_refuses_our_scope_is_asked_for_the_registry_s(self) -> None:
        self.tokens[:] = [reply(401, b"{}"), reply(400, b"{}"), token("three")]
        self.origins.add("https://r.example:443", guarded(f'{REALM},scope="aws"', {"Bearer three"}))
        self.assertEqual(self.status(self.endpoint()), 200)
        self.assertEqual(self.told("r.example:443"), [None, "Bearer three"])

    def test_scopes_that_all_fail_end(self) -> None:
        self.origins.add("https://r.example:443", guarded(f'{REALM},scope="aws"', set()))
        self.assertEqual(self.status(self.endpoint()), 401)
        self.assertEqual(self.told("r.example:443"), [None, "Bearer one", "Bearer two", "Bearer three"])

    def test_a_given_token_is_sent_without_asking_for_one(self) -> None:
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer given"}))
        endpoint = self.endpoint(credentials=CredentialOptions(registry_token="given"))
        self.assertEqual(self.status(endpoint), 200)
        self.assertEqual(self.told("auth.example:443"), [])
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer one"}))
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        expected = [None, "Bearer given", "Bearer given", "Bearer one", "Bearer one"]
        self.assertEqual(self.told("r.example:443"), expected)

    def test_an_expired_token_and_a_basic_challenge_are_tried_without(self) -> None:
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer one"}))
        endpoint = self.endpoint()
        self.assertEqual(self.status(endpoint), 200)
        self.origins.add("https://r.example:443", guarded('Basic realm="x"', {""}))  # open to whoever is nobody
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        self.assertEqual(self.told("r.example:443"), [None, "Bearer one", "Bearer one", None, None])

    def test_the_reason_of_a_token_server_is_told_without_what_it_was_told(self) -> None:
        self.origins.add("https://r.example:443", guarded(REALM, set()))
        self.addCleanup(redact_with, str)
        redact_with(self.origins.secrets.redact)
        for said, shown in (
            ("account locked", "status 403: 'DENIED': 'account locked'"),
            ("u:hush", r"status 403: 'DENIED': 'u:\[redacted\]'"),
        ):
            body = json.dumps({"errors": [{"code": "DENIED", "message": said}]}).encode()
            self.tokens[:] = [reply(403, body)]
            with self.subTest(said), self.assertRaisesRegex(AuthenticationError, shown) as caught:
                self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush")))
            self.assertNotIn("hush", str(caught.exception))

    def test_a_given_token_is_ignored_for_basic(self) -> None:
        self.origins.add("https://r.example:443", guarded("Basic", {BASIC}))
        endpoint = self.endpoint(credentials=CredentialOptions(registry_token="given", creds="u:hush"))
        self.assertEqual(self.status(endpoint), 200)

    def test_an_empty_token_is_sent(self) -> None:
        # T7
        self.tokens[0] = reply(200, b"{}")
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer"}))
        self.assertEqual(self.status(self.endpoint()), 200)

    def test_a_token_that_is_old_on_arrival_serves_one_request(self) -> None:
        # T9
        old = reply(200, b'{"token":"old","issued_at":"2020-01-01T00:00:00Z"}')
        self.tokens[:] = [old, old, old]
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer old"}))
        endpoint = self.endpoint()
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        self.assertEqual(len(self.told("auth.example:443")), 2)

    def test_what_the_token_server_answers_instead(self) -> None:
        for status, kind, code, retryable in (
            (401, AuthenticationError, ErrorCode.AUTHENTICATION_FAILED, False),
            (403, AuthenticationError, ErrorCode.AUTHENTICATION_FAILED, False),
            (429, RegistryError, ErrorCode.RATE_LIMITED, True),
            (201, RegistryError, ErrorCode.REGISTRY_ERROR, False),  # T10
            (404, RegistryError, ErrorCode.REGISTRY_ERROR, False),
            (500, RegistryError, ErrorCode.REGISTRY_ERROR, True),
            (503, RegistryError, ErrorCode.REGISTRY_ERROR, True),
        ):
            with self.subTest(status):
                self.tokens[:] = [reply(status, b"hush")]
                self.origins.add("https://r.example:443", guarded(REALM, set()))
                with self.assertRaises(kind) as caught:
                    self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush")))
                self.assertEqual((caught.exception.code, caught.exception.retryable), (code, retryable))
                self.assertEqual((caught.exception.phase, caught.exception.host), (Phase.TOKEN, "auth.example:443"))

    def test_a_token_may_not_be_larger_than_a_mebibyte(self) -> None:
        # registry.md M16
        for size, refused in ((1048576, False), (1048577, True)):
            with self.subTest(size):
                body = b'{"token":"one","x":"' + b"y" * (size - 22) + b'"}'
                self.assertEqual(len(body), size)
                self.tokens[:] = [reply(200, body)]
                self.origins.add("https://r.example:443", guarded(REALM, {"Bearer one"}))
                endpoint = self.endpoint()
                if refused:
                    with self.assertRaisesRegex(CipError, "larger than 1048576 bytes"):
                        self.status(endpoint)
                else:
                    self.assertEqual(self.status(endpoint), 200)

    def test_a_realm_over_http_is_refused_from_verified_https(self) -> None:
        challenge = 'Bearer realm="http://auth.example/token"'
        self.origins.add("https://r.example:443", guarded(challenge, set()))
        with self.assertRaisesRegex(SourceError, "expected a token realm to https, found one to http") as caught:
            self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush")))
        self.assertIs(caught.exception.code, ErrorCode.REDIRECT_REFUSED)
        self.assertNotIn("auth.example:80", " ".join(self.origins.opened))

    def test_a_redirected_token_request_leaves_its_password_behind(self) -> None:
        self.tokens[:] = [reply(307, b"", {"Location": "https://evil.example/token"})]
        self.origins.add("https://evil.example:443", lambda asked: token("one"))
        self.origins.add("https://r.example:443", guarded(REALM, {"Bearer one"}))
        self.assertEqual(self.status(self.endpoint(credentials=CredentialOptions(creds="u:hush"))), 200)
        self.assertEqual((self.told("auth.example:443"), self.told("evil.example:443")), ([BASIC], [None]))

    def test_a_401_of_another_host_is_no_challenge_of_the_registry(self) -> None:
        self.origins.add("https://r.example:443", lambda a: reply(307, b"", {"Location": "https://cdn.example/x"}))
        self.origins.add("https://cdn.example:443", guarded(REALM, set()))
        endpoint = self.endpoint(credentials=CredentialOptions(creds="u:hush"))
        response = self.get(endpoint)
        self.assertEqual((response.status, endpoint.is_here(response)), (401, False))
        self.assertEqual((self.told("cdn.example:443"), self.told("auth.example:443")), ([None], []))

    def with_first(self, first: Script, rest: Script) -> Script:
        """The first request of this registry is answered otherwise."""
        seen: list[Asked] = []

        def answer(asked: Asked) -> Reply:
            seen.append(asked)
            return (first if len(seen) == 1 else rest)(asked)

        return answer


class CredentialsTest(EndpointCase):
    def write_auth(self, auths: dict[str, str]) -> str:
        entries = {key: {"auth": base64.b64encode(value.encode()).decode()} for key, value in auths.items()}
        return self.host.write("~/.config/containers/auth.json", json.dumps({"auths": entries}))

    def test_files_are_searched_by_the_physical_name(self) -> None:
        path = self.write_auth({"r.example": "other:pw", "r.example/a": "u:hush"})
        self.origins.add("https://r.example:443", guarded("Basic", {BASIC}))
        endpoint = self.endpoint(logical="logical.example/a/b:t")
        self.assertEqual(self.status(endpoint), 200)
        self.assertEqual(self.events.of("auth")[0]["file"], path)
        self.assertIn("key 'r.example/a' of " + path, endpoint._prepare()[1].describe())
        self.assertNotIn("hush", endpoint._prepare()[1].describe())

    def test_flags_are_for_the_host_that_they_were_given_for(self) -> None:
        # registry.md A32, A33, S7
        self.write_auth({"mirror.example": "stored:pw"})
        stored = "Basic " + base64.b64encode(b"stored:pw").decode()
        self.origins.add("https://mirror.example:443", guarded("Basic", set()))
        self.origins.add("https://r.example:5000", guarded("Basic", set()))
        for options, name, expected in (
            (CredentialOptions(creds="u:hush"), "mirror.example/a/b:t", stored),
            (CredentialOptions(creds="u:hush"), "r.example:5000/a/b:t", None),
            (CredentialOptions(no_creds=True), "mirror.example/a/b:t", None),
            (CredentialOptions(registry_token="given"), "mirror.example/a/b:t", stored),
        ):
            with self.subTest(name=name, options=str(options)):
                self.origins.asked.clear()
                self.status(self.endpoint(name, logical="r.example/a/b:t", credentials=options))
                told = [asked.fields.get("authorization") for asked in self.origins.asked]
                self.assertEqual(told, [None] if expected is None else [None, expected])

    def test_a_given_token_never_reaches_a_mirror(self) -> None:
        self.origins.add("https://mirror.example:443", guarded(REALM, set()))
        self.origins.add("https://auth.example:443", lambda asked: token("fetched"))
        options = CredentialOptions(registry_token="given")
        self.status(self.endpoint("mirror.example/a/b:t", logical="r.example/a/b:t", credentials=options))
        self.assertEqual(self.told("mirror.example:443"), [None, "Bearer fetched"])

    def test_no_creds_reads_no_file(self) -> None:
        self.host.write("~/.config/containers/auth.json", "broken")
        self.origins.add("https://r.example:443", guarded("Basic", set()))
        endpoint = self.endpoint(credentials=CredentialOptions(no_creds=True))
        self.assertEqual(self.status(endpoint), 401)
        self.assertIn("--no-creds", endpoint._prepare()[1].describe())

    def test_a_broken_file_stops_the_request(self) -> None:
        self.host.write("~/.config/containers/auth.json", "broken")
        with self.assertRaisesRegex(CipError, "auth.json") as caught:
            self.status(self.endpoint())
        self.assertIs(caught.exception.code, ErrorCode.CONFIG_INVALID)
        self.assertEqual(self.origins.asked, [])

    def test_a_refusal_tells_where_was_looked(self) -> None:
        self.origins.add("https://r.example:443", guarded("Basic", set()))
        endpoint = self.endpoint()
        self.status(endpoint)
        self.assertRegex(
            endpoint._prepare()[1].describe(), r"scheme basic, no credentials found, .*auth.json \(absent\)"
        )


class SchemeTest(EndpointCase):
    def not_tls(self) -> None:
        self.origins.add("https://r.example:443", lambda asked: reply(500))
        self.origins.places["https://r.example:443"].fault = NotTlsError("no tls")

    def test_secure_endpoints_never_speak_http(self) -> None:
        self.origins.add("http://r.example:80", lambda asked: reply(200))
        for verify, insecure in ((None, False), (True, True)):  # registry.md M6
            with self.subTest(verify), self.assertRaises(NetworkError):
                self.status(self.endpoint(tls_verify=verify, insecure=insecure))
        self.assertEqual(self.origins.asked, [])

    def test_a_server_without_tls_names_the_setting_that_allows_it(self) -> None:
        self.origins.add("https://r.example:443", lambda asked: reply(200))
        fault = NotTlsError("r.example:443: no tls", host="r.example:443", code=ErrorCode.REGISTRY_ERROR)
        self.origins.places["https://r.example:443"].fault = fault
        settings = "no tls; for plain http set insecure = true for it in registries.conf, or give --tls-verify=false"
        with self.assertRaisesRegex(NotTlsError, settings):
            self.status(self.endpoint())

    def test_what_another_thread_finds_out_meanwhile_fails_nobody(self) -> None:
        self.not_tls()
        self.origins.add("http://r.example:80", lambda asked: reply(200))
        endpoint = self.endpoint(insecure=True)
        opener = endpoint.opener()
        ask = opener.ask

        def overtaken(request: Request, limits: Limits) -> Response:
            if request.type == "https":
                endpoint._settle("http")
            return ask(request, limits)

        with mock.patch.object(opener, "ask", overtaken):
            self.assertEqual(self.status(endpoint), 200)

    def test_insecure_ones_speak_https_if_they_can(self) -> None:
        for verify, insecure in ((None, True), (False, False)):
            with self.subTest(verify):
                self.origins.asked.clear()
                self.origins.add("https://r.example:443", lambda asked: reply(500))
                endpoint = self.endpoint(tls_verify=verify, insecure=insecure)
                self.assertEqual(self.status(endpoint), 500)
                self.assertFalse(endpoint.opener().identity.verify)
                self.assertEqual([asked.host for asked in self.origins.asked], ["r.example:443"])

    def test_http_is_for_ports_that_refuse_or_speak_something_else(self) -> None:
        self.origins.add("http://r.example:80", lambda asked: reply(200))
        self.assertEqual(self.status(self.endpoint(insecure=True)), 200)  # nobody listens on 443
        self.not_tls()
        endpoint = self.endpoint(insecure=True)
        self.assertEqual([self.status(endpoint), self.status(endpoint)], [200, 200])
        self.assertEqual(endpoint._scheme, "http")  # which is told, and asked first from now on

    def test_http_by_proxy_is_for_whatever_keeps_us_from_tls(self) -> None:
        self.origins.proxies["http"] = Proxy("http", "p", 3128)
        self.origins.add("http://r.example:80", lambda asked: reply(200))
        for fault, passes in (
            (NetworkError("x", code=ErrorCode.NAME_NOT_RESOLVED, phase=Phase.DNS), True),
            (NetworkError("x", code=ErrorCode.TIMEOUT, phase=Phase.CONNECT), True),
            (RegistryError("x", http_status=403, phase=Phase.PROXY), True),
            (NetworkError("x", code=ErrorCode.CONNECTION_LOST, phase=Phase.TLS), False),
        ):
            with self.subTest(fault.code):
                self.origins.add("https://r.example:443", lambda asked: reply(500))
                self.origins.places["https://r.example:443"].fault = fault
                if passes:
                    self.assertEqual(self.status(self.endpoint(insecure=True)), 200)
                else:
                    with self.assertRaises(NetworkError):
                        self.status(self.endpoint(insecure=True))

    def test_other_faults_of_https_do_not_lead_to_http(self) -> None:
        self.origins.add("http://r.example:80", lambda asked: reply(200))
        for fault in (
            NetworkError("x", code=ErrorCode.TIMEOUT, phase=Phase.CONNECT),
            NetworkError("x", code=ErrorCode.CONNECTION_LOST, phase=Phase.TLS),
            NetworkError("x", code=ErrorCode.NAME_NOT_RESOLVED, phase=Phase.DNS),
        ):
            with self.subTest(fault.code):
                self.not_tls()
                self.origins.places["https://r.example:443"].fault = fault
                with self.assertRaises(NetworkError):
                    self.status(self.endpoint(insecure=True))
        self.assertEqual(self.origins.asked, [])

    def test_while_nobody_answers_the_scheme_stays_open(self) -> None:
        endpoint = self.endpoint(insecure=True)
        with self.assertRaises(NetworkError):
            self.status(endpoint)
        self.origins.add("https://r.example:443", lambda asked: reply(200))
        self.assertEqual(self.status(endpoint), 200)

    def test_docker_hub_answers_under_another_name(self) -> None:
        self.origins.add("https://registry-1.docker.io:443", lambda asked: reply(200))
        self.assertEqual(self.status(self.endpoint("docker.io/library/busybox:1")), 200)
        self.assertEqual(self.origins.targets(), ["/v2/library/busybox/manifests/t"])
        with self.assertRaises(NetworkError):
            self.status(self.endpoint("docker.io:443/x:1"))

    def test_a_port_that_is_none_is_an_error_of_the_reference(self) -> None:
        with self.assertRaisesRegex(SourceError, "expected a port from 1 to 65535") as caught:
            self.status(self.endpoint("r.example:99999999/a/b:t"))
        self.assertIs(caught.exception.code, ErrorCode.REFERENCE_INVALID)

    def test_a_blocked_place_is_not_asked(self) -> None:
        with self.assertRaisesRegex(CipError, "blocked by registries.conf") as caught:
            self.status(self.endpoint(blocked=True))
        self.assertIs(caught.exception.code, ErrorCode.REGISTRY_BLOCKED)
