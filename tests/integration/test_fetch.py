# SPDX-License-Identifier: Apache-2.0
"""`fetch` and what follows from it: the very bytes, continued after every end, judged again without a network."""

import contextlib
import itertools
import json
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from cip.model.signature import SIGSTORE_MIME_TYPE
from cip.partial.part import BLOCK
from cip.sources.keptsignatures import ARTIFACT_TYPE
from tests.support import images, referrers
from tests.support.jsonparent import json_proxy
from tests.support.parent import HURRY, KILLS, MODULE, PATIENCE, ROOT, running
from tests.support.peers import clean_environment, require_peer, run_program
from tests.support.registry import (
    NAME,
    Content,
    Exchange,
    Fault,
    FaultyHost,
    Strike,
    at,
    flipped,
    make_content,
    only_ranged,
    ranged,
    registry_of,
    status,
)
from tests.support.signatures import GpgHome, payload
from tests.support.sigstore import new_key, public_pem, signed, sigstore_payload

PLATFORM = ("--override-os=linux", "--override-arch=amd64")
SIZE = 6 * BLOCK + 777


def paced(exchange: Exchange) -> None:
    """The right answer at about 40 MB/s, so that there are moments to be killed at."""
    given = exchange.given
    exchange.send(given.head())
    for start in range(0, len(given.body), 1 << 16):
        exchange.send(given.body[start : start + (1 << 16)])
        time.sleep(0.0015)


class FetchCase(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="cip-fetch-")))
        self.layout = self.scratch / "layout"
        self.content = make_content(SIZE)
        self.host = self.enterContext(FaultyHost(registry_of(self.content)))
        self.image = f"docker://{self.host.address}/{NAME}:t"
        self.policy: tuple[str, ...] = ("--insecure-policy",)
        (self.scratch / "registries.d").mkdir()
        self.place = f"--registries.d={self.scratch}/registries.d"

    def require(self, requirement: Mapping[str, Any]) -> None:
        policy = self.scratch / "policy.json"
        policy.write_text(json.dumps({"default": [requirement]}))
        self.policy = (f"--policy={policy}",)

    def sign_in_lookaside(self) -> bytes:
        """Sign the image where registries.d has signatures looked for, and demand that; the signature."""
        require_peer("gpgv")
        home = self.enterContext(GpgHome())
        key = home.create_key("main")
        (self.scratch / "main.gpg").write_bytes(home.export_all(key))
        digest = digest_of(self.content.index)
        store = self.scratch / "lookaside" / f"{NAME}@sha256={digest.encoded}"
        store.mkdir(parents=True)
        message = home.sign_as(payload(self.image.removeprefix("docker://"), str(digest)), key)
        (store / "signature-1").write_bytes(message)
        (self.scratch / "registries.d" / "all.yaml").write_text(
            f"default-docker:\n  lookaside: file://{self.scratch}/lookaside\n"
        )
        self.require({"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(self.scratch / "main.gpg")})
        return message

    def command(self, *options: str, image: str = "", destination: str = "") -> list[str]:
        words = [*self.policy, self.place, "--tls-verify=false", *PLATFORM, *HURRY, *options]
        return [*MODULE, "fetch", *words, image or self.image, destination or f"oci:{self.layout}"]

    def begin(self, *options: str, **others: Any) -> subprocess.Popen[bytes]:
        environment = clean_environment(self.scratch)
        process = self.enterContext(
            subprocess.Popen(
                self.command(*options),
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                **others,
            )
        )
        self.addCleanup(process.kill)  # of a test that fails before it has ended
        return process

    def parts(self) -> list[int]:
        """Sizes of the parts that are there; one may be whole, and have its name, between two looks."""
        sizes = []
        for path in self.layout.glob("blobs/sha256/*.part"):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        return sizes

    def fetch(
        self, *options: str, status: int = 0, prefix: Sequence[str] = (), image: str = "", destination: str = ""
    ) -> str:
        """Run it to its end; what it said."""
        done = subprocess.run(
            [*prefix, *self.command(*options, image=image, destination=destination)],
            cwd=ROOT,
            timeout=4 * PATIENCE,
            env=clean_environment(self.scratch),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done.stdout if not status else done.stderr

    def blob(self, data: bytes) -> Path:
        return self.layout / "blobs" / "sha256" / digest_of(data).encoded

    def index(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads((self.layout / "index.json").read_bytes())["manifests"]
        return entries

    def require_whole(self) -> None:
        """The layout has the image, every file in it is what its name says, and nothing else lies there."""
        for data in (self.content.index, self.content.manifest, self.content.config, self.content.layer):
            self.assertEqual(self.blob(data).read_bytes(), data)
        for path in (self.layout / "blobs" / "sha256").iterdir():
            self.assertEqual(digest_of(path.read_bytes()).encoded, path.name)
        self.assertEqual(sorted(path.name for path in self.layout.iterdir()), ["blobs", "index.json", "oci-layout"])

    def add_platform(self) -> Content:
        """Make the image an index of two platforms; what the second one, arm64, has."""
        other = Content(b'{"architecture":"arm64","os":"linux"}', b"other")
        platforms = ((self.content, "amd64"), (other, "arm64"))
        index = images.index(
            [images.entry(each.manifest, platform={"os": "linux", "architecture": name}) for each, name in platforms]
        )
        self.content.blobs.update(other.blobs)
        self.content.manifests.update(other.manifests)
        self.content.manifests["t"] = (mediatype.OCI_INDEX, index)
        self.content.index = index
        return other

    def strike(self, fault: Fault, times: int | None = 1, phase: str = "blob") -> None:
        self.host.strikes[:] = [Strike(phase, fault, times)]

    def first_bytes(self) -> list[int | None]:
        """Where each request for the layer began."""
        digest = str(digest_of(self.content.layer))
        return [asked.first_byte for asked in self.host.asked if asked.target.endswith(digest)]


class Fetched(FetchCase):
    def test_the_very_bytes_under_the_tag_and_readable_by_others(self) -> None:
        said = self.fetch()
        self.assertRegex(said, rf"\Aoci:{self.layout}:t: sha256:[0-9a-f]{{64}}, 2 blobs, 6\.0 MiB fetched in .*\n\Z")
        self.require_whole()
        (entry,) = self.index()
        self.assertEqual(entry["annotations"], {"org.opencontainers.image.ref.name": "t"})
        self.assertEqual((entry["digest"], entry["size"]), (str(digest_of(self.content.index)), 1101))
        skopeo = require_peer("skopeo")
        arguments = ("--insecure-policy", *PLATFORM, "copy", f"oci:{self.layout}:t", f"dir:{self.scratch}/copy")
        run_program([skopeo, *arguments], home=self.scratch)
        self.assertEqual((self.scratch / "copy" / "manifest.json").read_bytes(), self.content.manifest)

    def test_what_is_there_is_verified_and_reused(self) -> None:
        self.fetch()
        self.host.asked.clear()
        self.assertIn("2 blobs, 2 reused, 0 B fetched", self.fetch())
        self.assertEqual(self.first_bytes(), [])
        path = self.blob(self.content.layer)
        path.write_bytes(self.content.layer[:-1] + b"?")
        self.assertIn("2 blobs, 1 reused", self.fetch())
        self.require_whole()

    def test_other_images_stay_and_a_name_is_replaced(self) -> None:
        self.fetch(destination=f"oci:{self.layout}:first")
        self.fetch(destination=f"oci:{self.layout}:second")
        self.fetch(destination=f"oci:{self.layout}:first")
        names = [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in self.index()]
        self.assertEqual(names, ["second", "first"])

    def test_a_digest_gives_no_name(self) -> None:
        image = f"docker://{self.host.address}/{NAME}@{digest_of(self.content.manifest)}"
        for _ in range(2):
            self.fetch(image=image)
            self.assertEqual([entry.get("annotations") for entry in self.index()], [None])

    def test_every_platform(self) -> None:
        other = self.add_platform()
        self.fetch()
        self.assertFalse(self.blob(other.manifest).exists())
        self.assertIn("4 blobs, 2 reused", self.fetch("--all"))
        self.require_whole()
        for data in (other.manifest, other.config, other.layer):
            self.assertEqual(self.blob(data).read_bytes(), data)

    def test_a_refused_image_writes_nothing(self) -> None:
        policy = self.scratch / "policy.json"
        policy.write_text('{"default": [{"type": "reject"}]}')
        self.policy = (f"--policy={policy}",)
        self.assertIn("refused by reject", self.fetch(status=1))
        self.assertFalse(self.layout.exists())

    def test_only_a_layout_or_an_empty_directory_is_written_to(self) -> None:
        self.layout.mkdir()
        (self.layout / "letter.txt").write_text("mine")
        self.assertIn("expected an OCI layout or an empty directory, found 'letter.txt'", self.fetch(status=1))
        self.assertEqual([path.name for path in self.layout.iterdir()], ["letter.txt"])
        self.assertIn("expected oci:DIR", self.fetch(status=2, destination=f"dir:{self.layout}"))

    def test_events_and_a_bar_tell_how_far_it_is(self) -> None:
        self.strike(paced, None)
        read_end, write_end = os.pipe()
        with open(read_end, "rb") as lines:
            try:
                process = self.begin(f"--events-fd={write_end}", pass_fds=[write_end])
            finally:
                os.close(write_end)
            events = [json.loads(line) for line in lines]
            process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)
        layer = str(digest_of(self.content.layer))
        told = {event["event"] for event in events if event.get("digest") == layer}
        self.assertEqual(told, {"progress", "done"})
        self.blob(self.content.layer).unlink()
        status, drawn = self.at_a_terminal()
        self.assertEqual(status, 0)
        self.assertRegex(drawn, r"\r\[#* *\]? *\d+% .* of .*, .*/s, .* left")

    def test_confined(self) -> None:
        done = subprocess.run(
            self.command("--require-sandbox=write"),
            cwd=ROOT,
            env=clean_environment(self.scratch),
            timeout=PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
        if "no Landlock" in done.stderr:
            self.skipTest("this kernel has no Landlock")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.require_whole()
        shutil.rmtree(self.layout)
        self.strike(paced, None)  # else it may be over before anything is drawn
        status, drawn = self.at_a_terminal("--require-sandbox=write")
        self.assertEqual(status, 0, drawn)
        self.assertIn("%", drawn)
        self.require_whole()

    def at_a_terminal(self, *options: str) -> tuple[int, str]:
        """The exit status of a run that draws its bar, and what it drew."""
        ours, theirs = pty.openpty()
        try:
            process = subprocess.Popen(
                self.command(*options),
                cwd=ROOT,
                env=clean_environment(self.scratch),
                stdout=subprocess.DEVNULL,
                stderr=theirs,
            )
            os.close(theirs)
            drawn = b""
            with contextlib.suppress(OSError):  # EIO: the other side is closed
                while select.select([ours], [], [], PATIENCE)[0] and (part := os.read(ours, 4096)):
                    drawn += part
            return process.wait(PATIENCE), drawn.decode()
        finally:
            os.close(ours)


class Amount(FetchCase):
    """Documents of which a registry chooses how many there are cost time and space on the disk, and no memory."""

    SIZE = 2 * 1024 * 1024  # bytes of one document
    COUNT = 48
    MEMORY = 64 * 1024  # KiB that all of them together may cost
    PEAK = """
import sys
from cip.cli import main
status = main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""

    def peak(self, *options: str) -> int:
        command = [sys.executable, "-c", self.PEAK, *self.command(*options)[len(MODULE) :]]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=clean_environment(self.scratch),
            timeout=8 * PATIENCE,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(done.stdout.split()[-1])

    def padded(self, members: Mapping[str, Any], number: int) -> bytes:
        return images.compact({**members, "annotations": {"n": str(number), "pad": "x" * self.SIZE}})

    def test_instances_and_indexes_inside_the_index(self) -> None:
        before = self.peak()
        shutil.rmtree(self.layout)
        empty = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": []}
        manifest = json.loads(self.content.manifest)
        for kind, members in ((mediatype.OCI_INDEX, empty), (mediatype.OCI_MANIFEST, manifest)):
            entries = [images.entry(self.content.manifest, platform={"os": "linux", "architecture": "amd64"})]
            for number in range(self.COUNT):
                data = self.padded(members, number)
                self.content.manifests[str(digest_of(data))] = (kind, data)
                platform = {"os": "linux", "architecture": f"a{number}"}
                entries.append({**images.entry(data, platform=platform), "mediaType": kind})
            self.content.manifests["t"] = (mediatype.OCI_INDEX, images.index(entries))
            with self.subTest(kind):
                self.assertLess(self.peak("--all") - before, self.MEMORY)
                self.assertEqual(len(list(self.layout.glob("blobs/sha256/*"))), self.COUNT + 4)
            shutil.rmtree(self.layout)

    def test_signatures(self) -> None:
        before = self.peak()
        digest = digest_of(self.content.manifest)
        texts = [images.compact({"critical": str(number), "optional": "x" * self.SIZE}) for number in range(self.COUNT)]
        attached = [
            {**images_descriptor(text, SIGSTORE_MIME_TYPE), "annotations": {"dev.cosignproject.cosign/signature": ""}}
            for text in texts
        ]
        bundle = b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}'
        carriers = [self.padded(json.loads(referrers.carrier(digest, bundle)), number) for number in range(self.COUNT)]
        self.content.blobs.update({digest_of(text): text for text in (*texts, bundle)})
        for each in carriers:
            self.content.manifests[str(digest_of(each))] = (mediatype.OCI_MANIFEST, each)
        document = {**json.loads(self.content.manifest), "layers": attached}
        self.content.manifests[f"sha256-{digest.encoded}.sig"] = (mediatype.OCI_MANIFEST, images.compact(document))
        listing = referrers.listing([referrers.listed(each) for each in carriers])
        self.content.manifests[f"sha256-{digest.encoded}"] = (mediatype.OCI_INDEX, listing)
        self.assertLess(self.peak() - before, self.MEMORY)
        self.assertGreater(len(list(self.layout.glob("blobs/sha256/*"))), 2 * self.COUNT)


class Disturbed(FetchCase):
    def test_faults_that_pass(self) -> None:
        wrong = ranged(lambda first, total: f"bytes {first}-{total - 1}/{total}")
        for name, fault, times in (
            ("stall", at(0.5, Exchange.stall), 1),
            ("cut", at(0.5, Exchange.end), 2),
            ("reset", Exchange.reset, 1),
            ("429", status(429, Retry_After="0"), 2),
            ("503", status(503), 1),
            ("right range", wrong, None),
        ):
            with self.subTest(name):
                self.strike(fault, times)
                self.fetch()
                self.require_whole()
                self.blob(self.content.layer).unlink()

    def leave_a_part(self) -> None:
        """What a run leaves whose source broke for good."""
        self.strike(at(0.6, Exchange.end), None)
        self.fetch("--retry-times=0", status=1)
        self.host.strikes.clear()
        self.host.asked.clear()

    def test_what_a_failed_run_had_is_continued(self) -> None:
        self.leave_a_part()
        self.assertFalse((self.layout / "index.json").exists())
        self.assertIn("1 continued", self.fetch())
        (first,) = self.first_bytes()
        self.assertGreaterEqual(first or 0, 2 * BLOCK)
        self.require_whole()

    def test_faults_behind_what_is_there(self) -> None:
        for name, fault in (
            ("416", only_ranged(status(416))),
            ("stall", at(0.3, Exchange.stall)),
            ("429", status(429, Retry_After="0")),
        ):
            with self.subTest(name):
                self.leave_a_part()
                self.strike(fault)
                self.fetch()
                self.require_whole()
                self.blob(self.content.layer).unlink()

    def test_a_wrong_range_is_refused_and_what_is_there_stays(self) -> None:
        self.leave_a_part()
        self.strike(ranged(lambda first, total: f"bytes {first + 1}-{total - 1}/{total}"), None)
        self.assertIn("found another range", self.fetch(status=1))
        self.host.strikes.clear()
        self.assertIn("1 continued", self.fetch())
        self.require_whole()

    def test_wrong_bytes_are_never_there_under_their_name(self) -> None:
        self.strike(flipped(0), None)
        self.assertIn("expected digest", self.fetch(status=1))
        self.assertFalse(self.blob(self.content.layer).exists())
        self.assertEqual([path.name for path in self.layout.glob("blobs/sha256/*.part")], [])
        self.host.strikes.clear()
        self.fetch()
        self.require_whole()

    def test_wrong_bytes_behind_a_right_part_are_fetched_again_from_the_first_byte(self) -> None:
        self.leave_a_part()
        self.strike(only_ranged(flipped(0)), None)
        self.fetch()
        self.require_whole()

    def test_a_full_disk_is_said_and_costs_nothing_that_is_there(self) -> None:
        said = self.fetch(status=1, prefix=("prlimit", f"--fsize={3 * BLOCK}"))
        self.assertIn("file too large", said)
        self.assertIn("1 continued", self.fetch())
        self.assertIn(3 * BLOCK, self.first_bytes())
        self.require_whole()

    def test_two_processes_at_once_fetch_each_blob_once(self) -> None:
        self.strike(paced, None)
        runs = [self.begin(), self.begin("--override-arch=arm64")]
        for run in runs:
            _, said = run.communicate(timeout=4 * PATIENCE)
            self.assertEqual(run.returncode, 0, said)
        self.assertEqual(self.first_bytes(), [None])
        self.require_whole()

    def test_signals_leave_what_is_there(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.strike(at(0.7, Exchange.stall), None)
            process = self.begin("--idle-timeout=30", "--stall-timeout=60")
            deadline = time.monotonic() + PATIENCE
            while max(self.parts(), default=0) <= 2 * BLOCK:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, -number, said)
            self.assertNotIn(b"Traceback", said)
        self.host.strikes.clear()
        self.assertRegex(self.fetch(), "[1-9] continued")  # beside the layer it may have begun another blob
        self.require_whole()


class Killed(FetchCase):
    def test_a_kill_at_any_moment_leaves_nothing_that_cannot_be_used(self) -> None:
        self.strike(paced, None)
        chance = random.Random(19)
        for number in range(KILLS):
            self.host.asked.clear()
            had = max(self.parts(), default=0)
            process = self.begin()
            time.sleep(0.15 + chance.random() * 0.5)
            process.kill()
            process.communicate()
            for first in self.first_bytes():
                self.assertGreater(first or 0, had - BLOCK, f"kill {number}")
            if number % 5 == 4:
                self.fetch()
                self.require_whole()
                for path in self.layout.glob("blobs/sha256/*"):
                    path.unlink()
                (self.layout / "index.json").unlink()
        self.host.strikes.clear()
        self.fetch()
        self.require_whole()


class Offline(FetchCase):
    """The whole story: fetched with its signatures, judged by the same policy where there is no network."""

    sources: Sequence[Path] = ()  # instead of the layout alone

    def options(self) -> list[str]:
        sources = [f"--local-source=oci:{each}" for each in self.sources or [self.layout]]
        return ["--offline", *sources, *self.policy, self.place, *PLATFORM]

    def accept(self) -> None:
        self.host.asked.clear()
        with running(*self.options(), self.image) as proxy:
            self.assertEqual(proxy.line.ask("GET", "/manifest").body, self.content.manifest, proxy.stderr())
            answer = proxy.line.ask("GET", f"/blobs/{digest_of(self.content.layer)}")
            self.assertEqual(answer.body, self.content.layer)
        with json_proxy(*self.options()) as json_side:
            image = json_side.parent.open(self.image)
            layer = self.content.layer
            self.assertEqual(json_side.parent.fetch("GetBlob", image, str(digest_of(layer)), len(layer))[1], layer)
        self.assertEqual(self.host.asked, [])

    def refuse(self, words: str) -> None:
        with running(*self.options(), self.image) as proxy:
            answer = proxy.line.ask("GET", "/manifest")
            self.assertEqual(answer.status, 403)
            self.assertRegex(answer.problem()["detail"], words)

    def forget(self, suffix: str) -> None:
        """Take the entries whose name ends so out of the index."""
        path = self.layout / "index.json"
        index = json.loads(path.read_bytes())
        names = "org.opencontainers.image.ref.name"
        index["manifests"] = [each for each in index["manifests"] if not each["annotations"][names].endswith(suffix)]
        path.write_text(json.dumps(index))

    def test_without_signatures(self) -> None:
        self.fetch()
        self.accept()

    def test_signatures_of_a_lookaside(self) -> None:
        message = self.sign_in_lookaside()
        self.assertIn(", 1 signature\n", self.fetch())
        (self.scratch / "registries.d" / "all.yaml").unlink()
        self.accept()
        (name,) = [each for each in self.index() if each["annotations"]["org.opencontainers.image.ref.name"] != "t"]
        document = json.loads((self.layout / "blobs" / "sha256" / name["digest"][7:]).read_bytes())
        self.assertEqual(document["artifactType"], ARTIFACT_TYPE)
        self.assertEqual(document["layers"][0]["digest"], str(digest_of(b"\0simple-signing\n" + message)))
        self.forget(".signatures")
        self.refuse("no simple signature found")

    def attach(self, digest: Digest, key: Any) -> bytes:
        """What cosign attaches to a manifest; its bytes."""
        text = sigstore_payload(self.image.removeprefix("docker://"), str(digest))
        signature = signed(key, text)
        layer = {**images_descriptor(text, signature.mime_type), "annotations": dict(signature.annotations)}
        config = b'{"architecture":""}'
        manifest = images.compact(
            {
                "schemaVersion": 2,
                "mediaType": mediatype.OCI_MANIFEST,
                "config": images_descriptor(config, mediatype.OCI_CONFIG),
                "layers": [layer],
            }
        )
        self.content.blobs.update({digest_of(each): each for each in (text, config)})
        self.content.manifests[f"sha256-{digest.encoded}.sig"] = (mediatype.OCI_MANIFEST, manifest)
        return manifest

    def require_attached(self) -> Any:
        """Demand an attached signature of a new key; the key."""
        key = new_key()
        (self.scratch / "key.pub").write_bytes(public_pem(key))
        (self.scratch / "registries.d" / "all.yaml").write_text("default-docker:\n  use-sigstore-attachments: true\n")
        self.require({"type": "sigstoreSigned", "keyPath": str(self.scratch / "key.pub")})
        return key

    def test_attached_signatures_with_their_very_bytes(self) -> None:
        key = self.require_attached()
        manifest = self.attach(digest_of(self.content.manifest), key)
        self.assertIn(", 1 signature\n", self.fetch())
        self.assertEqual(self.blob(manifest).read_bytes(), manifest)
        self.accept()
        self.forget(".sig")
        self.refuse("no sigstore signature")

    def test_every_platform_is_judged(self) -> None:
        other = self.add_platform()
        key = self.require_attached()
        self.attach(digest_of(self.content.manifest), key)
        self.assertIn("no sigstore signature", self.fetch("--all", status=1))
        self.assertFalse((self.layout / "index.json").exists())
        self.attach(digest_of(other.manifest), key)
        self.assertIn(", 2 signatures\n", self.fetch("--all"))
        self.require_whole()
        self.accept()

    def test_a_copy_of_a_copy(self) -> None:
        key = self.require_attached()
        self.attach(digest_of(self.content.index), key)
        self.fetch()
        second = self.scratch / "second"
        self.host.asked.clear()
        self.fetch("--offline", f"--local-source=oci:{self.layout}", destination=f"oci:{second}")
        self.assertEqual(self.host.asked, [])
        self.layout = second
        self.require_whole()
        self.accept()

    def test_an_image_that_the_policy_refuses_is_not_passed_over(self) -> None:
        """README says so, and why."""
        self.attach(digest_of(self.content.manifest), self.require_attached())
        self.fetch()
        other = self.scratch / "other"
        images.f1(other)
        self.sources = (other, self.layout)
        self.refuse("no sigstore signature")
        self.sources = (self.layout, other)
        self.accept()
        self.sources = (other, self.layout)
        self.image = f"{self.image.rpartition(':')[0]}@{digest_of(self.content.manifest)}"
        self.accept()  # what has another digest is another image
        self.image = self.image.partition("@")[0] + ":t"
        (other / "index.json").write_text("{")
        self.accept()
        other.rename(self.scratch / "away")
        self.accept()

    def test_what_refers_to_the_image_comes_along(self) -> None:
        digest = digest_of(self.content.manifest)
        bundle = b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}'
        carrier = referrers.carrier(digest, bundle, annotations=referrers.SIGNING)
        sbom = referrers.carrier(digest, b"packages", kind="application/spdx+json", layer_type="application/spdx+json")
        listing = referrers.listing([referrers.listed(carrier), referrers.listed(sbom, "application/spdx+json")])
        self.content.blobs.update({digest_of(each): each for each in (bundle, referrers.EMPTY_CONFIG, b"packages")})
        for each in (carrier, sbom):
            self.content.manifests[str(digest_of(each))] = (mediatype.OCI_MANIFEST, each)
        self.content.manifests[f"sha256-{digest.encoded}"] = (mediatype.OCI_INDEX, listing)
        self.assertIn(", 1 signature\n", self.fetch())
        for data in (carrier, bundle, referrers.listing([referrers.listed(carrier)])):
            self.assertEqual(self.blob(data).read_bytes(), data)
        self.assertFalse(self.blob(sbom).exists() or self.blob(b"packages").exists(), "no proof of anything")

    def test_no_image_comes_along_as_a_signature(self) -> None:
        """An unsigned index is accepted for the instance that is signed, and names others as well."""
        evil = self.add_platform()
        key = self.require_attached()
        good = digest_of(self.content.manifest)
        signature = json.loads(self.attach(good, key))
        image = {
            **json.loads(evil.manifest),
            "subject": images_descriptor(self.content.manifest, mediatype.OCI_MANIFEST),
        }
        referring = images.compact(image)
        carriers = [
            referring,
            referrers.carrier(good, evil.layer, kind="application/x", layer_type="application/x-tar"),
            referrers.carrier(good, evil.manifest, annotations=referrers.SIGNING),
            referrers.carrier(good, evil.layer, annotations=referrers.SIGNING),
        ]
        listing = referrers.listing([referrers.listed(each) for each in carriers])
        self.content.manifests[f"sha256-{good.encoded}"] = (mediatype.OCI_INDEX, listing)
        parts = (evil.manifest, evil.config, evil.layer, referring)
        self.content.blobs.update({digest_of(each): each for each in (*parts, *carriers, referrers.EMPTY_CONFIG)})
        for each in carriers:
            self.content.manifests[str(digest_of(each))] = (mediatype.OCI_MANIFEST, each)
        for kind, smuggled in itertools.product((SIGSTORE_MIME_TYPE, mediatype.OCI_LAYER), (*parts, b"null")):
            layers = [*signature["layers"], images_descriptor(smuggled, kind)]
            attached = images.compact({**signature, "layers": layers})
            self.content.blobs[digest_of(smuggled)] = smuggled
            self.content.manifests[f"sha256-{good.encoded}.sig"] = (mediatype.OCI_MANIFEST, attached)
            with self.subTest(kind, smuggled=smuggled[:40]):
                self.fetch()
                self.assertEqual([self.blob(each).exists() for each in (evil.manifest, referring)], [False, False])
                self.assertEqual([self.blob(each).exists() for each in (evil.layer, *carriers)], [False] * 5)
            shutil.rmtree(self.layout)
        index = json.loads(self.content.index)
        for kind in (mediatype.OCI_INDEX, mediatype.DOCKER_LIST):  # what is read as an index must be one
            inside = {**images.entry(evil.manifest), "mediaType": kind}
            trick = images.compact({**index, "manifests": [*index["manifests"], inside]})
            self.content.manifests["t"] = (mediatype.OCI_INDEX, trick)
            with self.subTest(kind):
                self.assertIn("expected an index, as the one above it says", self.fetch(status=1))
                self.assertFalse(self.blob(evil.manifest).exists())

    def test_a_signature_that_cannot_be_had_fails_the_run(self) -> None:
        self.attach(digest_of(self.content.index), new_key())
        self.strike(status(500), None, "manifest")
        self.host.strikes[0] = Strike("manifest", _only_signatures(status(500)), None)
        self.assertRegex(self.fetch("--retry-times=0", status=1), "500")
        self.assertFalse((self.layout / "index.json").exists())


def _only_signatures(fault: Fault) -> Fault:
    return lambda exchange: fault(exchange) if exchange.asked.target.endswith(".sig") else exchange.answer()


def images_descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest_of(data)), "size": len(data)}


if __name__ == "__main__":
    unittest.main()
