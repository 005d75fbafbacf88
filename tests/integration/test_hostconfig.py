# SPDX-License-Identifier: Apache-2.0
"""The host's configuration is obeyed: real registries and proxies, and files where an administrator puts them.

Every test runs the program as a parent would, with a home directory of its own.
"""

import base64
import datetime
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from cryptography import x509

from cip.model import mediatype
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.parent import MODULE, PATIENCE, ROOT, Answer, running
from tests.support.peers import (
    CertificateFiles,
    Registry,
    clean_environment,
    docker_registry,
    microsocks,
    skopeo,
    tinyproxy,
)
from tests.support.recording import Asked, Given, RecordingServer
from tests.support.scripted import tls_front
from tests.support.secrets import leaks_in, secret

NAME = "os/base"
IMAGE = f"{NAME}:9"
PASSWORD, TOKEN = secret("password"), secret("token")
# A name of 127.0.0.1 for whoever asks the resolver, which by the rules of NO_PROXY is not loopback.
PROXIED_HOST = "127.1"


class HostCase(unittest.TestCase):
    """A filled registry's storage, to start registries on; and for each test a home directory."""

    storage: ClassVar[Path]
    scratch_of_class: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        cls.scratch_of_class = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-host-")))
        layout = images.Layout(cls.scratch_of_class / "layout")
        layout.add_image(images.CONFIG_C, [images.LAYER_T], images.MANIFEST_M, name="9")
        with docker_registry(cls.scratch_of_class / "filled") as registry:
            target = f"docker://{registry.host}/{IMAGE}"
            options = ["--dest-tls-verify=false", "--quiet", "--preserve-digests"]
            skopeo("copy", *options, f"oci:{layout.path}:9", target, home=cls.scratch_of_class)
        cls.storage = cls.scratch_of_class / "filled" / "registry"

    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-host-")))
        self.home = self.scratch / "home"
        self.write_home("policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))

    def write_home(self, name: str, text: str | bytes) -> Path:
        """Write a file below ~/.config/containers."""
        path = self.home / ".config" / "containers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def registry(self, name: str = "registry", **options: Any) -> Registry:
        """A registry that has the image, stopped at the end of the test."""
        directory = self.scratch / name
        if "proxy_remote" not in options:
            shutil.copytree(self.storage, directory / "registry")
        return self.enterContext(docker_registry(directory, **options))

    def authfile(self, host: str, word: str = PASSWORD, **more: str) -> str:
        packed = base64.b64encode(f"robot:{word}".encode()).decode()
        return json.dumps({"auths": {host: {"auth": packed, **more}}})

    def fetch(
        self, image: str, *options: str, environment: Mapping[str, str] | None = None, pass_fds: tuple[int, ...] = ()
    ) -> Answer:
        """The answer to the request for the manifest; with 200 the layer has been fetched and compared too."""
        with running(*options, image, home=self.home, environment=environment, pass_fds=pass_fds) as proxy:
            answer = proxy.line.ask("GET", "/manifest")
            if answer.status == 200:
                self.assertEqual(images.MANIFEST_M, answer.body)
                self.assertEqual(images.LAYER_T, proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").body)
            proxy.hang_up()
            self.stderr = proxy.stderr()
        shown = self.stderr + (answer.body.decode() if answer.status != 200 else "")
        self.assertEqual([], leaks_in(shown))
        return answer

    def require_served(self, *arguments: str, **more: Any) -> None:
        answer = self.fetch(*arguments, **more)
        self.assertEqual(200, answer.status, answer.body)

    def require_refused(self, code: str, reason: str, *arguments: str, **more: Any) -> dict[str, Any]:
        problem = self.fetch(*arguments, **more).problem()
        self.assertEqual(code, problem["type"], problem)
        self.assertRegex(problem["detail"], reason)
        return problem


class CertificatesTest(HostCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = CertificateAuthority(self.scratch / "authority")

    def _trust(self, host: str) -> Path:
        return self.write_home(f"certs.d/{host}/ca.crt", self.authority.certificate.read_bytes()).parent

    def test_a_private_authority_is_trusted_for_the_host_it_is_installed_for(self) -> None:
        registry = self.registry(tls=self.authority.server())
        image = f"docker://{registry.host}/{IMAGE}"
        problem = self.require_refused("tls-untrusted", "direct", image)
        self.assertEqual(("tls", registry.host, False), (problem["phase"], problem["host"], problem["retryable"]))
        self._trust("127.0.0.1")
        self.require_refused("tls-untrusted", "direct", image)  # the port belongs to the name
        directory = self._trust(registry.host)
        self.require_served(image)
        shutil.rmtree(directory)
        self.require_served(image, f"--cert-dir={self.authority.certificate.parent}")

    def test_an_address_of_ipv6_names_a_registry_and_a_mirror(self) -> None:
        registry = self.registry()
        front = self.enterContext(tls_front(self.authority.server(), registry.port, "::1"))
        host = f"[::1]:{front}"
        image = f"docker://{host}/{IMAGE}"
        where = rf"certs.d/\[::1\]:{front} as a .crt file"
        self.require_refused("tls-untrusted", where, image)
        self._trust(host)
        self.require_served(image)
        text = "[[registry]]\nlocation='registry.test'\n[[registry.mirror]]\nlocation='%s'\n"
        self.write_home("registries.conf", text % f"{host}/os")
        self.require_served("docker://registry.test/base:9")

    def test_an_intermediate_authority_is_an_anchor(self) -> None:
        intermediate = CertificateAuthority(self.scratch / "intermediate", "tests intermediate", issuer=self.authority)
        registry = self.registry(tls=intermediate.server())
        image = f"docker://{registry.host}/{IMAGE}"
        directory = self.write_home(f"certs.d/{registry.host}/ca.crt", intermediate.certificate.read_bytes()).parent
        self.require_served(image)
        self.require_served(image, f"--cert-dir={directory}")
        self.require_served(image, "--cert-dir=/var/empty", environment={"SSL_CERT_FILE": str(directory / "ca.crt")})

    def test_an_untrusted_certificate_says_where_its_authority_belongs(self) -> None:
        registry = self.registry(tls=self.authority.server())
        directory = f"certs.d/{registry.host}"
        where = f"its authority belongs into .*{directory} as a .crt file"
        self.require_refused("tls-untrusted", where, f"docker://{registry.host}/{IMAGE}")

    def test_each_fault_of_a_certificate_has_its_own_error(self) -> None:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        local_date = now.strftime("%Y-%m-%d")
        for code, reason, certificate in (
            ("tls-name-mismatch", "127.0.0.1", self.authority.server(["registry.example"])),
            ("tls-expired", local_date, self.authority.server(not_before=now - 9 * day, not_after=now - day)),
            ("tls-not-yet-valid", local_date, self.authority.server(not_before=now + day, not_after=now + 9 * day)),
        ):
            with self.subTest(code):
                registry = self.registry(code, tls=certificate)
                self._trust(registry.host)
                self.require_refused(code, reason, f"docker://{registry.host}/{IMAGE}")

    def test_a_certificate_that_other_clients_refuse_is_refused(self) -> None:
        """A common name is no host name, whatever stands beside it; who demands policies gets none without them."""
        mail, uri = x509.RFC822Name("root@localhost"), x509.UniformResourceIdentifier("https://localhost")
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        rows: tuple[tuple[str, Sequence[x509.ExtensionType]], ...] = (
            ("tls-name-mismatch", ()),
            *(("tls-name-mismatch", (x509.SubjectAlternativeName([name]),)) for name in (mail, uri)),
            ("tls-untrusted", (names, x509.PolicyConstraints(0, None))),
            ("", (names, x509.PolicyConstraints(None, 0))),
        )
        for number, (code, extensions) in enumerate(rows):
            with self.subTest(number, code=code):
                files = self.authority.server(["localhost"], extensions=extensions)
                registry = self.registry(f"odd-{number}", tls=files)
                host = f"localhost:{registry.port}"
                self._trust(host)
                if code:
                    self.require_refused(code, host, f"docker://{host}/{IMAGE}")
                else:
                    self.require_served(f"docker://{host}/{IMAGE}")

    def test_a_client_certificate_is_shown_where_one_is_installed(self) -> None:
        registry = self.registry(tls=self.authority.server(), client_authority=self.authority.certificate)
        image = f"docker://{registry.host}/{IMAGE}"
        directory = self._trust(registry.host)
        problem = self.require_refused("tls-client-certificate", f"looked for one in .*{directory}", image)
        self.assertEqual((False, 1), (problem["retryable"], len(problem["attempts"])))
        client = self.authority.client()
        shutil.copy(client.certificate, directory / "client.cert")
        self.require_refused("config-invalid", "client.cert: expected its key 'client.key' beside it", image)
        shutil.copy(client.key, directory / "client.key")
        self.require_served(image)

    def test_a_registry_that_is_marked_insecure_is_served_with_a_warning(self) -> None:
        for options in ({}, {"tls": self.authority.server()}):
            with self.subTest(tls=bool(options)):
                registry = self.registry("tls" if options else "plain", **options)
                self.write_home("registries.conf", f"[[registry]]\nlocation='{registry.host}'\ninsecure=true\n")
                image = f"docker://{registry.host}/{IMAGE}"
                self.require_served(image)
                self.assertRegex(self.stderr, f"WARNING: {registry.host}: spoken to over")
                self.assertNotEqual(200, self.fetch(image, "--tls-verify", "--retry-times=0").status)


class CredentialsTest(HostCase):
    def setUp(self) -> None:
        super().setUp()
        self.protected = self.registry(htpasswd={"robot": PASSWORD})
        self.write_home("registries.conf", f"[[registry]]\nlocation='{self.protected.host}'\ninsecure=true\n")
        self.image = f"docker://{self.protected.host}/{IMAGE}"

    def _helper(self, text: str) -> dict[str, str]:
        """A search path with a helper `docker-credential-vault` that runs the shell commands `text`."""
        directory = self.scratch / "bin"
        directory.mkdir(exist_ok=True)
        program = directory / "docker-credential-vault"
        program.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        program.chmod(0o755)
        return {"PATH": f"{directory}:{os.environ['PATH']}"}

    def test_a_file_in_the_home_directory_opens_the_registry(self) -> None:
        self.require_refused(
            "authentication-failed", "no credentials found, so anonymous.*looked at .*absent", self.image
        )
        for key in (self.protected.host, f"{self.protected.host}/os", f"http://{self.protected.host}/v2/"):
            with self.subTest(key):
                self.write_home("auth.json", self.authfile(key))
                self.require_served(self.image)

    def test_a_refusal_says_which_file_which_key_and_which_scheme(self) -> None:
        file = self.write_home("auth.json", self.authfile(f"{self.protected.host}/os", secret("wrong")))
        problem = self.require_refused("authentication-failed", f"key '{self.protected.host}/os' of {file}", self.image)
        self.assertRegex(problem["detail"], "(?i)basic")
        self.assertEqual(self.protected.host, problem["host"])

    def test_a_deeper_key_with_a_wrong_password_hides_the_right_one_above_it(self) -> None:
        members = json.loads(self.authfile(self.protected.host))
        members["auths"] |= json.loads(self.authfile(f"{self.protected.host}/os", secret("wrong")))["auths"]
        self.write_home("auth.json", json.dumps(members))
        self.require_refused("authentication-failed", "/os'", self.image)

    def test_credentials_come_through_an_inherited_descriptor(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        with open(writing, "w", encoding="ascii") as file:
            file.write(self.authfile(self.protected.host))
        self.require_served(self.image, f"--authfile=/proc/self/fd/{reading}", pass_fds=(reading,))

    def test_credentials_come_from_the_service_manager(self) -> None:
        directory = self.scratch / "credentials"
        directory.mkdir()
        (directory / "container-image-proxy.auth.json").write_text(self.authfile(self.protected.host), encoding="ascii")
        self.require_served(self.image, environment={"CREDENTIALS_DIRECTORY": str(directory)})

    def test_a_helper_is_asked_on_its_standard_input(self) -> None:
        asked = self.scratch / "asked"
        helper = self._helper(
            f'test "$1" = get && cat > {asked} && echo \'{{"Username":"robot","Secret":"{PASSWORD}"}}\''
        )
        self.write_home("auth.json", json.dumps({"credHelpers": {self.protected.host: "vault"}}))
        self.require_served(self.image, environment=helper)
        self.assertEqual(self.protected.host, asked.read_text(encoding="ascii"))

    def test_a_helper_that_fails_says_why_and_nothing_that_it_answers_is_shown(self) -> None:
        self.write_home("auth.json", json.dumps({"credHelpers": {self.protected.host: "vault"}}))
        for case, text, reason in (
            ("status", f"echo {PASSWORD}; echo {PASSWORD} >&2; exit 3", "docker-credential-vault: ended with status 3"),
            ("a reason", "echo locked >&2; exit 1", "status 1 for [^:]*:[0-9]*: 'locked'"),
            ("no JSON", f"echo {PASSWORD}", "docker-credential-vault: expected a JSON object"),
        ):
            with self.subTest(case):
                self.require_refused("credentials-unavailable", reason, self.image, environment=self._helper(text))
        self.require_refused("credentials-unavailable", "docker-credential-vault is not installed", self.image)

    def test_a_broken_file_stops_the_request(self) -> None:
        file = self.write_home("auth.json", '{"auths": {')
        self.require_refused("config-invalid", f"{file}: not valid JSON at line 1", self.image)

    def test_flags_do_not_follow_to_another_host(self) -> None:  # A32
        self.write_home(
            "registries.conf",
            f"[[registry]]\nprefix='registry.example'\nlocation='{self.protected.host}'\ninsecure=true\n",
        )
        image = f"docker://registry.example/{IMAGE}"
        self.require_refused(
            "authentication-failed", "no credentials found, so anonymous", image, f"--creds=robot:{PASSWORD}"
        )
        self.write_home("auth.json", self.authfile(self.protected.host))
        self.require_served(image, f"--creds=robot:{secret('other')}")


class TokenServerTest(HostCase):
    """A gate in front of a real registry: who has a token of its token server is let through."""

    def setUp(self) -> None:
        super().setUp()
        self.behind = self.registry()
        self.issuer = self.enterContext(RecordingServer(self._issue))
        self.gate = self.enterContext(RecordingServer(self._let_in))
        self.write_home("registries.conf", f"[[registry]]\nlocation='{self.gate.host}'\ninsecure=true\n")
        self.image = f"docker://{self.gate.host}/{IMAGE}"

    def _let_in(self, asked: Asked) -> Given:
        if asked.fields.get("authorization") != f"Bearer {TOKEN}":
            scope = f"repository:{NAME}:pull"
            challenge = f'Bearer realm="http://{self.issuer.host}/token",service="gate",scope="{scope}"'
            return Given(401, b"{}", {"WWW-Authenticate": challenge})
        connection = http.client.HTTPConnection("127.0.0.1", self.behind.port, timeout=PATIENCE)
        try:
            kept = {name: value for name, value in asked.fields.items() if name in ("accept", "range")}
            connection.request(asked.method, asked.target, headers=kept)
            answer = connection.getresponse()
            names = ("Content-Type", "Docker-Content-Digest", "Content-Range")
            fields = {name: answer.headers[name] for name in names if name in answer.headers}
            return Given(answer.status, answer.read(), fields)
        finally:
            connection.close()

    def _issue(self, asked: Asked) -> Given:
        basic = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
        by_password = asked.method == "GET" and asked.fields.get("authorization") == f"Basic {basic}"
        by_token = asked.method == "POST" and f"refresh_token={secret('identity')}".encode() in asked.body
        if not (by_password or by_token):
            return Given(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        name = "access_token" if by_token else "token"
        return Given(200, json.dumps({name: TOKEN, "expires_in": 300}).encode())

    def test_a_password_is_exchanged_for_a_token(self) -> None:
        self.write_home("auth.json", self.authfile(self.gate.host))
        self.require_served(self.image)
        (request,) = self.issuer.asked
        self.assertEqual("GET", request.method)
        self.assertIn("scope=repository%3Aos%2Fbase%3Apull", request.target)
        passwords = [asked for asked in self.gate.asked if "Basic" in asked.fields.get("authorization", "")]
        self.assertEqual([], passwords, "the password went to the registry itself")

    def test_an_identity_token_is_refreshed(self) -> None:
        self.write_home("auth.json", self.authfile(self.gate.host, "", identitytoken=secret("identity")))
        self.require_served(self.image)
        self.assertEqual(["POST"], [asked.method for asked in self.issuer.asked])

    def test_a_refusal_of_the_token_server_names_file_and_key(self) -> None:
        file = self.write_home("auth.json", self.authfile(self.gate.host, secret("wrong")))
        reason = f"key '{self.gate.host}' of {file}"
        problem = self.require_refused("authentication-failed", reason, self.image, "--retry-times=0")
        self.assertEqual(self.issuer.host, problem["host"])

    def test_a_token_from_the_command_line_does_not_follow_to_another_host(self) -> None:  # A33
        self.require_served(self.image, f"--registry-token={TOKEN}")
        self.assertEqual([], self.issuer.asked)
        self.write_home(
            "registries.conf", f"[[registry]]\nprefix='registry.example'\nlocation='{self.gate.host}'\ninsecure=true\n"
        )
        self.gate.asked.clear()
        arguments = (f"docker://registry.example/{IMAGE}", f"--registry-token={TOKEN}", "--retry-times=0")
        self.require_refused("authentication-failed", "no credentials found, so anonymous", *arguments)
        self.assertNotIn(TOKEN, repr([asked.fields for asked in self.gate.asked + self.issuer.asked]))


class ProxyTest(HostCase):
    def _tls_registry(self) -> tuple[Registry, str]:
        authority = CertificateAuthority(self.scratch / "authority")
        registry = self.registry(tls=self._named(authority))
        host = f"{PROXIED_HOST}:{registry.port}"
        self.write_home(f"certs.d/{host}/ca.crt", authority.certificate.read_bytes())
        return registry, f"docker://{host}/{IMAGE}"

    @staticmethod
    def _named(authority: CertificateAuthority) -> CertificateFiles:
        return authority.server([PROXIED_HOST])

    def test_https_goes_through_a_tunnel_with_a_password(self) -> None:
        registry, image = self._tls_registry()
        word = secret("proxy")
        proxy = self.enterContext(tinyproxy(self.scratch / "proxy", user="user", password=word))
        url = f"http://user:{word}@{proxy.host}"
        self.require_served(image, environment={"HTTPS_PROXY": url})
        self.assertIn(f"CONNECT {PROXIED_HOST}:{registry.port} HTTP/1.1", proxy.log_text())
        wrong = f"http://user:{secret('wrong')}@{proxy.host}"
        problem = self.require_refused(
            "authentication-failed",
            f"the proxy {proxy.host} refuses",
            image,
            "--retry-times=0",
            environment={"HTTPS_PROXY": wrong},
        )
        self.assertEqual("proxy", problem["phase"])

    def test_a_password_may_have_any_character(self) -> None:
        _, image = self._tls_registry()
        proxy = self.enterContext(microsocks(self.scratch / "proxy", user="us@er", password="p@ss:w%r/d!"))
        for userinfo in ("us@er:p@ss:w%25r%2fd!", "us%40er:p%40ss%3aw%25r%2Fd%21"):
            self.require_served(image, environment={"HTTPS_PROXY": f"socks5://{userinfo}@{proxy.host}"})

    def test_a_socks_proxy_is_a_way_to_https_and_http(self) -> None:
        _, image = self._tls_registry()
        plain = self.registry("plain")
        host = f"{PROXIED_HOST}:{plain.port}"
        self.write_home("registries.conf", f"[[registry]]\nlocation='{host}'\ninsecure=true\n")
        word = secret("proxy")
        proxy = self.enterContext(microsocks(self.scratch / "proxy", user="user", password=word))
        for scheme in ("socks5", "socks5h"):
            with self.subTest(scheme):
                url = f"{scheme}://user:{word}@{proxy.host}"
                self.require_served(image, environment={"HTTPS_PROXY": url})
                variables = {"HTTPS_PROXY": url, "HTTP_PROXY": url}
                self.require_served(f"docker://{host}/{IMAGE}", environment=variables)
        wrong = f"socks5://user:{secret('wrong')}@{proxy.host}"
        reason = f"the proxy {proxy.host} refuses"
        for url in (wrong, f"socks5://{proxy.host}"):
            problem = self.require_refused("authentication-failed", reason, image, environment={"HTTPS_PROXY": url})
            self.assertEqual("proxy", problem["phase"])
        gone = f"docker://{PROXIED_HOST}:1/{IMAGE}"
        url = f"socks5://user:{word}@{proxy.host}"
        problem = self.require_refused(
            "connection-refused", "is refused by it", gone, "--retry-times=0", environment={"HTTPS_PROXY": url}
        )
        self.assertEqual("proxy", problem["phase"])

    def test_a_proxy_is_spoken_to_over_tls(self) -> None:
        registry, image = self._tls_registry()
        plain = self.registry("plain")
        host = f"{PROXIED_HOST}:{plain.port}"
        self.write_home("registries.conf", f"[[registry]]\nlocation='{host}'\ninsecure=true\n")
        proxy = self.enterContext(tinyproxy(self.scratch / "proxy", user="user", password="word"))
        authority = CertificateAuthority(self.scratch / "proxy-authority")
        front = self.enterContext(tls_front(authority.server(), proxy.port))
        url = f"https://user:word@127.0.0.1:{front}"
        trusted = {"SSL_CERT_FILE": str(authority.certificate)}
        self.require_served(image, environment={"HTTPS_PROXY": url, **trusted})
        self.require_served(f"docker://{host}/{IMAGE}", environment={"HTTPS_PROXY": url, "HTTP_PROXY": url, **trusted})
        self.assertIn(f"CONNECT {PROXIED_HOST}:{registry.port} HTTP/1.1", proxy.log_text())
        self.assertIn(f"GET http://{host}/v2/{NAME}/manifests/9 HTTP/1.1", proxy.log_text())
        problem = self.require_refused("tls-untrusted", "not trusted", image, environment={"HTTPS_PROXY": url})
        self.assertEqual("proxy", problem["phase"])

    def test_plain_http_goes_through_a_proxy(self) -> None:
        registry = self.registry()
        host = f"{PROXIED_HOST}:{registry.port}"
        self.write_home("registries.conf", f"[[registry]]\nlocation='{host}'\ninsecure=true\n")
        proxy = self.enterContext(tinyproxy(self.scratch / "proxy"))
        variables = {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url}
        self.require_served(f"docker://{host}/{IMAGE}", environment=variables)
        self.assertIn(f"GET http://{host}/v2/{NAME}/manifests/9 HTTP/1.1", proxy.log_text())

    def test_hosts_in_no_proxy_are_spoken_to_directly(self) -> None:
        _, image = self._tls_registry()
        gone = "http://127.0.0.1:1"
        problem = self.fetch(image, "--retry-times=0", environment={"HTTPS_PROXY": gone}).problem()
        self.assertRegex(problem["detail"], "via proxy 127.0.0.1:1")
        for entry in (PROXIED_HOST, "*", f"x,{PROXIED_HOST}"):
            with self.subTest(entry):
                # no proxy: the name is judged by what the resolver makes of it, and that is loopback
                self.require_served(image, environment={"HTTPS_PROXY": gone, "NO_PROXY": entry})

    def test_errors_say_that_no_proxy_was_used(self) -> None:
        self.require_refused("connection-refused", "direct", f"docker://127.0.0.1:1/{IMAGE}", "--retry-times=0")

    def test_a_variable_that_names_no_proxy_stops_the_request(self) -> None:
        _, image = self._tls_registry()
        broken = f"socks4://u:{secret('proxy')}@h:1"
        self.require_refused(
            "config-invalid", "HTTPS_PROXY: expected a proxy of", image, environment={"HTTPS_PROXY": broken}
        )


class MirrorsTest(HostCase):
    def _fleet(self, cache: str, origin: str, more: str = "") -> str:
        self.write_home(
            "registries.conf",
            f"[[registry]]\nprefix = 'registry.example'\nlocation = '{origin}'\ninsecure = true\n{more}"
            f"[[registry.mirror]]\nlocation = '{cache}'\ninsecure = true\n",
        )
        return f"docker://registry.example/{IMAGE}"

    def test_a_fleet_is_served_by_its_cache_and_without_it_by_the_origin(self) -> None:
        origin = self.registry("origin")
        cache = self.registry("cache", proxy_remote=origin.url)
        image = self._fleet(cache.host, origin.host)
        self.require_served(image)
        ours = [line for line in cache.log_text().splitlines() if "container-image-proxy/" in line]
        self.assertTrue(any(f"/v2/{NAME}/manifests/9" in line for line in ours), cache.log_text())
        self.assertNotIn("container-image-proxy/", origin.log_text())
        cache.stop()
        self.require_served(image)
        self.assertIn("container-image-proxy/", origin.log_text())

    def test_a_cache_that_has_been_tampered_with_is_passed_over(self) -> None:
        origin, cache = self.registry("origin"), self.registry("cache")
        hexadecimal = str(images.DIGEST_T).partition(":")[2]
        stored = cache.root / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
        stored.write_bytes(b"X" + images.LAYER_T[1:])
        self.require_served(self._fleet(cache.host, origin.host))

    def test_a_blocked_name_is_refused_without_a_request(self) -> None:
        with RecordingServer(lambda asked: Given(500)) as server:
            image = self._fleet(server.host, server.host, "blocked = true\n")
            self.require_refused("registry-blocked", "blocked by .*registries.conf", image)
            self.assertEqual([], server.asked)

    def test_a_broken_file_stops_the_request_before_the_network(self) -> None:
        with RecordingServer(lambda asked: Given(500)) as server:
            image = self._fleet(server.host, "origin")
            self.require_refused("config-invalid", r"makes 'origin/os/base:9' of registry.example/os/base:9", image)
            self.assertEqual([], server.asked)

    def test_a_namespace_travels_with_every_request(self) -> None:
        behind = self.registry()

        def answer(asked: Asked) -> Given:
            with_namespace = asked.target.partition("?")[2] == "ns=registry.example"
            connection = http.client.HTTPConnection("127.0.0.1", behind.port, timeout=PATIENCE)
            try:
                connection.request("GET", asked.target if with_namespace else "/nothing", headers=_accept(asked))
                found = connection.getresponse()
                return Given(found.status, found.read(), {"Content-Type": found.headers["Content-Type"]})
            finally:
                connection.close()

        with RecordingServer(answer) as shared:
            image = self._fleet(shared.host, "127.0.0.1:1", "namespace-proxy = ''\n")
            conf = self.home / ".config" / "containers" / "registries.conf"
            conf.write_text(conf.read_text() + "namespace-proxy = 'registry.example'\n", encoding="ascii")
            self.require_served(image)


def _accept(asked: Asked) -> dict[str, str]:
    return {"Accept": asked.fields.get("accept", mediatype.OCI_MANIFEST)}


class ExplainTest(HostCase):
    def _explain(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [*MODULE, "explain", *arguments],
            env=clean_environment(self.home),
            cwd=ROOT,
            text=True,
            check=False,
            capture_output=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
        )
        self.assertEqual(status, done.returncode, done.stdout + done.stderr)
        self.assertEqual([], leaks_in(done.stdout + done.stderr))
        return done.stdout

    def test_what_is_explained_is_what_happens(self) -> None:
        registry = self.registry(htpasswd={"robot": PASSWORD})
        self.write_home(
            "registries.conf", f"[[registry]]\nprefix='registry.example'\nlocation='{registry.host}'\ninsecure=true\n"
        )
        file = self.write_home("auth.json", self.authfile(registry.host))
        image = f"docker://registry.example/{IMAGE}"
        members = json.loads(self._explain("--json", image))
        (endpoint,) = members["endpoints"]
        self.assertEqual((f"{registry.host}/{IMAGE}", True), (endpoint["location"], endpoint["insecure"]))
        self.assertEqual(
            {"kind": "password", "source": str(file), "key": registry.host, "helper": None}, endpoint["credentials"]
        )
        self.assertIn("1. " + endpoint["location"], self._explain(image))
        self.require_served(image)

    def test_a_broken_host_is_told_by_text_and_status(self) -> None:
        self.write_home("registries.conf", "[[registry]]\nlocation='https://registry.example'\n")
        shown = self._explain(f"docker://registry.example/{IMAGE}", status=1)
        self.assertIn("cannot be opened: ", shown)
        self.assertIn("expected a host or repository without a scheme", shown)


if __name__ == "__main__":
    unittest.main()
