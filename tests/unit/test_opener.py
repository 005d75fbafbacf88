# SPDX-License-Identifier: Apache-2.0
"""Requests: reuse of connections, redirects and what travels along them, addresses, proxies, budgets."""

from cip.errors import ErrorCode, NetworkError, Phase, redact_with
from cip.events import NO_EVENTS
from cip.hostconfig.proxyenv import Proxy
from cip.net.addresses import AddressClass
from cip.net.limits import Limits
from cip.net.opener import REQUEST_LIMIT, Opener, Redirects, Request
from cip.net.tls import TlsIdentity
from cip.net.url import parse_url
from cip.registry.authorization import Access, Authorization
from cip.settings import Credentials, Settings, TimeLimits, TransferLimits
from tests.support.origins import SECRET, Asked, OpenerCase, Reply, Script, reply
from tests.support.roomed import needs_rooms

BASIC = "Basic dTpodXNo"  # u:hush


def redirect(location: str, status: int = 307) -> Reply:
    return reply(status, b"elsewhere", {"Location": location})


def ok(asked: Asked) -> Reply:
    return reply(200, b"found")


def in_turn(*answers: Reply) -> Script:
    """One answer after the other."""
    left = list(answers)
    return lambda asked: left.pop(0)


def first_redirecting(location: str, status: int = 307) -> Script:
    """`/x` is elsewhere, all else is here."""
    return lambda asked: redirect(location, status) if asked.target == "/x" else ok(asked)


class ExchangeTest(OpenerCase):
    def test_one_connection_serves_one_request_after_the_other(self) -> None:
        self.origins.add("https://h:443", ok)
        for _ in range(3):
            self.assertEqual(self.get("https://h/x"), b"found")
        self.assertEqual(self.origins.opened, ["https://h:443"])

    def test_a_request_says_what_it_wants_and_no_more(self) -> None:
        self.origins.add("https://h:5000", ok)
        self.get("https://h:5000/x?y", SECRET)
        (asked,) = self.origins.asked
        self.assertEqual((asked.method, asked.target), ("GET", "/x?y"))
        self.assertEqual(
            asked.fields,
            {
                "host": "h:5000",
                "user-agent": "agent/1",
                "accept-encoding": "identity",
                "accept": "x",
                "authorization": SECRET,
            },
        )

    def test_a_connection_that_says_close_is_closed(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(200, b"found", {"Connection": "close"}))
        self.get("https://h/x")
        self.get("https://h/x")
        self.assertEqual(len(self.origins.opened), 2)

    def test_a_kept_connection_that_died_is_replaced_once(self) -> None:
        for data, then in ((b"", "close"), (b"HTT", "close"), (b"garbage\r\n\r\n", "keep"), (b"HTTP/1.1 200", "close")):
            with self.subTest(data):
                answers = [reply(200, b"first"), Reply(data, then), reply(200, b"second"), reply(200, b"third")]
                self.origins.add("https://h:443", in_turn(*answers))
                self.use(self.settings)
                self.assertEqual([self.get("https://h/x") for _ in range(3)], [b"first", b"second", b"third"])

    def test_a_fresh_connection_that_dies_is_an_error(self) -> None:
        self.origins.add("https://h:443", lambda asked: Reply(b"", "close"))
        error = self.refused(
            "https://h/x", r"h:443: the connection ended before its answer \(direct\)", ErrorCode.CONNECTION_LOST
        )
        self.assertEqual(error.host, "h:443")
        self.assertEqual(len(self.origins.asked), 1)

    def test_silence_on_a_kept_connection_is_not_repeated_at_once(self) -> None:
        answers = [reply(200, b"first"), Reply(b"", "hang")]
        self.origins.add("https://h:443", lambda asked: answers.pop(0))
        self.use(Settings(times=TimeLimits(idle=0.05)))
        self.get("https://h/x")
        self.refused("https://h/x", "no byte within 0.05 s", ErrorCode.TIMEOUT)

    def test_a_post_goes_over_a_connection_of_its_own(self) -> None:
        self.origins.add("https://h:443", ok)
        self.get("https://h/x")
        self.send("https://h/t", body=b"a=b").read_all(100, "it")
        self.assertEqual([asked.method for asked in self.origins.asked], ["GET", "POST"])
        self.assertEqual(self.origins.asked[1].body, b"a=b")
        self.assertEqual(len(self.origins.opened), 2)

    def test_the_body_of_a_refusal_is_read_for_the_sake_of_the_connection(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(404, b"x" * 1000))
        for _ in range(2):
            self.send("https://h/x").close()
        self.assertEqual(len(self.origins.opened), 1)

    def test_an_endless_body_that_nobody_wants_is_not_read(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(404, b"x", {"Content-Length": "99999999"}, then="hang"))
        self.send("https://h/x").close()

    def test_a_body_is_bounded(self) -> None:
        self.origins.add("https://h:443", lambda asked: reply(200, b"x" * 1001))
        self.refused("https://h/x", "it: larger than 1000 bytes", ErrorCode.LIMIT_EXCEEDED)

    @needs_rooms("budget")
    def test_the_budget_ends_a_body(self) -> None:
        self.use(Settings(transfer=TransferLimits(max_bytes=8)))
        self.origins.add("https://h:443", ok)
        self.get("https://h/x")
        self.refused("https://h/x", "--max-bytes allows 8 bytes", ErrorCode.BUDGET_EXHAUSTED)

    @needs_rooms("budget")
    def test_time_that_the_rate_costs_is_told_apart(self) -> None:
        self.use(Settings(transfer=TransferLimits(max_rate=40)))
        self.origins.add("https://h:443", lambda asked: reply(200, b"x" * 80))
        response = self.send("https://h/x")
        response.read_all(100, "it")
        self.assertAlmostEqual(response.paused, 2.0, delta=0.2)

    @needs_rooms("budget")
    def test_a_body_that_nobody_wants_is_not_waited_for_by_a_low_rate(self) -> None:
        self.use(Settings(transfer=TransferLimits(max_rate=100)))
        self.origins.add("https://h:443", lambda asked: reply(404, b"x" * 60_000))
        began = self.clock.now
        self.send("https://h/x").close()
        self.assertLess(self.clock.now - began, 2.0)

    def test_work_that_was_called_off_sends_nothing(self) -> None:
        self.origins.add("https://h:443", ok)
        self.cancellation.cancel()
        self.refused("https://h/x", "given up by the caller", ErrorCode.CONNECTION_LOST)
        self.assertEqual(self.origins.asked, [])


class RedirectTest(OpenerCase):
    def seen(self) -> list[tuple[str, str | None]]:
        return [(asked.host, asked.fields.get("authorization")) for asked in self.origins.asked]

    def test_credentials_go_to_the_same_scheme_host_and_port_only(self) -> None:
        # registry.md M2, M3
        for location, kept in (
            ("/elsewhere", True),
            ("https://h/elsewhere", True),
            ("https://H:443/elsewhere", True),
            ("https://h:444/elsewhere", False),
            ("https://sub.h/elsewhere", False),
            ("https://other/elsewhere", False),
        ):
            with self.subTest(location):
                self.origins.asked.clear()
                self.origins.add("https://h:443", first_redirecting(location))
                for name in ("https://h:444", "https://sub.h:443", "https://other:443"):
                    self.origins.add(name, ok)
                self.get("https://h/x", SECRET)
                self.assertEqual([secret for _, secret in self.seen()], [SECRET, SECRET if kept else None])

    def test_a_password_that_occurs_in_the_registry_s_name_changes_nothing(self) -> None:
        self.origins.secrets.keep("registry")
        redact_with(self.origins.secrets.redact)
        self.addCleanup(redact_with, str)
        for location in ("/elsewhere", "https://registry.example/elsewhere"):
            self.origins.asked.clear()
            self.origins.add("https://registry.example:443", first_redirecting(location))
            self.get("https://registry.example/x", SECRET)
            self.assertEqual([secret for _, secret in self.seen()], [SECRET, SECRET])

    def test_credentials_that_were_dropped_do_not_come_back(self) -> None:
        self.origins.add("https://h:443", lambda a: redirect("https://o/y") if a.target == "/x" else ok(a))
        self.origins.add("https://o:443", lambda a: redirect("https://h/back"))
        self.assertEqual(self.get("https://h/x", SECRET), b"found")
        self.assertEqual(self.seen(), [("h:443", SECRET), ("o:443", None), ("h:443", None)])

    def test_http_to_https_and_back_drops_credentials_and_then_refuses(self) -> None:
        self.origins.add("http://h:80", lambda a: redirect("https://h/y"))
        self.origins.add("https://h:443", lambda a: redirect("http://h/z"))
        self.refused("http://h/x", "expected a redirect to https, found one to http", ErrorCode.REDIRECT_REFUSED)
        self.assertEqual(self.seen(), [("h:80", SECRET), ("h:443", None)])

    def test_without_verification_https_may_lead_to_http(self) -> None:
        self.origins.add("https://h:443", lambda a: redirect("http://h/y"))
        self.origins.add("http://h:80", ok)
        self.use(self.settings, verify=False)
        self.assertEqual(self.get("https://h/x", SECRET), b"found")
        self.assertEqual(self.seen()[1], ("h:80", None))

    def test_other_schemes_and_broken_urls_are_refused(self) -> None:
        for location in ("file:///etc/passwd", "ftp://h/x", "https://u:p@h/x", "https://", "https://h:0/", "x\\y"):
            with self.subTest(location):
                self.origins.add("https://h:443", in_turn(redirect(location)))
                self.refused("https://h/x", "h:443: a redirect leads nowhere", ErrorCode.REDIRECT_REFUSED)

    def test_a_loop_ends_after_ten_requests(self) -> None:
        # registry.md M4
        self.origins.add("https://h:443", lambda a: redirect("/x"))
        self.refused("https://h/x", "more than 10 requests in a chain", ErrorCode.REDIRECT_REFUSED)
        self.assertEqual(len(self.origins.asked), REQUEST_LIMIT)
        self.assertEqual(len(self.origins.opened), 1)

    def test_the_method_is_kept_or_becomes_get_as_the_status_says(self) -> None:
        for status, expected in ((301, "GET"), (302, "GET"), (303, "GET"), (307, None), (308, None)):
            with self.subTest(status):
                self.origins.asked.clear()
                self.origins.add("https://h:443", first_redirecting("/y", status))
                response = self.send("https://h/x", body=b"a=b")
                response.close()
                if expected is None:  # a form is not posted where a registry says (registry.md 4.4)
                    self.assertEqual((response.status, len(self.origins.asked)), (status, 1))
                else:
                    self.assertEqual((self.origins.asked[1].method, self.origins.asked[1].body), (expected, b""))

    def test_a_redirect_without_a_place_is_an_answer(self) -> None:
        self.origins.add("https://h:443", lambda a: reply(302))
        self.assertEqual(self.send("https://h/x").status, 302)

    def test_the_fields_of_the_request_travel_along_but_no_referer(self) -> None:
        self.origins.add("https://h:443", lambda a: redirect("https://o/y?signed=hush"))
        self.origins.add("https://o:443", ok)
        response = self.send("https://h/x")
        self.assertEqual((response.origin.address, response.read_all(9, "it")), ("o:443", b"found"))
        self.assertEqual(set(self.origins.asked[1].fields), {"host", "user-agent", "accept-encoding", "accept"})


class AddressTest(OpenerCase):
    def test_a_registry_leads_to_its_own_class_of_address_only(self) -> None:
        kinds = AddressClass
        for here, there, allowed in (
            (kinds.PUBLIC, kinds.PUBLIC, True),
            (kinds.PUBLIC, kinds.PRIVATE, False),
            (kinds.PUBLIC, kinds.LOOPBACK, False),
            (kinds.PUBLIC, kinds.FORBIDDEN, False),
            (kinds.PRIVATE, kinds.PRIVATE, True),
            (kinds.PRIVATE, kinds.LOOPBACK, False),
            (kinds.LOOPBACK, kinds.LOOPBACK, True),
            (kinds.LOOPBACK, kinds.FORBIDDEN, False),
            (kinds.FORBIDDEN, kinds.FORBIDDEN, False),
        ):
            with self.subTest(here=here, there=there):
                self.origins.opened.clear()
                self.origins.add("https://h:443", lambda a: redirect("https://o/y"), here)
                self.origins.add("https://o:443", ok, there)
                self.use(self.settings)
                if allowed:
                    self.assertEqual(self.get("https://h/x"), b"found")
                else:
                    self.refused("https://h/x", "o:443: the registry sends us to", ErrorCode.ADDRESS_REFUSED)
                    self.assertEqual(self.origins.opened, ["https://h:443"])

    def test_a_kept_connection_is_judged_too(self) -> None:
        self.origins.add("https://o:443", ok, AddressClass.PRIVATE)
        self.get("https://o/configured")
        self.opener = Opener(self.network, TlsIdentity(), Redirects())  # another endpoint, which is public
        self.origins.add("https://h:443", lambda a: redirect("https://o/y"))
        self.refused("https://h/x", "a private network", ErrorCode.ADDRESS_REFUSED)
        self.assertEqual(self.origins.targets("o:443"), ["/configured"])

    def test_a_realm_is_judged_by_where_the_registry_was_reached(self) -> None:
        self.origins.add("https://h:443", ok)
        self.origins.add("https://auth:443", ok, AddressClass.LOOPBACK)
        self.get("https://h/x")
        self.refused("https://auth/token", "an address of this host", ErrorCode.ADDRESS_REFUSED, configured=False)


class ProxyTest(OpenerCase):
    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy("http", "p", 3128, Credentials("u", "hush"), "HTTP_PROXY")
        self.origins.proxies["http"] = self.proxy

    def test_plain_requests_carry_the_whole_url_and_the_proxy_s_credentials(self) -> None:
        self.origins.add("http://h:5000", ok)
        response = self.send("http://h:5000/x?y")
        response.read_all(9, "it")
        (asked,) = self.origins.asked
        self.assertEqual((asked.target, asked.fields["host"]), ("http://h:5000/x?y", "h:5000"))
        self.assertEqual(asked.fields["proxy-authorization"], "Basic dTpodXNo")
        self.assertEqual(response.via, "via proxy p:3128")

    def test_a_proxy_that_refuses_its_credentials_is_told_from_a_registry(self) -> None:
        self.origins.add("http://h:80", lambda a: reply(407, b"who are you"))
        error = self.refused("http://h/x", "the proxy p:3128 refuses the credentials", ErrorCode.AUTHENTICATION_FAILED)
        self.assertEqual((error.phase, error.host, error.http_status), (Phase.PROXY, "p:3128", 407))

    def test_a_refusing_proxy_can_be_asked_again(self) -> None:
        for body in (b"", b"who are you"):
            with self.subTest(body):
                self.origins.add("http://h:80", lambda a, body=body: reply(407, body))  # type: ignore[misc]
                for _ in range(3):
                    self.refused("http://h/x", "the proxy p:3128 refuses", ErrorCode.AUTHENTICATION_FAILED)

    def test_what_only_the_proxy_can_resolve_is_judged_by_its_text(self) -> None:
        self.origins.add("http://h:80", lambda a: redirect("http://metadata.google.internal/x"))
        self.refused("http://h/x", "metadata address", ErrorCode.ADDRESS_REFUSED)
        self.assertEqual(len(self.origins.opened), 1)

    def test_every_fault_of_the_network_says_how_we_went(self) -> None:
        self.refused("http://nowhere/x", "via proxy p:3128", ErrorCode.CONNECTION_REFUSED)
        self.refused("https://nowhere/x", "direct", ErrorCode.CONNECTION_REFUSED)

    def test_a_socks_proxy_is_a_way_and_not_asked_itself(self) -> None:
        self.origins.proxies["http"] = self.proxy._replace(scheme="socks5")
        self.origins.add("http://h:5000", lambda asked: reply(407))
        self.assertEqual(self.send("http://h:5000/x?y").status, 407)
        (asked,) = self.origins.asked
        self.assertEqual(asked.target, "/x?y")
        self.assertNotIn("proxy-authorization", asked.fields)

    def test_only_a_proxy_is_taken_for_one(self) -> None:
        self.origins.add("https://h:443", lambda a: reply(407))
        self.assertEqual(self.send("https://h/x").status, 407)


class FaultTest(OpenerCase):
    def test_a_fault_while_opening_frees_the_place_in_the_pool(self) -> None:
        self.use(Settings(transfer=TransferLimits(connections=1)))
        self.origins.add("https://h:443", ok)
        self.origins.places["https://h:443"].fault = NetworkError("h: no")
        with self.assertRaisesRegex(NetworkError, "h: no"):
            self.get("https://h/x")
        self.origins.places["https://h:443"].fault = None
        self.assertEqual(self.get("https://h/x"), b"found")


class Untouchable(Limits):
    """Limits that are no number: whatever would reckon with a time-out fails."""

    def __float__(self) -> float:
        raise AssertionError("limits are passed on unread")

    __add__ = __lt__ = __gt__ = __index__ = __float__


class LibraryTest(OpenerCase):
    """The undocumented behaviour of urllib.request that the opener rests on (stdlib-http.md section 5)."""

    def test_the_director_has_our_handlers_and_no_others(self) -> None:
        tables = [vars(self.opener)[name] for name in ("handle_open", "process_request", "handle_error")]
        self.assertEqual(
            [{key: [type(each).__name__ for each in value] for key, value in table.items()} for table in tables[:2]],
            [{scheme: ["Transport"] for scheme in ("http", "https")}] * 2,
        )
        self.assertEqual(
            {status: [type(each).__name__ for each in value] for status, value in tables[2]["http"].items()},
            {"default": ["Transport"]} | {status: ["Redirects"] for status in (301, 302, 303, 307, 308)},
        )

    def test_limits_travel_unread_behind_a_redirect_and_a_challenge(self) -> None:
        challenge = reply(401, b"", {"WWW-Authenticate": "Basic"})
        self.origins.add("https://h:443", in_turn(redirect("/y"), challenge, reply(200, b"found")))
        access = Access(Credentials("u", "hush"), "", "", "")
        authorization = Authorization(access, "a/b", self.clock, NO_EVENTS)
        opener = Opener(self.network, TlsIdentity(), Redirects(), authorization)
        limits = Untouchable(self.clock, self.settings.times, self.cancellation)
        response = opener.ask(Request(parse_url("https://h/x"), challenged=True), limits)
        self.assertIs(response.limits, limits)
        self.assertEqual(response.read_all(9, "it"), b"found")
        self.assertEqual([asked.fields.get("authorization") for asked in self.origins.asked], [None, None, BASIC])
