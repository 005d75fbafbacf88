# SPDX-License-Identifier: Apache-2.0
"""What people meet in the field, row by row: each test is named after what it shows.

Registries that speak with words of their own are played; where the program that makes the circumstance is at hand,
it makes it here too.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import time
import unittest
from functools import partial
from pathlib import Path
from typing import Any

from cip.model import mediatype
from cip.model.descriptor import digest_of
from tests.support import images
from tests.support.certificates import CertificateAuthority
from tests.support.field import AMD64, NAME, FieldCase, complaining, content, without_blobs
from tests.support.jsonparent import json_proxy
from tests.support.parent import MODULE, ROOT, running
from tests.support.peers import clean_environment, docker_registry, require_peer
from tests.support.recording import Given


class MissingTest(FieldCase):
    """c/image#2203: the status decides whether something is there, and no registry's own words do."""

    def test_a_404_in_harbors_words_is_a_missing_image(self) -> None:
        server = self.played(lambda asked: Given(404, complaining("NOT_FOUND", "artifact os/base:9 not found")))
        problem = self.problem(f"docker://{server.host}/{NAME}:9")
        self.assertEqual(("image-not-found", 404, False), (problem["type"], problem["status"], problem["retryable"]))
        self.assertIn(f"{server.host}/{NAME}:9", problem["detail"])
        self.assertRegex(problem["detail"], "status 404: 'NOT_FOUND': 'artifact os/base:9 not found'")

    def test_a_404_without_a_body_is_a_missing_image_and_names_the_repository_that_answered(self) -> None:
        server = self.played(lambda asked: Given(404))
        self.write_home(
            "registries.conf",
            f"[[registry]]\nprefix='registry.example'\nlocation='{server.host}/cache'\ninsecure=true\n",
        )
        problem = self.problem(f"docker://registry.example/{NAME}:9")
        self.assertEqual("image-not-found", problem["type"])
        self.assertIn(f"manifest of {server.host}/cache/{NAME}:9: not found, status 404", problem["detail"])

    def test_a_404_for_a_blob_is_a_missing_blob_whatever_the_body_says(self) -> None:
        for body in (b"", complaining("NAME_UNKNOWN"), complaining("NOT_FOUND"), b"<html>no</html>"):
            server = self.played(partial(without_blobs, Given(404, body)))
            with self.subTest(body=body):
                problem = self.problem(f"docker://{server.host}/{NAME}:9", target=f"/blobs/{images.DIGEST_T}")
                self.assertEqual(("blob-not-found", 404), (problem["type"], problem["status"]))
                self.assertIn("status 404", problem["detail"])

    def test_a_refused_blob_with_an_empty_body_tells_the_status(self) -> None:
        server = self.played(partial(without_blobs, Given(403)))
        problem = self.problem(f"docker://{server.host}/{NAME}:9", target=f"/blobs/{images.DIGEST_T}")
        self.assertEqual("authentication-failed", problem["type"])
        self.assertIn("status 403", problem["detail"])
        self.assertNotIn("no reason given", problem["detail"])

    def test_open_image_optional_keeps_skopeos_meaning(self) -> None:
        """0 is for a registry that says MANIFEST_UNKNOWN of the image itself; what lies below it is another matter."""
        index = images.index([images.entry(images.MANIFEST_M, platform=AMD64)])
        answers = {
            "absent": Given(404, complaining("MANIFEST_UNKNOWN")),
            "odd": Given(400, complaining("MANIFEST_UNKNOWN")),
            "silent": Given(404),
            "harbor": Given(404, complaining("NOT_FOUND")),
            "index": Given(200, index, {"Content-Type": mediatype.OCI_INDEX}),
        }
        default = Given(404, complaining("MANIFEST_UNKNOWN"))
        server = self.played(lambda asked: answers.get(asked.target.rpartition("/")[2], default))
        with json_proxy("--override-arch=amd64", home=self.home) as proxy:
            proxy.parent.ask("Initialize")
            for tag, found in (("absent", 0), ("odd", 0), ("silent", None), ("harbor", None), ("index", None)):
                with self.subTest(tag):
                    reply = proxy.parent.ask("OpenImageOptional", f"docker://{server.host}/{NAME}:{tag}")
                    if found is not None:
                        self.assertEqual(found, reply.value)
                    else:
                        self.assertEqual("image-not-found", reply.members["details"]["type"])


class ConfigurationTest(FieldCase):
    """What an administrator wrote and has no effect is told, by a warning and by `explain`."""

    def explain(self, image: str, **variables: str) -> dict[str, Any]:
        command = [*MODULE, "explain", "--json", image]
        environment = clean_environment(self.home) | variables
        shown = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=environment).stdout
        members: dict[str, Any] = json.loads(shown)
        return members

    def test_a_policy_scope_that_no_image_lies_in_is_told_because_its_reject_protects_nothing(self) -> None:
        server = self.played(content)
        image = f"docker://{server.host}/{NAME}:9"
        scopes = {f"{server.host}/os/": [{"type": "reject"}]}
        policy = {"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": scopes, "dokcer": scopes}}
        self.write_home("policy.json", json.dumps(policy))
        self.assertEqual(200, self.ask(image).status)
        for shown in (self.stderr, "\n".join(self.explain(image)["warnings"])):
            self.assertRegex(shown, f"transports.docker: '{server.host}/os/' is the scope of no image: .* no slash")
            self.assertRegex(shown, "transports.dokcer: .*: no transport has this name")

    def test_entries_of_auth_files_that_can_never_match_are_told(self) -> None:
        server = self.played(content)
        image = f"docker://{server.host}/{NAME}:9"
        auths: dict[str, object] = {f"{server.host}/": {}, "quay.io/ns:tag": {}}
        file = self.write_home("auth.json", json.dumps({"auths": auths, "credsStore": "secretservice"}))
        shown = "\n".join(self.explain(image)["warnings"])
        self.assertIn(f"{file}: auths['{server.host}/']: the key of no repository: expected no slash", shown)
        self.assertIn(f"{file}: auths['quay.io/ns:tag']: the key of no repository: expected no tag", shown)
        self.assertIn(f"{file}: credsStore: not used", shown)
        self.assertEqual(200, self.ask(image).status)

    def test_an_auth_file_of_no_bytes_is_absent_with_a_warning(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry", htpasswd={"robot": "secret"}))
        self.write_home("registries.conf", f"[[registry]]\nlocation='{registry.host}'\ninsecure=true\n")
        file = self.write_home("auth.json", "")
        image = f"docker://{registry.host}/{NAME}:9"
        problem = self.problem(image)
        self.assertEqual("authentication-failed", problem["type"])
        self.assertIn(f"{file} (empty)", problem["detail"])
        self.assertIn(f"{file}: empty, it counts as absent", self.stderr)
        docker = self.home / ".docker" / "config.json"
        docker.parent.mkdir()
        auth = base64.b64encode(b"robot:secret").decode()
        docker.write_text(json.dumps({"auths": {registry.host: {"auth": auth}}}))
        self.assertEqual("image-not-found", self.problem(image)["type"])

    def test_a_helper_is_found_by_a_wildcard_for_a_label(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry", htpasswd={"robot": "secret"}))
        host = f"127.0.0.1:{registry.port}"
        self.write_home("registries.conf", f"[[registry]]\nlocation='{host}'\ninsecure=true\n")
        self.write_home("auth.json", json.dumps({"credHelpers": {f"127.*.0.1:{registry.port}/os": "field"}}))
        helper = self.scratch / "bin" / "docker-credential-field"
        helper.parent.mkdir()
        helper.write_text('#!/bin/sh\nread registry\necho "{\\"Username\\":\\"robot\\",\\"Secret\\":\\"secret\\"}"\n')
        helper.chmod(0o755)
        path = {"PATH": f"{helper.parent}:{os.environ['PATH']}"}
        self.assertEqual("image-not-found", self.problem(f"docker://{host}/{NAME}:9", environment=path)["type"])
        self.assertIn("podman knows no wildcards", self.stderr)
        self.assertEqual("authentication-failed", self.problem(f"docker://{host}/x:9", environment=path)["type"])

    def test_a_helper_that_fails_tells_why_and_no_secret(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry", htpasswd={"robot": "secret"}))
        self.write_home("registries.conf", f"[[registry]]\nlocation='{registry.host}'\ninsecure=true\n")
        self.write_home("auth.json", json.dumps({"credHelpers": {registry.host: "field"}}))
        helper = self.scratch / "bin" / "docker-credential-field"
        helper.parent.mkdir()
        path = {"PATH": f"{helper.parent}:{os.environ['PATH']}"}
        for script, shown in (
            ("echo 'cannot reach vault.example: timeout' >&2", "cannot reach vault.example: timeout"),
            ("echo hunter2; echo 'not hunter2' >&2", "not shown, because it repeats its answer"),
        ):
            helper.write_text(f"#!/bin/sh\n{script}\nexit 3\n")
            helper.chmod(0o755)
            with self.subTest(script):
                problem = self.problem(f"docker://{registry.host}/{NAME}:9", environment=path)
                self.assertEqual("credentials-unavailable", problem["type"])
                self.assertIn(f"docker-credential-field: ended with status 3 for {registry.host}", problem["detail"])
                self.assertIn(shown, problem["detail"])
                self.assertNotIn("hunter2", problem["detail"] + self.stderr)

    def test_a_helper_that_leaves_a_child_behind_ends_with_itself(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry", htpasswd={"robot": "secret"}))
        self.write_home("registries.conf", f"[[registry]]\nlocation='{registry.host}'\ninsecure=true\n")
        self.write_home("auth.json", json.dumps({"credHelpers": {registry.host: "field"}}))
        helper = self.scratch / "bin" / "docker-credential-field"
        helper.parent.mkdir()
        helper.write_text("#!/bin/sh\nsleep 12 &\n" + 'echo \'{"Username":"robot","Secret":"secret"}\'\n')
        helper.chmod(0o755)
        path = {"PATH": f"{helper.parent}:{os.environ['PATH']}"}
        began = time.monotonic()
        with running(f"docker://{registry.host}/{NAME}:9", home=self.home, environment=path) as proxy:
            self.assertEqual("image-not-found", proxy.line.ask("GET", "/manifest").problem()["type"])
            self.assertLess(time.monotonic() - began, 10)

    def test_a_mirror_without_its_registry_says_what_lacks_above_it(self) -> None:
        self.write_home("registries.conf", "[[registry.mirror]]\nlocation='mirror.example'\n")
        problem = self.problem(f"docker://registry.example/{NAME}:9")
        self.assertEqual("config-invalid", problem["type"])
        self.assertIn("[[registry.mirror]] without the [[registry]] that it mirrors", problem["detail"])

    def test_the_users_registries_d_causes_no_warning_at_the_end(self) -> None:
        server = self.played(content)
        self.write_home("registries.d/default.yaml", "default-docker:\n  lookaside: file:///nowhere\n")
        with running(f"docker://{server.host}/{NAME}:9", home=self.home) as proxy:
            self.assertEqual(200, proxy.line.ask("GET", "/manifest").status)
            self.assertEqual(200, proxy.line.ask("GET", f"/blobs/{images.DIGEST_T}").status)
            self.assertEqual(200, proxy.line.ask("POST", "/quit").status)
            proxy.wait()
            self.assertNotIn("registries.d", proxy.stderr())


class NightTest(FieldCase):
    """At three in the morning the one line holds the next step."""

    def lines(self) -> list[str]:
        """The ERROR lines of the last run."""
        return [line for line in self.stderr.splitlines() if ": ERROR: " in line]

    def test_an_untrusted_certificate_names_the_directory_of_that_host(self) -> None:
        authority = CertificateAuthority(self.scratch / "authority")
        registry = self.enterContext(docker_registry(self.scratch / "registry", tls=authority.server()))
        problem = self.problem(f"docker://{registry.host}/{NAME}:9")
        self.assertEqual("tls-untrusted", problem["type"])
        for said in (problem["detail"], *self.lines()):
            self.assertIn(f"certs.d/{registry.host}", said)
        self.assertEqual(1, len(self.lines()))

    def test_a_server_that_speaks_plain_http_names_the_setting(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry"))
        problem = self.problem("--retry-times=0", f"docker://{registry.host}/{NAME}:9")
        for said in (problem["detail"], *self.lines()):
            self.assertIn("insecure = true", said)
        self.assertEqual(1, len(self.lines()))

    def test_an_unknown_tag_says_which_repository_answered(self) -> None:
        registry = self.enterContext(docker_registry(self.scratch / "registry"))
        rule = f"[[registry]]\nprefix='registry.example'\nlocation='{registry.host}/mirror'\ninsecure=true\n"
        self.write_home("registries.conf", rule)
        self.assertEqual("image-not-found", self.problem(f"docker://registry.example/{NAME}:99")["type"])
        self.assertIn(f"{registry.host}/mirror/{NAME}:99: not found, status 404: 'MANIFEST_UNKNOWN'", self.lines()[0])
        self.assertIn(
            "check the name and the tag; no authorization was demanded, no credentials found, so anonymous (looked at",
            self.lines()[0],
        )

    def test_what_was_tried_again_says_how_often(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as port:
            host = f"127.0.0.1:{port.getsockname()[1]}"
        self.problem("--retry-delay=0", "--retry-times=2", f"docker://{host}/{NAME}:9")
        self.assertRegex(self.lines()[0], r"connection refused.*\(tried 3 times in [0-9.]+ s\)\Z")

    def test_a_failed_open_is_one_line_unless_the_parent_hides_it(self) -> None:
        image = f"oci:{self.scratch}/none"
        self.problem(image)
        self.assertEqual(1, len(self.lines()), self.stderr)
        self.assertIn(str(self.scratch), self.lines()[0])
        self.problem("--quiet", image)
        self.assertEqual("", self.stderr)
        layout = images.Layout(self.scratch / "layout")
        for options, lines in (((), 1), (("--quiet",), 0)):
            with json_proxy(*options, home=self.home) as proxy:
                proxy.parent.ask("Initialize")
                self.assertEqual(0, proxy.parent.ask("OpenImageOptional", f"oci:{layout.path}:t").value)
                self.assertIn("details", proxy.parent.ask("OpenImage", image).members)
                proxy.hang_up()
                self.stderr = proxy.stderr()
            self.assertEqual(lines, len(self.lines()), self.stderr)

    def test_explain_says_when_the_system_has_no_certificate_authorities(self) -> None:
        nowhere = {"SSL_CERT_FILE": "/no/such/file", "SSL_CERT_DIR": "/no/such/directory"}
        for environment, said in ((nowhere, True), ({}, False)):
            command = [*MODULE, "explain", f"docker://registry.example/{NAME}:9"]
            shown = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                cwd=ROOT,
                env=clean_environment(self.home) | environment,
            ).stdout
            self.assertIs("no certificate authorities, looked for /no/such/file, /no/such/directory" in shown, said)


class LocalFaultTest(FieldCase):
    """A fault of this host is no fault of a registry, and the message names the path."""

    def test_a_place_that_cannot_be_read_is_source_unavailable(self) -> None:
        (self.scratch / "fifo").mkdir()
        os.mkfifo(self.scratch / "fifo" / "index.json")
        for image in (
            f"oci:{self.scratch}/none:t",
            f"oci:{self.scratch}/no/such:t",
            f"oci-archive:{self.scratch}/none.tar:t",
            f"docker-archive:{self.scratch}/none.tar",
            f"dir:{self.scratch}/none",
            f"oci:{self.scratch}/fifo:t",
            f"tarball:{self.scratch}/none.tar",
            f"docker-archive:{self.scratch}/fifo/index.json",
        ):
            with self.subTest(image):
                problem = self.problem(image)
                self.assertEqual(("source-unavailable", 500), (problem["type"], problem["status"]), problem)
                self.assertFalse(problem["retryable"])
                self.assertIn(str(self.scratch), problem["detail"])

    def test_a_missing_tmpdir_is_named(self) -> None:
        problem = self.problem("--tmpdir=/no/such/place", f"oci-archive:{self.compressed_archive()}:t")
        self.assertEqual(("source-unavailable", 500), (problem["type"], problem["status"]))
        self.assertIn("'/no/such/place' (--tmpdir)", problem["detail"])

    def test_a_full_tmpdir_is_storage_full(self) -> None:
        room = self.scratch / "room"
        room.mkdir()
        script = f'mount -t tmpfs -o size=64k none "{room}" && exec "$@"'
        small = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh")
        if subprocess.run([*small, "true"], check=False, capture_output=True).returncode != 0:
            raise unittest.SkipTest("this machine lets nobody make a file system of 64 KiB")
        for program in ("gzip", "zstd"):
            with self.subTest(program):
                archive = self.compressed_archive(program)
                with running(
                    f"--tmpdir={room}", f"oci-archive:{archive}:t", home=self.home, command=(*small, *MODULE)
                ) as proxy:
                    problem = proxy.line.ask("GET", "/manifest").problem()
                self.assertEqual(("storage-full", 507), (problem["type"], problem["status"]), problem)
                self.assertIn("--tmpdir", problem["detail"])

    def compressed_archive(self, program: str = "gzip") -> Path:
        """A compressed archive of a layout that takes 300 KiB; holes would take none."""
        layout = images.Layout(self.scratch / f"layout-{program}")
        layer = images.tar([images.Member(b"noise", images.random_bytes(300_000, b"room"))])
        config = images.config([digest_of(layer)])
        layout.add_image(config, [layer], images.manifest(config, [layer]), name="t")
        archive = self.scratch / f"{program}.tar"
        subprocess.run(["tar", "-C", layout.path, "-cf", archive, "."], check=True)
        compressed = archive.with_suffix(".tar.z")
        with compressed.open("wb") as output:
            command = "gzip" if program == "gzip" else require_peer(program)
            subprocess.run([command, "-c", archive], check=True, stdout=output)
        return compressed


if __name__ == "__main__":
    unittest.main()
