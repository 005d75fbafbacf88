# SPDX-License-Identifier: Apache-2.0
"""Targets of what registries and token servers answer."""

import http.client
import math

from cip.model.descriptor import MAX_SIZE
from cip.net.response import Response
from cip.net.url import Origin, decode_form, encode_form, join_url, parse_url
from cip.registry.answers import parse_complaint
from cip.registry.authorization import choose_challenge, parse_challenges, parse_token, scopes_to_try, token_request
from cip.registry.blob import parse_content_range
from cip.registry.referrers import next_links
from cip.registry.retry import parse_http_date, parse_retry_after, parse_rfc3339
from cip.settings import Credentials

from ..engine import Target
from ..mutation import mutate_json
from .streams import PiecewiseChannel

NOW = 1_800_000_000.0  # seconds since 1970
ORIGIN = Origin("https", "registry.example.com", 443)

HTTP_WORDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\r\n ",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Host: x\r\n",
    b"GET ",
    b"HEAD ",
    b"POST /quit",
    b"%2f",
    b"5\r\n",
    b"ffffffffffffffff\r\n",
    b"-1\r\n",
    b";ext=1",
    b"\x80",
    b"\x0b",
    b": ",
    b" :",
    b"http://x/",
    b"*",
)
_CHALLENGE_WORDS = (
    b"Bearer ",
    b"Basic ",
    b"Digest ",
    b'realm="https://auth.example.com/token"',
    b',service="s"',
    b',scope="a:b:c"',
    b',error="insufficient_scope"',
    b'\\"',
    b"=",
    b",",
    b'"',
    b"realm=http://x",
    b'realm="//x"',
    b"%0d%0a",
    b"?a=b&c",
)


def _challenge(data: bytes) -> None:
    """WWW-Authenticate lines, and the token request that they ask for."""
    challenges = parse_challenges(data.decode("latin-1").split("\n"))
    for credentials in (Credentials(), Credentials("u", "p"), Credentials(identity_token="t")):
        chosen = choose_challenge(challenges, credentials, given=False)
        for scopes in scopes_to_try(chosen, "repository:a:pull") if chosen else ():
            if chosen is not None and chosen.scheme == "bearer":
                request = token_request(chosen, scopes, credentials, ORIGIN)
                _require_safe_request(request.url.target, request.url.origin.authority)


def _require_safe_request(target: str, authority: str) -> None:
    """No part of a URL may begin another line, or another request."""
    encoded = _written(target, {"Host": authority, "Accept-Encoding": "identity"})
    assert encoded.count(b"\n") == 4 and encoded.split(b"\r\n")[0].count(b" ") == 2, encoded[:200]


def _written(target: str, fields: dict[str, str]) -> bytes:
    """A request as http.client writes it."""
    connection = http.client.HTTPConnection("h")
    channel = PiecewiseChannel(b"", 1)
    connection.sock = channel
    connection.request("GET", target, headers=fields)
    return bytes(channel.sent)


def _location(data: bytes) -> None:
    """URLs of redirects, absolute and relative."""
    text = data.decode("latin-1")
    for base in ("https://registry.example.com/v2/a/b?c=d", "http://[::1]:5000/"):
        url = join_url(parse_url(base), text)
        _require_safe_request(url.target, url.origin.authority)
        assert url.origin.scheme in ("http", "https") and 0 < url.origin.port < 65536 and url.origin.host
        again = parse_url(f"{url.origin.scheme}://{url.origin.authority}{url.target}")
        # what messages say instead of a path or a host is no part of where it leads
        assert again.origin.is_same(url.origin) and again.target == url.target
        assert encode_form(decode_form(url.query)).isascii()


def _retry_after(data: bytes) -> str:
    """Retry-After: never negative, never without an end."""
    seconds = parse_retry_after(data.decode("latin-1"), NOW)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))
    return "none" if seconds is None else "whole" if seconds == int(seconds) else "fraction"


def _times(data: bytes) -> str:
    """Times of HTTP and of RFC 3339."""
    text = data.decode("latin-1")
    found = parse_http_date(text), parse_rfc3339(text)
    assert all(each is None or math.isfinite(each) for each in found)
    return " ".join("none" if each is None else "past" if each < 0 else "time" for each in found)


def _content_range(data: bytes) -> str:
    """Content-Range: numbers that fit 64 bits."""
    found = parse_content_range(data.decode("latin-1"))
    assert found is None or all(-1 <= number <= MAX_SIZE for number in found)
    return "none" if found is None else "unknown" if found[2] < 0 else "known"


def _answer(data: bytes) -> None:
    """The head of an answer, and the framing of its body up to its end."""
    for method in ("HEAD", "GET"):
        response = Response(PiecewiseChannel(data, 61), method=method)
        response.begin()
        assert 200 <= response.status <= 999
        buffer = bytearray(64)
        received = 0
        while count := response.readinto(buffer):
            received += count
        assert received <= len(data) and response.isclosed() and (method == "GET" or not received)


def _next_links(data: bytes) -> str:
    """What a `Link` field names as the next page: as it stands between angle brackets there."""
    text = data.decode("latin-1")
    links = next_links([text])
    assert all(f"<{link}>" in text for link in links)
    return "many" if len(links) > 1 else "one" if links else "none"


def _token(data: bytes) -> None:
    """The answer of a token server: a token that fits into a field, for a time that ends."""
    token = parse_token(data, NOW, "host:443")
    assert _written("/", {"Authorization": f"Bearer {token.value}"}).count(b"\n") == 5
    assert math.isfinite(token.expires)


def _complaint(data: bytes) -> str:
    """The body of a refusal; it never fails, and its text is fit for a message."""
    complaint = parse_complaint(data, 404)
    assert str(complaint).isprintable()
    return f"{bool(complaint.code)} {bool(complaint.message)}"


TARGETS = (
    Target("challenge", _challenge, _CHALLENGE_WORDS),
    Target("location", _location, (b"https://", b"http://", b"//", b"?", b"#", b"@", b"[::1]", b":0", b":99999")),
    Target("retry-after", _retry_after, (b"Sun, 06 Nov 1994 08:49:37 GMT", b"-", b"+", b"120", b"GMT")),
    Target("times", _times, (b"2020-02-30T00:00:00Z", b"+23:59", b".000", b"T24:", b" 9999 ", b"Feb")),
    Target("content-range", _content_range, (b"bytes ", b"*/", b"/*", b"-", b"/")),
    Target("answer", _answer, HTTP_WORDS),
    Target("next-links", _next_links, (b"<", b">", b"; rel=next", b'; rel="next"', b'"', b", ", b"; a=b", b" ")),
    Target("token", _token, (b'"expires_in":', b'"issued_at":"2020-01-01T00:00:00Z",'), mutate_json),
    Target("complaint", _complaint, (b'"errors":', b'"code":', b'"message":', b'"details":"x"'), mutate_json),
)
