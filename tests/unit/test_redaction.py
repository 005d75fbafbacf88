# SPDX-License-Identifier: Apache-2.0
import base64
import codecs
import html
import json
import re
import unittest
import urllib.parse
from collections.abc import Callable, Iterator, Set
from email.message import Message
from functools import cache
from unittest import mock

from cip.errors import CipError, quote, quote_own, redact_with, redacted, strip_url
from cip.model.jsontree import parse_json
from cip.net.redaction import KEPT_LIMIT, LEFT_OUT, MARK, RUN, Secrets, _forms
from cip.net.response import Response
from cip.net.url import parse_foreign_url
from cip.registry.authorization import parse_challenges
from cip.registry.endpoints import media_type_of
from tests.support.secrets import secret

WORD = secret("echo")
PACKED = base64.b64encode(f"robot:{WORD}".encode()).decode()
FORM = f"grant_type=password&password={WORD}%21&service=s".encode()


def no_run(secret: str, text: str) -> bool:
    """Whether no 8 characters of `secret` stand in `text` in a row, nor a shorter one whole."""
    shown = text.lower()
    return not any(run in shown for run in _runs(secret.lower()))


@cache
def _runs(secret: str) -> Set[str]:
    return {secret[start : start + RUN] for start in range(max(len(secret) - RUN, 0) + 1)}


def encodings(secret: str) -> dict[str, str]:
    """Every way in which a hostile host might say it."""
    raw, middle = secret.encode(), len(secret) // 2
    packed = base64.b64encode(raw).decode()
    return {
        "whole": secret,
        "first half": secret[:middle],
        "second half": secret[middle:],
        "percent-encoded": urllib.parse.quote(secret, safe=""),
        "every byte percent-encoded": "".join(f"%{byte:02x}" for byte in raw),
        "JSON": json.dumps(secret),
        "JSON of others": json.dumps(secret, ensure_ascii=False).replace("/", "\\/"),
        "every character escaped": "".join(f"\\u{ord(each):04X}" for each in secret),
        "form": urllib.parse.quote_plus(secret),
        "upper case": secret.upper(),
        "as a sentence": f"denied for {secret}, go away",
        "wrapped": f"{secret[:10]}\r\n{secret[10:]}",
        **{f"base64 {before}": base64.b64encode(b"u:xyz"[:before] + raw + b"!").decode() for before in range(4)},
        **{f"urlsafe {before}": base64.urlsafe_b64encode(b"u:xyz"[:before] + raw).decode() for before in range(4)},
        "base64 of a half": base64.b64encode(raw[middle:]).decode(),
        "percent-encoded twice": urllib.parse.quote(urllib.parse.quote(secret, safe=""), safe=""),
        "HTML": html.escape(secret),
        "every character in HTML": "".join(f"&#{ord(each)};" for each in secret),
        "quoted-printable": "".join(f"={byte:02X}" for byte in raw),
        "base64 percent-encoded": urllib.parse.quote(packed, safe=""),
        "every character of base64 percent-encoded": "".join(f"%{ord(each):02X}" for each in packed),
        "base64 in lines": "\\n".join(packed[place : place + 8] for place in range(0, len(packed), 8)),
        "base64 of base64": base64.b64encode(base64.b64encode(b"u:" + raw)).decode(),
        "base64 of percent-encoded": base64.b64encode(urllib.parse.quote(secret, safe="").encode()).decode(),
        "base32": base64.b32encode(raw).decode(),
        "base32 behind a name": base64.b32encode(b"u:" + raw).decode().rstrip("=").lower(),
        "hexadecimal": raw.hex(),
        "hexadecimal in upper case": raw.hex().upper(),
        "hexadecimal with colons": raw.hex(":"),
        "escaped as in C": "".join(f"\\x{byte:02x}" for byte in raw),
        "UTF-16": secret.encode("utf-16-le").decode("latin-1"),
        "base64 of UTF-16": base64.b64encode(secret.encode("utf-16-le")).decode(),
        "in lines of JSON": "\\r\\n".join(secret[place : place + 5] for place in range(0, len(secret), 5)),
    }


def unescaped(text: str) -> str:
    """`text` as a reader of JSON reads it."""
    return re.sub(r'\\u([0-9A-Fa-f]{4})|\\(["\\/])', lambda found: found[2] or chr(int(found[1], 16)), text)


def hexadecimal_and_base32(text: str) -> Iterator[bytes]:
    """What words of `text` are in these encodings."""
    for word in re.findall(r"[0-9A-Fa-f]{8,}", text.replace(":", "").replace("\\x", "")):
        for start in range(2):
            yield bytes.fromhex(word[start : start + (len(word) - start) // 2 * 2])
    for word in re.findall(r"[A-Za-z2-7]{8,}", text):
        yield base64.b32decode(word[: len(word) // 8 * 8].upper())


class SecretsTest(unittest.TestCase):
    def kept(self, *secrets: str) -> Secrets:
        found = Secrets()
        found.keep(*secrets)
        return found

    def test_no_run_of_eight_characters_is_shown_in_any_encoding(self) -> None:
        for held in (
            secret("echo-and-more"),
            'quo"te\\ba/ck\\sla"sh/es',
            "one-two three-four five-six",
            "pässwörd-with-ümlauts",
            "correct:horse battery/staple+?&=",
            "x" * 500,
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhdXRoIn0.c2lnbmF0dXJl-_42",
        ):
            secrets = self.kept(held, "another-secret-of-no-concern")
            for case, said in encodings(held).items():
                self._require_hidden(held, secrets.redact(f"the registry says {said} and more"), case)
                if "base32" not in case:  # which is read from its first letter
                    letters = (len(held) + len(case)) % 4
                    glued = f"the registry says {'a7Z'[:letters]}{said}{'f2'[letters:]} and more"
                    self._require_hidden(held, secrets.redact(glued), case)

    def _require_hidden(self, held: str, shown: str, case: str) -> None:
        with self.subTest(held[:20], case=case):
            self.assertTrue(no_run(held, shown), shown)
            self.assertTrue(no_run(held, urllib.parse.unquote(shown)), shown)
            self.assertTrue(no_run(held, urllib.parse.unquote_plus(shown)), shown)
            self.assertTrue(no_run(held, unescaped(shown)), shown)
            for unpacked in hexadecimal_and_base32(shown):
                self.assertTrue(no_run(held, unpacked.decode("utf-8", "replace")), shown)
            for word in re.findall(r"[A-Za-z0-9+/]{8,}", shown.translate(str.maketrans("-_", "+/"))):
                for start in range(4):
                    decoded = base64.b64decode(word[start : start + (len(word) - start) // 4 * 4])
                    self.assertTrue(no_run(held, decoded.decode("utf-8", "replace")), shown)
            self.assertRegex(shown, "^the registry says .* and more$" if case != "wrapped" else "and more$")

    def test_a_host_that_wants_to_tell_what_it_was_sent_finds_a_way(self) -> None:
        """README says so; whoever covers one of these as well says it there."""
        for said in (
            WORD[::-1],
            " ".join(WORD),
            base64.b85encode(WORD.encode()).decode(),
            codecs.encode(WORD, "rot13"),
        ):
            self.assertEqual(self.kept(WORD).redact(said), said)

    def test_a_registry_that_is_cut_short_by_us_has_said_nothing_before(self) -> None:
        """A body that was cut before it was searched showed 46 of 48 characters."""
        held = "k3y-" * 12
        redact_with(self.kept(held).redact)
        self.addCleanup(redact_with, str)
        for before in range(120):
            self.assertTrue(no_run(held, quote("." * before + held)), before)

    def test_bytes_are_searched_before_they_are_escaped(self) -> None:
        for held in ("a\\b\\c\\d\\e\\f\\g", "sch\u00e4rfer\u00fcberpr\u00fcft"):
            redact_with(self.kept(held).redact)
            self.addCleanup(redact_with, str)
            self.assertEqual(quote(b"HTTP " + held.encode()), "'HTTP [redacted]'")

    def test_what_an_escape_of_ours_would_write_is_hidden(self) -> None:
        self.addCleanup(redact_with, str)
        for held, said in (
            (r"w0rd\\with\\two", r"w0rd\with\two"),
            (r"ab\ncdefgh", "ab\ncdefgh"),
            (r"ab\x01cdefgh", "ab\x01cdefgh"),
            (r"ab\u200bcdefgh", "ab\u200bcdefgh"),
            (r"ab\'cd\'ef", "ab'cd'ef\""),
        ):
            redact_with(self.kept(held).redact)
            self.assertTrue(no_run(held, quote(f"denied for {said}")), held)

    def test_a_password_that_is_no_utf_8_is_one(self) -> None:
        secrets = Secrets()
        secrets.keep_sent(["Basic " + base64.b64encode(b"u:p\xffssw\xf6rd!!").decode()], b"")
        for said in ("p\udcffssw\udcf6rd!!", "p\xffssw\xf6rd!!", "p%ffssw%f6rd!!"):
            self.assertEqual(secrets.redact(said), MARK)

    def test_what_is_read_in_lower_case_is_searched_before(self) -> None:
        redact_with(self.kept(WORD, "bearer", "html").redact)
        self.addCleanup(redact_with, str)
        said = base64.b64encode(WORD.encode()).decode().rstrip("=")
        headers = Message()
        headers["Content-Type"] = headers["Content-Encoding"] = said
        answer = mock.Mock(headers=headers)
        with self.assertRaises(CipError) as coded:
            Response.require_uncompressed(answer)
        with self.assertRaises(CipError) as named:
            parse_foreign_url(f"https://-{said}/")
        shown = (
            str(parse_foreign_url(f"https://{said}:444/x")),
            parse_challenges([said])[0].scheme,
            media_type_of(answer),
            str(coded.exception),
            str(named.exception),
        )
        for text in shown:
            self.assertTrue(no_run(said, text), text)
            self.assertIn(MARK, text)
        self.assertEqual(parse_challenges(["Bearer x"])[0].scheme, "bearer", "what we know is what it is")
        headers.replace_header("Content-Type", "text/HTML; a=b")
        self.assertEqual(media_type_of(answer), "text/html")

    def test_what_is_put_together_from_pieces_is_searched_as_a_whole(self) -> None:
        self.addCleanup(redact_with, str)
        words = parse_json(b'{"corr":{"horse":{"batt":1}}}', "x")["corr"]["horse"]["batt"]
        cases: tuple[tuple[str, Callable[[], str]], ...] = (
            ("hunter:2026", lambda: str(parse_foreign_url("http://hunter:2026/x"))),
            ("q7zk3a/x9Lm2P", lambda: str(parse_foreign_url("http://q7zk3a/x9Lm2P"))),
            ("q7zk3a:8443/x9Lm2P", lambda: str(parse_foreign_url("https://q7zk3a:8443/x9Lm2P"))),
            ("corr.horse.batt", lambda: words.where),
        )
        for held, text in cases:
            redact_with(self.kept(held).redact)
            with self.subTest(held):
                self.assertTrue(no_run(held, text()), text())
        self.assertEqual(str(parse_foreign_url("http://other:2026/x")), "http://other:2026/x")

    def test_shorter_secrets_are_hidden_whole_and_the_shortest_with_their_text(self) -> None:
        for held, said, shown in (
            ("s3cret", "user s3cret is unknown", "user [redacted] is unknown"),
            ("s3cret", "user S3CRET is unknown", "user [redacted] is unknown"),
            ("s3cret", "user cret is unknown", "user cret is unknown"),
            ("s3cret", "czNjcmV0 is wrong", "[redacted] is wrong"),
            ("s3cret", "%733cret is wrong", "[redacted] is wrong"),
            ("s3cret", "733363726574 is wrong", "[redacted] is wrong"),
            ("s3cret", "0733 36 37 26 574 is wrong", "0[redacted] is wrong"),
            ("s3cret", "NzMzMzYzNzI2NTc0Zx is wrong", "[redacted] is wrong"),
            ("pw12", "no pw12", "no [redacted]"),
            ("pw1", "no pw1 here", LEFT_OUT),
            ("pw1", "cHcx", LEFT_OUT),
            ("pw1", "no such name", "no such name"),
        ):
            with self.subTest(held, said=said):
                self.assertEqual(self.kept(held).redact(said), shown)

    def test_other_texts_are_shown_without_users_and_queries_of_urls(self) -> None:
        secrets = self.kept(WORD)
        for said, shown in (
            ("", ""),
            ("manifest unknown", "manifest unknown"),
            ("robot may not pull os/base:9@sha256:0123", "robot may not pull os/base:9@sha256:0123"),
            ("see https://h/x?token=1&y for more", "see https://h/x for more"),
            ("see https://h/x#fragment", "see https://h/x"),
            ("see http://me:word@h/x, or tcp://me@h", "see http://h/x, or tcp://h"),
            ("file://me:word@localhost/x?a", "file://localhost/x"),
            ("docker://name@sha256:0", "docker://name@sha256:0"),
            ("why? because", "why? because"),
        ):
            with self.subTest(said):
                self.assertEqual(secrets.redact(said), shown)
                self.assertEqual(strip_url(said), shown)
        self.assertEqual(secrets.redact("moved to /v2/y?X-Amz-Signature=1 now"), "moved to /v2/y?… now")

    def test_our_own_wording_and_what_the_user_wrote_are_no_victims(self) -> None:
        """`HTTPS_PROXY: expected http://[USER:PASSWORD@]HOST` once arrived mutilated."""
        redact_with(self.kept("password", "http://[u", "a").redact)
        self.addCleanup(redact_with, str)
        self.assertEqual(quote_own("/home/a/password"), "'/home/a/password'")
        self.assertEqual(quote_own("http://me:word@h/x?t=1"), "'http://h/x'")
        for written in ("me:word@h:1/x?t=word", "me:wo/rd@h:1/x?t=1", "@h:1/x?t=1"):
            self.assertEqual(quote_own(written), "'h:1/x?…'" if written[0] != "@" else "'@h:1/x?…'")
        self.assertEqual(quote_own(f"h:1/x@sha256:{'0' * 64}"), f"'h:1/x@sha256:{'0' * 64}'")
        self.assertEqual(str(CipError("expected http://[USER:PASSWORD@]HOST")), "expected http://[USER:PASSWORD@]HOST")
        self.assertEqual(quote("a password"), repr(LEFT_OUT))
        self.assertEqual(redacted("the password"), LEFT_OUT)

    def test_what_is_no_text_is_searched_as_it_is_shown(self) -> None:
        redact_with(self.kept(WORD).redact)
        self.addCleanup(redact_with, str)
        self.assertNotIn(WORD, quote(ValueError(WORD)))
        self.assertNotIn(WORD, quote(WORD.encode()))
        self.assertEqual(quote(5), "5")

    def test_the_oldest_of_very_many_tokens_are_forgotten_and_nothing_else(self) -> None:
        secrets = self.kept(WORD)
        for number in range(60):
            secrets.keep(f"{number:04}" * 1000, WORD)
        self.assertNotIn(WORD, secrets.redact(WORD))
        self.assertEqual(secrets.redact("0059" * 1000), MARK)
        self.assertEqual(secrets.redact("0000" * 10), "0000" * 10)

    def test_tokens_displace_no_credentials(self) -> None:
        """A token server that makes long ones, or many, had a password shown that another host repeats."""
        for size, number in ((4096, 60), (2 * KEPT_LIMIT, 1)):
            secrets = self.kept(WORD)
            for each in range(number):
                secrets.keep_sent([f"Bearer {each:04}{'t' * size}"], b"")
            self.assertEqual(secrets.redact(WORD), MARK)

    def test_nothing_kept_hides_nothing_and_repr_shows_nothing(self) -> None:
        self.assertEqual(self.kept("").redact("anything at all"), "anything at all")
        self.assertNotIn(WORD, repr(self.kept(WORD)))


class SentTest(unittest.TestCase):
    """What a request carries is kept by the one place that sends it."""

    def test_passwords_tokens_and_forms_are_kept(self) -> None:
        for case, authorizations, form, said in (
            ("a name alone", ["Basic " + base64.b64encode(f"{WORD}:".encode()).decode()], b"", f"{WORD}: is unknown"),
            ("basic", [f"Basic {PACKED}"], b"", f"bad header Basic {PACKED}"),
            ("decoded", [f"basic {PACKED}"], b"", f"user robot:{WORD} is unknown"),
            ("token", [f"Bearer {WORD}"], b"", f"token {WORD} is too old"),
            ("one of two", ["Basic eDpub3QgdGhpcyBvbmU=", f"Bearer {WORD}"], b"", WORD),
            ("malformed", [f"Basic {WORD}!"], b"", WORD),
            ("form", [], FORM, f"password {WORD}! is wrong"),
            ("form as it was sent", [], FORM, f"password={WORD}%21"),
            ("refresh token", [], f"refresh_token={WORD}".encode(), f"no such token: {WORD}"),
        ):
            with self.subTest(case):
                secrets = Secrets()
                secrets.keep_sent(authorizations, form)
                self.assertNotIn(WORD, secrets.redact(said))
                self.assertEqual(secrets.redact("robot may not pull"), "robot may not pull")

    def test_the_longer_values_of_an_address_that_was_given_are_kept(self) -> None:
        secrets = Secrets()
        secrets.keep_query(f"X-Sig={urllib.parse.quote(WORD + '+/=')}&part=1&flag&X-Other={WORD[::-1]}")
        for said in (WORD, urllib.parse.quote(WORD + "+/="), WORD[::-1]):
            self.assertTrue(no_run(WORD, secrets.redact(f"bad signature {said}")))
        self.assertEqual(secrets.redact("part 1 of flag"), "part 1 of flag")

    def test_what_is_looked_for_is_cut_once_however_many_addresses_come(self) -> None:
        """Each redirect of a blob brings signatures, and its address is searched, at no cost of those before."""
        secrets = Secrets()
        values = [f"value-{number:04}-" * 50 for number in range(300)]
        with mock.patch("cip.net.redaction._forms", side_effect=_forms) as cut:
            for value in values:
                secrets.keep_query(f"signature={value}")
                self.assertEqual(secrets.redact(f"bad signature {value}"), f"bad signature {MARK}")
        kept = KEPT_LIMIT // len(values[0])
        self.assertEqual(cut.call_count, len(values) + len(values) - kept, "each when it comes and when it goes")
        self.assertEqual([secrets.redact(said) for said in ("e-0000-v", "e-0299-v")], ["e-0000-v", MARK])

    def test_nothing_sent_hides_nothing(self) -> None:
        secrets = Secrets()
        secrets.keep_sent(["", "Basic", "Bearer "], b"")
        self.assertEqual(secrets.redact("anything at all"), "anything at all")


if __name__ == "__main__":
    unittest.main()
