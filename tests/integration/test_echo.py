# SPDX-License-Identifier: Apache-2.0
"""Hosts that say back what they were told, in every part of an answer that they control, in every encoding.

A registry, its token server, a proxy and the place that a registry redirects to are hostile at once. One process opens
an image for each part and encoding; whatever it writes on any channel is searched for runs of the secrets.
"""

import base64
import json
import re
import tempfile
import unittest
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cip.net.redaction import RUN
from tests.support.jsonparent import json_proxy
from tests.support.registry import Asked, Exchange, FaultyHost, Given, Strike
from tests.unit.test_redaction import encodings

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DIGEST = "sha256:" + "0" * 64


def answer(status: str, body: str | bytes = b"", *fields: str) -> bytes:
    """An answer with fields of its own."""
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", "Connection: close", *fields]
    return ("\r\n".join(head) + "\r\n\r\n").encode("utf-8") + data


def errors(code: str, message: str) -> str:
    return json.dumps({"errors": [{"code": code, "message": message}]})


def document(**changes: object) -> str:
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 2}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [], **changes})


def parts(said: str, host: str, cdn: str) -> Iterator[bytes]:
    """Every part of an answer, each with `said` in it."""
    word = re.sub(r"[\r\n]", " ", said)
    name = re.sub(r"[^A-Za-z0-9-]", "-", said)[:60].strip("-") or "x"
    path = urllib.parse.quote(word, safe="%")
    # the head
    yield answer(f"403 {word}")
    yield answer(f"200 {word}")
    yield answer(f"5{word[:2]} {word}")
    yield f"{word}\r\n\r\n".encode()
    yield f"HTTP/1.1 {word}\r\n\r\n".encode()
    yield f"HTTP/{word} 200 OK\r\n\r\n".encode()
    yield answer("403 No", b"", f"{word}")
    yield answer("403 No", b"", f"{name}: x")
    yield answer("403 No", b"", f"X{name}\x01: x")
    yield answer("403 No", b"", f"X: a{word}\x01")
    yield answer("403 No", b"", f" {word}")
    for field in (
        "Content-Type",
        "Content-Encoding",
        "Transfer-Encoding",
        "Content-Length",
        "Retry-After",
        "Link",
        "Docker-Content-Digest",
        "Warning",
        "Content-Range",
        "X-Registry-Supports-Signatures",
    ):
        yield answer("200 OK", document(), f"{field}: {word}")
        yield answer("416 No", document(), f"{field}: {word}")
    yield f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{word}\r\n".encode()
    yield f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{word}\r\nxy\r\n".encode()
    # where it points to
    for location in (
        word,
        f"/{path}",
        f"http://{cdn}/{path}",
        f"http://{cdn}/x?{path}",
        f"http://{name}.invalid/",
        f"ftp://{word}",
        f"http://{word}@{cdn}/",
        f"http://{word}",
        f"http://169.254.169.254/{path}",
        f"http://{name}:1/",
        f"http://127.0.0.1:1/{path}",
        f"https://{name}/",
        f"//{name}/",
    ):
        yield answer("307 There", b"", f"Location: {location}")
        yield answer("401 Who", b"", f'WWW-Authenticate: Bearer realm="{location}",service="s"')
    for challenge in (
        f'Basic realm="{word}"',
        f"{name} realm=x",
        f'Bearer realm="http://{host}/token",scope="{word}"',
        f'Bearer realm="http://{host}/token",service="{word}",error="{word}"',
    ):
        yield answer("401 Who", errors("UNAUTHORIZED", said), f"WWW-Authenticate: {challenge}")
    # the body
    for status in ("400 Bad", "403 No", "404 None", "500 Oh", "503 Later"):
        yield answer(status, errors("DENIED", said))
        yield answer(status, errors(said, "no"))
        yield answer(status, json.dumps({"details": said}))
        yield answer(status, f"<html>{said}</html>")
        yield answer(status, " " * 40 + said)
        yield answer(status, json.dumps({"errors": [{"code": "DENIED", "message": "x" * 65400 + said}]}))
    for text in (
        document(mediaType=said),
        document(schemaVersion=said),
        document(artifactType=said),
        document(**{said: 1}),
        document(config={said: 1}),
        document(config={"mediaType": said, "digest": said, "size": said}),
        document(layers=[{"mediaType": said, "digest": f"sha256:{said}", "size": 1}]),
        document(layers=said),
        document(annotations={said: 1}),
        document(Layers=said),
        f"{{{json.dumps(said)}:1,{json.dumps(said)}:2}}",
        said,
        f'{{"schemaVersion": {json.dumps(said)}',
        json.dumps({said: {said: {}}}),
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [
                    {
                        "mediaType": MANIFEST,
                        "digest": _DIGEST,
                        "size": 1,
                        "platform": {"os": said, "architecture": said},
                    }
                ],
            }
        ),
    ):
        yield answer("200 OK", text, f"Content-Type: {INDEX if INDEX in text else MANIFEST}")


def tokens(said: str) -> Iterator[bytes]:
    """What a token server may say in the body of a 200."""
    for members in (
        {"token": f"{said}\n"},
        {"token": 5, said: 1},
        {"token": "x", "expires_in": said},
        {said: said},
        {"token": "x", "issued_at": said},
        {"token": [said]},
        {"Token": said, "token": "é"},
    ):
        yield answer("200 OK", json.dumps(members))
    yield answer("200 OK", said)


def later(said: str) -> Iterator[bytes]:
    """What is asked for once the manifest was right: lists of referrers and of signatures, and signatures."""
    word = re.sub(r"[\r\n]", " ", said)
    name = re.sub(r"[^A-Za-z0-9-]", "-", said)[:60].strip("-") or "x"
    path = urllib.parse.quote(word, safe="%")
    entry = {"mediaType": MANIFEST, "digest": _DIGEST, "size": 10}
    for link in (word, f"http://{name}/x", f"/{path}", path, f"//{name}/", f"ftp://{name}", f"/v2/x?{path}"):
        page = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
        yield answer("200 OK", page, f"Content-Type: {INDEX}", f'Link: <{link}>; rel="next"')
    for entries in (said, [said], [{**entry, "size": said}], [{**entry, "digest": f"sha256:{said}"}], [{said: 1}]):
        page = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        yield answer("200 OK", page, f"Content-Type: {INDEX}")
    stored: Mapping[str, object] = {"mimeType": "x/y", "payload": "", "annotations": {}}
    for blob in (
        f"\0{said}\n",
        f"\0sigstore-json\n{said}",
        *(f"\0sigstore-json\n{json.dumps({**stored, key: said})}" for key in stored),
        f"\0sigstore-json\n{json.dumps({said: 1})}",
        f"\x90{said}",
    ):
        yield answer("200 OK", blob.encode("latin-1", "replace"))
    for listed in (said, [said], [{"schemaVersion": said}], [{"content": said}], [{"type": said, "Type": said}]):
        yield answer("200 OK", json.dumps({"signatures": listed}))


class Case(NamedTuple):
    """What one image name stands for: who answers, and with what."""

    role: str
    raw: bytes


class EchoTest(unittest.TestCase):
    maxDiff = 2000

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-echo-")))
        self.configuration = self.scratch / ".config" / "containers"
        self.configuration.mkdir(parents=True)
        policy = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
        (self.configuration / "policy.json").write_text(policy, encoding="ascii")
        self.cases: list[Case] = []
        self.told: set[str] = set()
        self.hosts = [self.enterContext(self.host(self.respond)) for _ in range(2)]

    def host(self, respond: Callable[[Asked], bytes]) -> FaultyHost:
        """A server that sends what `respond` makes, byte for byte."""

        def send(exchange: Exchange) -> None:
            exchange.send(respond(exchange.asked))
            exchange.end()

        host = FaultyHost(lambda asked: ("", Given(200)))
        host.strikes.append(Strike("", send, None))
        return host

    def respond(self, asked: Asked) -> bytes:
        """The answer of the case that the target names; in front of others it asks for a token."""
        self.told |= {asked.fields[name] for name in ("authorization", "proxy-authorization") if name in asked.fields}
        registry, _ = (host.address for host in self.hosts)
        through_proxy = asked.target.startswith("http://") or asked.method == "CONNECT"
        number = re.search(r"case-(\d+)", urllib.parse.unquote(asked.target))
        case = self.cases[int(number[1])] if number else self.cases[0]
        if case.role == "proxy":
            return case.raw if through_proxy else answer("404 None")
        if asked.target.startswith("/token"):
            return case.raw if case.role == "token" else answer("200 OK", json.dumps({"token": self.token}))
        if asked.target == "/v2/":
            return answer("200 OK", b"", *self.ping)
        if asked.target.startswith("/lookaside"):
            return case.raw
        if case.role == "later" and asked.target.endswith("/manifests/1") and "authorization" in asked.fields:
            return answer("200 OK", document(), f"Content-Type: {MANIFEST}")
        if case.role == "cdn" and not asked.target.startswith("/elsewhere"):
            place = f"http://{self.hosts[1].address}/elsewhere/{number[0] if number else ''}"
            return answer("307 There", b"", f"Location: {place}")
        if case.role == "token" or ("authorization" not in asked.fields and not asked.target.startswith("/elsewhere")):
            realm = f"http://{registry}/token/{number[0] if number else ''}"
            return answer("401 Who", b"", f'WWW-Authenticate: Bearer realm="{realm}",service="s"')
        return case.raw

    def run_cases(
        self,
        secrets: Sequence[str],
        auth: Mapping[str, str],
        roles: Sequence[str],
        environment: Mapping[str, str] | None = None,
        host: str = "",
    ) -> str:
        """Open an image for each case; all that the process said."""
        registry, cdn = (host.address for host in self.hosts)
        for held in secrets:
            forms = list(encodings(held).values())
            for turn, said in enumerate(forms):  # each part whole and in one other encoding, the next part in the next
                answers = later(said) if "later" in roles else parts(said, registry, cdn)
                for number, raw in enumerate(answers):
                    if not turn or number % (len(forms) - 1) == turn - 1:
                        self.cases += [Case(role, raw) for role in roles]
                self.cases += [Case("token", raw) for raw in tokens(said) if "token" in roles]
        name = host or registry
        (self.configuration / "auth.json").write_text(json.dumps({"auths": {registry: auth}}), encoding="ascii")
        conf = f"[[registry]]\nlocation='{name}'\ninsecure=true\n"
        (self.configuration / "registries.conf").write_text(conf, encoding="ascii")
        files = [self.enterContext(open(self.scratch / kind, "w+b")) for kind in ("events", "audit")]
        descriptors = [file.fileno() for file in files]
        options = [
            f"--events-fd={descriptors[0]}",
            f"--audit-fd={descriptors[1]}",
            "--debug",
            "--retry-times=0",
            "--retry-delay=0",
            "--idle-timeout=3",
            "--connect-timeout=2",
        ]
        heard = []
        with json_proxy(*options, pass_fds=descriptors, home=self.scratch, environment=environment) as proxy:
            proxy.parent.ask("Initialize")
            for number in range(len(self.cases)):
                reply = proxy.parent.ask("OpenImage", f"docker://{name}/case-{number}:1")
                heard.append(json.dumps(reply.members, ensure_ascii=False))
                if reply.members["success"]:
                    for method in ("GetFullConfig", "GetLayerInfoPiped", "GetReferrers"):
                        told = proxy.parent.ask(method, reply.members["value"])
                        heard.append(json.dumps(told.members, ensure_ascii=False))
                    proxy.parent.ask("CloseImage", reply.members["value"])
            heard.append(proxy.stderr())
        heard += [(self.scratch / kind).read_text(encoding="utf-8") for kind in ("events", "audit")]
        return "\n".join(heard)

    def search(self, output: str, *secrets: str) -> None:
        """No run of 8 characters of a secret, and no shorter one whole, as it is or decoded."""
        found = []
        for line in output.splitlines():
            words = (word.translate(str.maketrans("-_", "+/")) for word in re.findall(r"[A-Za-z0-9+/_-]{8,}", line))
            decoded = [
                base64.b64decode(word[skip:][: (len(word) - skip) // 4 * 4]) for word in words for skip in range(4)
            ]
            views = (line, urllib.parse.unquote(line), *(each.decode("latin-1") for each in decoded))
            for secret in secrets:
                for form in (secret, secret.encode().decode("latin-1")):
                    runs = {form[start : start + RUN].lower() for start in range(max(1, len(form) - RUN + 1))}
                    found += [line for view in views for run in runs if run in view.lower()]
        self.assertEqual([each[:400] for each in dict.fromkeys(found)][:6], [], f"{len(set(found))} lines")

    ping: Sequence[str] = ()  # fields of the answer to `/v2/`
    token = "t0k3n-of-the-token-server.abc_XYZ"

    def entry(self, password: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"robot:{password}".encode()).decode()}

    def test_password_and_token_echoed_by_registry_token_server_and_cdn(self) -> None:
        password = "Tr0mb0ne&C0rd/42"
        output = self.run_cases([password, self.token], self.entry(password), ("registry", "token", "cdn"))
        self.assertTrue(any(value.startswith("Bearer ") for value in self.told), self.told)
        self.assertTrue(any(value.startswith("Basic ") for value in self.told), self.told)
        self.search(output, password, self.token)
        self.assertIn("[redacted]", output)

    def test_password_and_token_echoed_behind_a_manifest(self) -> None:
        password = "Tr0mb0ne&C0rd/42"
        output = self.run_cases([password, self.token], self.entry(password), ("later",))
        self.search(output, password, self.token)
        self.assertIn("[redacted]", output)

    def test_password_and_token_echoed_in_signatures(self) -> None:
        password = "Tr0mb0ne&C0rd/42"
        requirement = {"type": "sigstoreSigned", "keyPath": "/nonexistent"}
        (self.configuration / "policy.json").write_text(json.dumps({"default": [requirement]}), encoding="ascii")
        (self.configuration / "registries.d").mkdir()
        output = ""
        for attachments, self.ping in (("true", ()), ("false", ()), ("false", ("X-Registry-Supports-Signatures: 1",))):
            stores = (
                f"  lookaside: http://{self.hosts[0].address}/lookaside\n  use-sigstore-attachments: {attachments}\n"
            )
            (self.configuration / "registries.d" / "a.yaml").write_text(f"default-docker:\n{stores}", encoding="ascii")
            self.cases.clear()
            heard = self.run_cases([password, self.token], self.entry(password), ("later",))
            self.search(heard, password, self.token)
            output += heard
        self.assertIn("[redacted]", output)

    def test_identity_token_echoed_by_the_token_server(self) -> None:
        identity = "1dentity+T0ken/päss=="
        output = self.run_cases([identity], {**self.entry(""), "identitytoken": identity}, ("token", "registry"))
        self.search(output, identity)

    def test_password_of_a_proxy_echoed_by_it(self) -> None:
        password = "pr0xyW0rd-42"
        url = f"http://robot:{password}@{self.hosts[1].address}"
        host = f"127.1:{self.hosts[0].port}"
        output = self.run_cases([password], {}, ("proxy",), {"HTTP_PROXY": url, "HTTPS_PROXY": url}, host)
        self.assertIn(f"Basic {base64.b64encode(f'robot:{password}'.encode()).decode()}", self.told)
        self.search(output, password)

    def test_short_passwords(self) -> None:
        for password in ("q7Zx4", "j%9"):
            with self.subTest(password):
                self.cases.clear()
                output = self.run_cases([password], self.entry(password), ("registry", "token"))
                self.search(output, password)


if __name__ == "__main__":
    unittest.main()
