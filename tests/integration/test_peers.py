# SPDX-License-Identifier: Apache-2.0
"""Shows that the servers of tests/support/peers.py are what the other integration tests take them for."""

import json
import ssl
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import images, peers
from tests.support.certificates import CertificateAuthority
from tests.support.leaks import LeakCheckedTestCase


class PeersTest(LeakCheckedTestCase):
    def get(self, url: str, *, context: ssl.SSLContext | None = None, proxy: str | None = None) -> int:
        """The status of one GET that no setting of this machine can redirect."""
        proxies = urllib.request.ProxyHandler({} if proxy is None else {"http": proxy})
        opener = urllib.request.build_opener(proxies, urllib.request.HTTPSHandler(context=context))
        try:
            with opener.open(url, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def test_a_registry_keeps_what_skopeo_pushes_and_is_gone_when_stopped(self) -> None:
        images.f1(self.directory / "layout")
        with peers.docker_registry(self.directory / "plain") as registry:
            peers.skopeo(
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
                f"oci:{self.directory}/layout:t",
                f"docker://{registry.host}/os/base:1",
                home=self.directory,
            )
            self.assertEqual(200, self.get(f"{registry.url}/v2/os/base/blobs/{images.DIGEST_T}"))
            deadline = time.monotonic() + 10  # the line follows the answer
            while f"GET /v2/os/base/blobs/{images.DIGEST_T}" not in registry.log_text():
                self.assertLess(time.monotonic(), deadline, registry.log_text())
                time.sleep(0.01)
            self.assertTrue((registry.root / "docker" / "registry" / "v2" / "repositories" / "os" / "base").is_dir())
        with self.assertRaisesRegex(urllib.error.URLError, "refused"):
            self.get(f"{registry.url}/v2/")

    def test_a_registry_with_tls_and_passwords_asks_for_both(self) -> None:
        authority = CertificateAuthority(self.directory / "ca")
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        with peers.docker_registry(
            self.directory / "tls", tls=authority.server(), htpasswd={"user": "word"}
        ) as registry:
            self.assertEqual(401, self.get(f"{registry.url}/v2/", context=trusting))
            with self.assertRaisesRegex(urllib.error.URLError, "CERTIFICATE_VERIFY_FAILED"):
                self.get(f"{registry.url}/v2/", context=ssl.create_default_context())
            peers.skopeo(
                "login",
                f"--cert-dir={self.directory}/ca",
                "--username=user",
                "--password=word",
                f"--authfile={self.directory}/auth.json",
                registry.host,
                home=self.directory,
            )
            self.assertIn(registry.host, json.loads((self.directory / "auth.json").read_text())["auths"])
            with self.assertRaisesRegex(AssertionError, "invalid username/password|unauthorized"):
                peers.skopeo(
                    "login",
                    f"--cert-dir={self.directory}/ca",
                    "--username=user",
                    "--password=other",
                    f"--authfile={self.directory}/auth.json",
                    registry.host,
                    home=self.directory,
                )

    def test_a_registry_for_known_clients_refuses_the_others(self) -> None:
        authority = CertificateAuthority(self.directory / "ca")
        known = ssl.create_default_context(cafile=str(authority.certificate))
        client = authority.client()
        known.load_cert_chain(client.certificate, client.key)
        unknown = ssl.create_default_context(cafile=str(authority.certificate))
        with peers.docker_registry(
            self.directory / "r", tls=authority.server(), client_authority=authority.certificate
        ) as registry:
            self.assertEqual(200, self.get(f"{registry.url}/v2/", context=known))
            with self.assertRaises(OSError):
                self.get(f"{registry.url}/v2/", context=unknown)

    def test_a_pull_through_cache_serves_what_its_origin_had(self) -> None:
        images.f1(self.directory / "layout")
        authority = CertificateAuthority(self.directory / "ca")
        path = f"/v2/os/base/blobs/{images.DIGEST_T}"
        with (
            peers.docker_registry(self.directory / "origin", tls=authority.server()) as origin,
            peers.docker_registry(
                self.directory / "cache", proxy_remote=origin.url, trusted=authority.certificate
            ) as cache,
        ):
            peers.skopeo(
                "copy",
                "--preserve-digests",
                f"--dest-cert-dir={self.directory}/ca",
                f"oci:{self.directory}/layout:t",
                f"docker://{origin.host}/os/base:1",
                home=self.directory,
            )
            self.assertEqual(200, self.get(cache.url + path))
            self.assertIn(path, origin.log_text())

    def test_a_proxy_relays_for_those_who_know_its_password(self) -> None:
        with (
            peers.docker_registry(self.directory / "r") as registry,
            peers.tinyproxy(self.directory / "open") as proxy,
            peers.tinyproxy(self.directory / "closed", user="user", password="word") as closed,
        ):
            self.assertEqual(200, self.get(f"{registry.url}/v2/", proxy=proxy.url))
            self.assertIn(registry.host, proxy.log_text())
            self.assertEqual(407, self.get(f"{registry.url}/v2/", proxy=closed.url))
            with_password = closed.url.replace("//", "//user:word@")
            self.assertEqual(200, self.get(f"{registry.url}/v2/", proxy=with_password))

    def test_skopeo_obeys_a_policy_when_it_is_given_one(self) -> None:
        images.f1(self.directory / "layout")
        policy = self.directory / "policy.json"
        policy.write_text('{"default":[{"type":"reject"}]}', encoding="ascii")
        source, there = f"oci:{self.directory}/layout:t", f"dir:{self.directory}/copy"
        with self.assertRaisesRegex(AssertionError, "rejected by policy"):
            peers.skopeo("copy", source, there, home=self.directory, policy=policy)
        peers.skopeo("copy", source, there, home=self.directory)
        self.assertEqual(images.MANIFEST_M, Path(self.directory, "copy", "manifest.json").read_bytes())

    def test_the_image_proxy_of_skopeo_answers_on_our_end_of_its_socket(self) -> None:
        with peers.skopeo_image_proxy(home=self.directory) as ours:
            ours.settimeout(20)
            ours.send(b'{"method":"Initialize","args":[]}')
            answer = json.loads(ours.recv(32768))
            self.assertTrue(answer["success"])
            self.assertRegex(answer["value"], r"^0\.2\.[0-9]+$")  # 3 in Debian 12, 6 in 13
            ours.send(b'{"method":"Shutdown","args":[]}')

    def test_a_certificate_can_be_out_of_date(self) -> None:
        authority = CertificateAuthority(self.directory / "ca")
        old = authority.server(not_before=datetime.now(UTC) - timedelta(days=9), not_after=datetime.now(UTC))
        trusting = ssl.create_default_context(cafile=str(authority.certificate))
        with peers.docker_registry(self.directory / "old", tls=old) as registry:
            with self.assertRaisesRegex(urllib.error.URLError, "certificate has expired"):
                self.get(f"{registry.url}/v2/", context=trusting)
