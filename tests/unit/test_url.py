# SPDX-License-Identifier: Apache-2.0
"""URLs: what is read, what is refused, and how relative ones are joined."""

import unittest

from cip.errors import InvalidInputError
from cip.net.url import Origin, Url, decode_form, encode_form, join_url, parse_origin, parse_url


class ParseTest(unittest.TestCase):
    def test_scheme_host_port_and_target_are_told_apart(self) -> None:
        for text, origin, target in (
            ("http://h", Origin("http", "h", 80), "/"),
            ("HTTPS://Reg.Example.COM/v2/", Origin("https", "reg.example.com", 443), "/v2/"),
            ("https://h:5000?a=b", Origin("https", "h", 5000), "/?a=b"),
            ("http://[2001:DB8::1]:8080/x", Origin("http", "2001:db8::1", 8080), "/x"),
            ("http://h:/x", Origin("http", "h", 80), "/x"),
            ("http://h/x#fragment", Origin("http", "h", 80), "/x"),
            ("http://h/a b?c=|é", Origin("http", "h", 80), "/a%20b?c=%7C%C3%A9"),
            ("http://h/%2e%2E/x", Origin("http", "h", 80), "/%2e%2E/x"),
        ):
            with self.subTest(ascii(text)):
                self.assertEqual(parse_url(text), Url(origin, target))

    def test_what_two_readers_could_take_for_different_hosts_is_refused(self) -> None:
        for text, reason in (
            ("ftp://h/", "expected http://HOST"),
            ("file:///etc/passwd", "expected http://HOST"),
            ("//h/x", "expected http://HOST"),
            ("/x", "expected http://HOST"),
            ("", "expected http://HOST"),
            ("http://", "not a host name"),
            ("http:///x", "not a host name"),
            ("http://user:pw@h/", "user name or password"),
            ("http://h\\@evil/", "a character that a URL cannot have"),
            ("http://h\r\nX: y/", "a character that a URL cannot have"),
            ("http://h\0/", "a character that a URL cannot have"),
            ("http://h%2eevil/", "not a host name"),
            ("http://ex ample/", "not a host name"),
            ("http://bücher/", "not a host name"),
            ("http://-h/", "not a host name"),
            ("http://[::1/", "expected HOST"),
            ("http://[::1%25eth0]/", "not a host name"),
            ("http://h:0/", "a port from 1 to 65535"),
            ("http://h:65536/", "a port from 1 to 65535"),
            ("http://h:99999999999/", "a port from 1 to 65535"),
            ("http://h:80:80/", "expected HOST"),
            ("http://h/" + "x" * 9000, "longer than 8192"),
            ("http://h/\udcff", "not valid UTF-8"),
        ):
            with self.subTest(ascii(text[:40])), self.assertRaisesRegex(InvalidInputError, reason):
                parse_url(text)

    def test_a_query_is_never_shown(self) -> None:
        self.assertEqual(str(parse_url("https://h:444/p?token=hush")), "https://h:444/p")
        with self.assertRaises(InvalidInputError) as caught:
            parse_url("ftp://h/?token=hush")
        self.assertNotIn("hush", str(caught.exception))

    def test_the_default_port_is_left_out_of_the_host_field(self) -> None:
        for scheme, authority, shown, address in (
            ("http", "h:80", "h", "h:80"),
            ("https", "h:80", "h:80", "h:80"),
            ("https", "[::1]", "[::1]", "[::1]:443"),
        ):
            with self.subTest(authority):
                origin = parse_origin(scheme, authority)
                self.assertEqual((origin.authority, origin.address), (shown, address))


class JoinTest(unittest.TestCase):
    def test_relative_locations_are_seen_from_the_base(self) -> None:
        base = parse_url("http://h:5000/a/b/c?x=1")
        for location, expected in (
            ("/z", "http://h:5000/z"),
            ("z?q=1", "http://h:5000/a/b/z?q=1"),
            ("../z", "http://h:5000/a/z"),
            ("../../../../z", "http://h:5000/z"),
            (".", "http://h:5000/a/b/"),
            ("?k", "http://h:5000/a/b/c?k"),
            ("//o/p", "http://o/p"),
            ("https://o/p", "https://o/p"),
            ("#f", "http://h:5000/a/b/c?x=1"),
            ("", "http://h:5000/a/b/c?x=1"),
        ):
            with self.subTest(ascii(location)):
                self.assertEqual(join_url(base, location), parse_url(expected))

    def test_other_schemes_are_refused(self) -> None:
        base = parse_url("http://h/")
        for location in ("file:///etc/passwd", "ftp://h/x", "javascript:alert(1)", "mailto:x"):
            with self.subTest(ascii(location)), self.assertRaisesRegex(InvalidInputError, "expected http://HOST"):
                join_url(base, location)

    def test_two_slashes_without_a_host_are_refused(self) -> None:
        base = parse_url("https://h/a/b")
        for location in ("//", "///", "///evil.example/x", "//?q", "//#f", "////evil.example"):
            with self.subTest(location), self.assertRaisesRegex(InvalidInputError, "'' is not a host name"):
                join_url(base, location)


class FormTest(unittest.TestCase):
    def test_forms_are_sorted_by_name_and_keep_the_order_of_values(self) -> None:
        pairs = [("scope", "repository:a/b:pull"), ("account", "u"), ("scope", "x y&z"), ("foo", "ü+~")]
        self.assertEqual(encode_form(pairs), "account=u&foo=%C3%BC%2B~&scope=repository%3Aa%2Fb%3Apull&scope=x+y%26z")

    def test_forms_are_read_back(self) -> None:
        self.assertEqual(
            decode_form("a=1&b=x+y%26&c&&=v&d=%zz"), [("a", "1"), ("b", "x y&"), ("c", ""), ("", "v"), ("d", "%zz")]
        )
