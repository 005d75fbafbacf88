# SPDX-License-Identifier: Apache-2.0
"""Nothing that the program ever says holds a password, a token or a signed query.

The program is made to talk, at the level of `debug` and on every channel it has, about requests that fail with secrets
in play, also beside registries that repeat what they were sent. Then everything that was recorded is searched: with
`CIP_TEST_OUTPUT` set, as tests/run does, that is the output of the whole suite so far.
"""

import base64
import contextlib
import json
import os
import socket
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from tests.support.jsonparent import JsonParent
from tests.support.parent import MODULE, PATIENCE, ROOT, running
from tests.support.peers import clean_environment
from tests.support.recording import Asked, Given, RecordingServer
from tests.support.secrets import leaks_in, secret

PASSWORD, TOKEN, IDENTITY = secret("password"), secret("token"), secret("identity")
SIGNED = f"X-Amz-Signature={secret('signature')}"


class Situation(NamedTuple):
    """A way to fail: what is written to auth.json, what is given on the command line, and in the environment."""

    name: str
    authfile: str = "{}"
    options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


def entry(host: str, user_and_word: str, **more: str) -> str:
    return json.dumps({"auths": {host: {"auth": base64.b64encode(user_and_word.encode()).decode(), **more}}})


def situations(host: str, proxy: str) -> Iterator[Situation]:
    yield Situation("file", entry(host, f"robot:{PASSWORD}"))
    yield Situation("identity token", entry(host, "robot:", identitytoken=IDENTITY))
    yield Situation("no colon", entry(host, PASSWORD))
    yield Situation("line break", entry(host, f"robot:{PASSWORD}\r\nX-Other: 1"))
    yield Situation(
        "not UTF-8", json.dumps({"auths": {host: {"auth": base64.b64encode(b"\xff" + PASSWORD.encode()).decode()}}})
    )
    yield Situation("unpadded", entry(host, f"robot:{PASSWORD}12").replace("=", ""))
    yield Situation("cut off", entry(host, f"robot:{PASSWORD}")[:-3])
    yield Situation("helper", json.dumps({"credHelpers": {host: "leaky"}}))
    yield Situation("--creds", options=(f"--creds=robot:{PASSWORD}",))
    yield Situation("--password", options=("--username=robot", f"--password={PASSWORD}"))
    yield Situation("--registry-token", options=(f"--registry-token={TOKEN}",))
    yield Situation("contradiction", options=(f"--creds=robot:{PASSWORD}", "--no-creds"))
    yield Situation("line break in a flag", options=(f"--creds=robot:{PASSWORD}\n",))
    yield Situation("unknown option", options=(f"--creds=robot:{PASSWORD}", f"--passwort={PASSWORD}"))
    for url in (
        f"http://user:{PASSWORD}@{proxy}",
        f"socks5://user:{PASSWORD}@{proxy}",
        f"http://user:{PASSWORD}@{proxy}:x",
    ):
        yield Situation(f"proxy {url[:8]}", variables=(("HTTP_PROXY", url), ("HTTPS_PROXY", url)))


class Repeater:
    """A registry, its token server and a proxy in one, all hostile: they repeat what they are told, and point on."""

    def __init__(self) -> None:
        self._turns = 0

    def __call__(self, asked: Asked) -> Given:
        told = [asked.fields.get(name, "") for name in ("authorization", "proxy-authorization")]
        told += [asked.body.decode("utf-8", "replace"), asked.target]
        self._turns += 1
        # each in its turn in front, because only the beginning of such a text is ever shown
        said = " ".join([*told[self._turns % 4 :], *told[: self._turns % 4]])
        body = json.dumps({"errors": [{"code": "DENIED", "message": said}], "token": TOKEN, "access_token": TOKEN})
        if "/token" in asked.target:
            return Given((200, 401, 503)[self._turns % 3], body.encode())
        if asked.target.startswith("http://"):
            return Given(407, body.encode(), {"Proxy-Authenticate": 'Basic realm="p"'})
        bearer = f'Bearer realm="http://{asked.server}/token?{SIGNED}",service="s",scope="{said[:200]}"'
        step = self._turns % 5
        if step == 0:
            return Given(307, body.encode(), {"Location": f"http://169.254.169.254/x?{SIGNED}"})
        if step == 1:
            return Given(307, body.encode(), {"Location": f"http://{asked.server}/v2/y?{SIGNED}"})
        if step == 2:
            return Given(403, body.encode(), {"Warning": f'299 - "{said[:100]}"'})
        challenge = bearer if step == 3 else f'Basic realm="{said[:100]}"'
        return Given(401, body.encode(), {"WWW-Authenticate": challenge.replace("\r", "").replace("\n", "")})


class SecretsTest(unittest.TestCase):
    output: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        given = os.environ.get("CIP_TEST_OUTPUT")
        cls.output = Path(given or cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-output-")))
        cls.output.mkdir(parents=True, exist_ok=True)

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-secrets-")))
        self.registry = self.enterContext(RecordingServer(Repeater()))
        self.configuration = self.scratch / ".config" / "containers"
        self.configuration.mkdir(parents=True)
        policy = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
        (self.configuration / "policy.json").write_text(policy, encoding="ascii")
        helpers = self.scratch / "bin"
        helpers.mkdir()
        leaky = helpers / "docker-credential-leaky"
        leaky.write_text(f"#!/bin/sh\necho {PASSWORD}\necho {PASSWORD} >&2\nexit 1\n", encoding="ascii")
        leaky.chmod(0o755)
        self.path = f"{helpers}:{os.environ['PATH']}"

    def _prepare(self, situation: Situation, host: str) -> dict[str, str]:
        (self.configuration / "auth.json").write_text(situation.authfile, encoding="ascii")
        conf = f"[[registry]]\nlocation='{host}'\ninsecure=true\n"
        (self.configuration / "registries.conf").write_text(conf, encoding="ascii")
        return {"PATH": self.path, **dict(situation.variables)}

    def _situations(self) -> Iterator[tuple[Situation, str, dict[str, str]]]:
        """Each situation with the host to ask for: with a proxy, one that is not exempt from it."""
        for situation in situations(self.registry.host, self.registry.host):
            host = f"127.1:{self.registry.port}" if situation.variables else self.registry.host
            yield situation, f"docker://{host}/os/base:9", self._prepare(situation, host)

    def _keep(self, name: str, text: str) -> None:
        """Record what a child said, and look through it at once, so that a failure names the situation."""
        (self.output / f"secrets-{os.getpid()}-{name.replace('/', '_')}.txt").write_text(text, encoding="utf-8")
        self.assertEqual([], leaks_in(text), name)

    def test_the_search_finds_every_form_of_a_secret(self) -> None:
        word = secret("x")
        for before in ("", "a", "ab", "abc"):
            packed = base64.b64encode(f"{before}{word}:after".encode()).decode()
            self.assertTrue(leaks_in(f"… {packed} …"), before)
        for shown in (
            word,
            f"?sig={word}",
            word.encode().hex(),
            "correct%3Ahorse%20battery",
            "correct%3Ahorse+battery",
        ):
            self.assertTrue(leaks_in(shown), shown)
        self.assertEqual([], leaks_in("a hunter, 2 horses and batteries; sha256:68756e74"))

    def test_on_the_http_interface(self) -> None:
        for situation, image, environment in self._situations():
            with self.subTest(situation.name), self._channels(situation.name) as (descriptors, options):
                arguments = ["--log-level=debug", "--retry-times=1", "--retry-delay=0", *options, *situation.options]
                with running(
                    *arguments, image, home=self.scratch, environment=environment, status=None, pass_fds=descriptors
                ) as proxy:
                    heard = ""
                    for target in ("/manifest", f"/blobs/sha256:{'a' * 64}", f"/?{SIGNED}", "/manifest"):
                        with contextlib.suppress(AssertionError, BrokenPipeError, ConnectionResetError):
                            heard += proxy.line.ask("GET", target).body.decode("utf-8", "replace")
                    proxy.hang_up()
                    self._keep(f"http {situation.name}", proxy.stderr() + heard)

    def test_on_the_json_interface(self) -> None:
        for situation, image, environment in self._situations():
            with self.subTest(situation.name):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with JsonParent(ours) as parent:
                    with theirs:
                        options = [f"--sockfd={theirs.fileno()}", "--debug", "--retry-times=0", *situation.options]
                        child = subprocess.Popen(
                            [*MODULE, *options, "experimental-image-proxy"],
                            pass_fds=[theirs.fileno()],
                            cwd=ROOT,
                            stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.PIPE,
                            env=clean_environment(self.scratch) | environment,
                        )
                    heard = []
                    with contextlib.suppress(AssertionError, BrokenPipeError, ConnectionResetError):
                        for request in (("Initialize",), ("OpenImage", image), ("OpenImageOptional", image)):
                            heard.append(json.dumps(parent.ask(*request).members))
                _, stderr = child.communicate(timeout=PATIENCE)
                self._keep(f"json {situation.name}", stderr.decode("utf-8", "replace") + "\n".join(heard))

    def test_in_an_explanation(self) -> None:
        for situation, image, environment in self._situations():
            for form in ((), ("--json",)):
                with self.subTest(situation.name, form=form):
                    done = subprocess.run(
                        [*MODULE, "explain", "--debug", *form, *situation.options, image],
                        check=False,
                        cwd=ROOT,
                        env=clean_environment(self.scratch) | environment,
                        stdin=subprocess.DEVNULL,
                        text=True,
                        capture_output=True,
                        timeout=PATIENCE,
                    )
                    self._keep(f"explain {situation.name} {len(form)}", done.stdout + done.stderr)

    def test_in_everything_that_was_recorded(self) -> None:
        files = [path for path in sorted(self.output.rglob("*")) if path.is_file()]
        for path in files:
            self.assertEqual([], leaks_in(path.read_text(encoding="utf-8", errors="replace")), path.name)
        if "CIP_TEST_OUTPUT" in os.environ:
            self.assertTrue(files, "CIP_TEST_OUTPUT names a directory that nothing was written to")

    @contextlib.contextmanager
    def _channels(self, name: str) -> Iterator[tuple[list[int], list[str]]]:
        """Descriptors for the events and the audit; what arrives there is kept."""
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(self.scratch / kind, "w+b")) for kind in ("events", "audit")]
            descriptors = [file.fileno() for file in files]
            yield descriptors, [f"--events-fd={descriptors[0]}", f"--audit-fd={descriptors[1]}"]
            text = "".join((self.scratch / kind).read_text(encoding="utf-8") for kind in ("events", "audit"))
            self._keep(f"records {name}", text)


if __name__ == "__main__":
    unittest.main()
