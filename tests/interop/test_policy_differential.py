# SPDX-License-Identifier: Apache-2.0
"""Policies, signatures, identities and tampering, judged beside a current skopeo and its library.

Three judges: the newest image library with GPGME behind a program of ours, which knows `--require-signed`; the current
skopeo, once copying to a directory and once as image proxy; Debian's own for `signedBy`. What is meant to differ is one
list, `INTENDED`, by what our refusal says; whatever else differs is a failure, and so is a row that nothing needs. We
never accept what a judge refuses: no row can allow that.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cip import log
from cip.errors import CipError
from cip.events import NO_EVENTS
from cip.hostconfig.paths import KEY_LIMIT, read_configuration
from cip.model import mediatype
from cip.model.descriptor import Digest, digest_of
from cip.opening import ImageOpener
from cip.programs import DirectPrograms
from cip.settings import PlatformOptions, Settings
from cip.transports import SourceOpener
from cip.trust.evaluation import no_audit
from cip.trust.policy import TrustTools, parse_policy
from tests.support import images
from tests.support.jsonparent import json_proxy
from tests.support.judge import Judge
from tests.support.newer import require_newer
from tests.support.peers import clean_environment, docker_registry, require_peer
from tests.support.policytexts import policy_texts
from tests.support.pushing import Pusher
from tests.support.signatures import GpgHome, payload
from tests.support.sigstore import b64, new_key, public_pem, sign, signature_of, sigstore_payload, stored
from tests.support.sigstorecases import SigstoreCases, sigstore_signed
from tests.support.simpleblobs import MATCH, NAME, Requirement, SimpleBlobs, ring_sources, signed_by

SEED = 20261123
CHANGED = 3000 if "CIP_TEST_LONG" in os.environ else 300  # certificates
MIXED = 260  # generated combinations of requirements, keys, identities and signatures
MANIFEST = images.MANIFEST_M
PLATFORM = ("--override-os", "linux", "--override-arch", "amd64")  # as the settings of ours


def setUpModule() -> None:
    log.set_threshold(log.Level.SILENT)
    unittest.addModuleCleanup(log.set_threshold, log.Level.INFO)


@dataclass(frozen=True, slots=True)
class Difference:
    """One row of what is meant to differ: we refuse, with `words` in the sentence, what the judge accepts."""

    row: str
    why: str
    words: str


_NOTHING = r": expected (a string, found null|an array, found null|a file name, found ''|base64 of a key|at least one)"
INTENDED = (
    Difference("D3 beside", "an empty or null source beside another one", r"found (key|rekor)[A-Za-z]+ and"),
    Difference("D3 empty", "an empty or null source counts as one", rf"(key|Key)(Paths?|Datas?)(\[[0-9]\])?{_NOTHING}"),
    Difference("D3 certificates", "null inside a certificate source", rf"(fulcio|pki)\.[A-Za-z]+{_NOTHING}"),
    Difference("D4", "bytes as an array of numbers", r"expected a string, found an array"),
    Difference("D5", "lone surrogates and invalid UTF-8, in payloads too", r"lone surrogate|not valid UTF-8"),
    Difference("D6 armor", "armor and cleartext behind the format prefix", r"not a signed binary OpenPGP message"),
    Difference("D6 text", "text-mode signatures", r"a text-mode signature"),
    Difference("D7", "data signed with SHA-1", r"signed with SHA-1"),
    Difference("D8 twice", "the same primary key twice in a ring", r"occurs twice"),
    Difference("D8 bare", "a key that signs no name, which some gpg 2.4 take", r"no public key with a name and"),
    Difference("D8 secret", "a secret key ring, which only an import makes public", r"packet type 5 does not belong"),
    Difference(
        "4.6 duplicates", "duplicate keys in a value that nobody reads", r"signed payload: optional.*duplicate key"
    ),
    Difference(
        "4.3 spelling", "other spellings of known members", r"signature signature-1: (ambiguous|.*duplicate key)"
    ),
    Difference("D9 entry", "numbers and strings of a log entry", r"log entry: Payload\."),
    Difference("D9 body", "keys of a log entry's body", r"log entry body.*(ambiguous|expected a member|duplicate)"),
    Difference("D10 leaf", "a leaf that is its own anchor", r"no trusted certificate vouches"),
    Difference("D10 constraints", "name constraints of an authority", r"name constraints|extension 2\.5\.29\.30"),
    Difference("D10 policies", "rules about policies that nobody breaks", r"rules about policies"),
    Difference("D10 small", "small RSA keys", r"RSA key of 1024 bits"),
    Difference("D13", "raw numbers instead of DER", r"not by the expected key"),
    Difference("5.1 base64", "bits behind the last byte of base64", r"expected canonical base64"),
    Difference("5.3 headers", "headers in a PEM block", r"expected a public key in PEM form"),
    Difference("5.6 text", "text before the one certificate", r"certificate annotation: expected exactly one"),
    Difference("5.6 hosts", "names that are none are compared as texts", r"expected a certificate for host"),
)


def _takes(ring: bytes) -> bool:
    """Whether this machine's gpg imports a key, whatever it says of it."""
    with GpgHome() as home:
        with contextlib.suppress(AssertionError):
            home.run("--import", text=ring)
        return b"pub:" in home.run("--with-colons", "--list-keys")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one judge says: whether the image is accepted, and why not."""

    accepted: bool
    words: str = ""


class Ours:
    """Opens images as the proxy does, under one policy after the other."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._programs = DirectPrograms()

    def judge(self, policy: bytes, image: str, *, require_signed: bool = False) -> Verdict:
        options = self._settings.policy._replace(require_signed=require_signed)
        settings = self._settings._replace(policy=options)
        tools = TrustTools(
            lambda path: read_configuration(path, KEY_LIMIT),
            lambda ring, message: self._programs.verify(ring, message),
            time.time,
        )
        sources = SourceOpener(settings, NO_EVENTS, self._programs)
        opener = ImageOpener(
            settings, sources, tools, lambda: parse_policy(policy, "policy.json"), events=NO_EVENTS, audit=no_audit
        )
        try:
            opener.open(image).close()
        except CipError as error:
            return Verdict(False, str(error))
        finally:
            opener.close()
        return Verdict(True)


class CurrentSkopeo:
    """The program itself, which opens images in two ways. It judges one image under one policy at each start."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._words = require_newer("skopeo-current")
        self._pool = ThreadPoolExecutor(2)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def verdicts(self, policy: Path, image: str) -> Iterator[tuple[str, Verdict]]:
        """What each way says of `image`, with the name of the way; both run at the same time."""
        ways = {"copy": self._copy, "image proxy": self._open}
        asked = {name: self._pool.submit(way, policy, image) for name, way in ways.items()}
        for name, answer in asked.items():
            yield name, answer.result()

    def _copy(self, policy: Path, image: str) -> Verdict:
        """To a directory; the signatures stay behind, for another transport could not keep them."""
        target = self._home / "copied"
        command = [*self._words, "--policy", str(policy), *PLATFORM, "copy", "--quiet", "--remove-signatures"]
        done = subprocess.run(
            [*command, image, f"dir:{target}"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(self._home),
            timeout=60,
        )
        shutil.rmtree(target, ignore_errors=True)
        return Verdict(done.returncode == 0, done.stderr.decode("utf-8", "replace")[-300:])

    def _open(self, policy: Path, image: str) -> Verdict:
        command = [*self._words, "--policy", str(policy), *PLATFORM, "experimental-image-proxy"]
        with json_proxy(command=command, status=None, home=self._home) as proxy:
            proxy.parent.ask("Initialize")
            reply = proxy.parent.ask("OpenImage", image)
            return Verdict(True) if reply.members["success"] else Verdict(False, reply.failure[1])


class Differences:
    """Compares verdicts, and keeps what nobody intended."""

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.unmeant: list[str] = []
        self.counts: Counter[bool] = Counter()

    def compare(self, name: str, ours: Verdict, theirs: Verdict) -> None:
        self.counts[theirs.accepted] += 1
        if ours.accepted == theirs.accepted:
            return
        if not ours.accepted:
            for difference in INTENDED:
                if re.search(difference.words, ours.words):
                    self.used.add(difference.row)
                    return
        said = f"ours {'accepts' if ours.accepted else f'refuses: {ours.words}'}"
        self.unmeant.append(f"{name}: {said}; theirs {'accepts' if theirs.accepted else f'refuses: {theirs.words}'}")


class DifferentialCase(unittest.TestCase):
    """A directory, the judges of policies and ours; the program itself judges where a test asks it to."""

    maxDiff = None
    home: Path
    judge: Judge
    ours: Ours
    skopeo: CurrentSkopeo | None = None
    images_made = 0

    @classmethod
    def setUpClass(cls) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="cip-policy-")
        cls.addClassCleanup(scratch.cleanup)
        cls.home = Path(scratch.name)
        cls.judge = Judge("policy", home=cls.home)
        cls.addClassCleanup(cls.judge.close)
        cls.ours = Ours(Settings(platform=PlatformOptions(os="linux", architecture="amd64")))

    def setUp(self) -> None:
        self.differences = Differences()

    def ask_the_program(self) -> None:
        """From now on the current skopeo judges as well."""
        self.skopeo = CurrentSkopeo(self.home)
        self.addCleanup(self.skopeo.close)

    def image(self, signatures: Sequence[bytes | None], manifest: bytes = MANIFEST) -> Path:
        """A `dir:` image with these signature files; None leaves a number out."""
        DifferentialCase.images_made += 1
        path = images.directory(self.home / f"image-{self.images_made}", manifest, _blobs())
        for number, blob in enumerate(signatures, 1):
            if blob is not None:
                (path / f"signature-{number}").write_bytes(blob)
        return path

    def compare(self, name: str, policy: bytes, image: str, *, require_signed: bool = False, **options: Any) -> None:
        file = self.home / "policy.json"
        file.write_bytes(policy)
        reply = self.judge.ask(
            policy=file, image=image, require_signed=require_signed, os="linux", arch="amd64", **options
        )
        theirs = Verdict(reply["accepted"], f"{reply['stage']}: {reply['error']}")
        ours = self.ours.judge(policy, image, require_signed=require_signed)
        self.differences.compare(name, ours, theirs)
        if self.skopeo is not None and not require_signed:  # a flag that it does not have
            for way, verdict in self.skopeo.verdicts(file, image):
                self.differences.compare(f"{name}, {way}", ours, verdict)

    def compare_directory(
        self, name: str, requirements: Sequence[Requirement], signatures: Sequence[bytes | None], **options: Any
    ) -> None:
        policy = json.dumps({"default": requirements}).encode()
        self.compare(name, policy, f"dir:{self.image(signatures)}", **options)

    def require_agreement(self, least: int, *, least_accepted: int, rows: str | None = "") -> None:
        """Nothing differs but what `rows` name (None: any row of INTENDED), and each of them did.

        At least `least` cases were judged, and `least_accepted` of them accepted: a test that cannot fail is none.
        """
        found = self.differences
        if rows is not None:
            self.assertEqual(sorted(found.used), sorted(filter(None, rows.split(", "))))
        self.assertEqual("\n".join(found.unmeant), "", f"{len(found.unmeant)} differ of {found.counts.total()}")
        self.assertGreaterEqual(found.counts.total(), least)
        self.assertGreaterEqual(found.counts[True], least_accepted)


class PolicyTextTest(DifferentialCase):
    def test_every_small_change_of_a_policy_is_parsed_alike(self) -> None:
        image = f"dir:{self.image(())}"
        for name, text in policy_texts():
            self.compare(f"{name}: {text}", text.encode("utf-8", "surrogatepass"), image)
        rows = "5.1 base64, D3 beside, D3 certificates, D3 empty, D4, D5"
        self.require_agreement(1000, least_accepted=100, rows=rows)

    def test_paths_select_the_same_scope(self) -> None:
        """Rows S11, S12 and the order of scopes; the image is reached over a link, too."""
        image = self.image(())
        link = self.home / "link"
        link.symlink_to(image)
        (self.home / "x").mkdir()
        parents = [str(image), *(str(parent) for parent in image.parents if parent != Path("/"))]
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        for scope in (*parents, str(link), str(image) + "x", str(self.home / "lin"), ""):
            for default, inside in ((accept, reject), (reject, accept)):
                policy = json.dumps({"default": default, "transports": {"dir": {scope: inside}}}).encode()
                for opened in (image, link, image / ".", self.home / "x" / ".." / image.name):
                    self.compare(f"{scope} {opened} {inside}", policy, f"dir:{opened}")
        nested = {scope: inside for scope, inside in zip(parents, [reject, accept] * 4, strict=False)}
        self.compare("nested", json.dumps({"default": accept, "transports": {"dir": nested}}).encode(), f"dir:{image}")
        self.require_agreement(30, least_accepted=10)

    def test_s14_physical_path_is_judged_and_read(self) -> None:
        """D11: over a link and back, the judge looks up the policy for one directory and reads another."""
        good, other = images.directory(self.home / "good" / "img", MANIFEST, []), self.home / "other"
        images.directory(other / "img", MANIFEST, [])
        (other / "deep").mkdir()
        (self.home / "good" / "link").symlink_to(other / "deep")
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        policy = json.dumps({"default": reject, "transports": {"dir": {str(good.parent): accept}}}).encode()
        file = self.home / "policy.json"
        file.write_bytes(policy)
        image = f"dir:{self.home}/good/link/../img"
        self.assertTrue(self.judge.ask(policy=file, image=image)["accepted"])
        ours = self.ours.judge(policy, image)
        self.assertEqual((ours.accepted, "images of this scope are refused" in ours.words), (False, True))

    def test_storages_select_the_same_scope(self) -> None:
        """A storage is named by the text of its root, whatever links lead there."""
        root, link, away = self.home / "storage", self.home / "to-storage", self.home / "away" / "deep"
        away.mkdir(parents=True)
        (self.home / "to-away").symlink_to(away)
        link.symlink_to(root)
        store = f"{root}+{self.home}/run"
        kept = self._stored(f"[vfs@{store}]vendor.com/a/b:v1")
        image_id = json.loads((root / "vfs-images" / "images.json").read_text())[0]["id"]
        name, digest = "vendor.com/a/b", kept
        stores = (
            *(f"vfs@{path}" for path in (root, link, f"{root}/", f"{self.home}/./x/../storage")),
            f"vfs@{self.home}/to-away/../storage",
            str(link),
        )
        names = (f"{name}:v1", f"{name}@{digest}", f"{name}:v1@{digest}", f"{name}:v1@{image_id}", image_id[:12])
        opened = [f"[{place}+{self.home}/run]{names[0]}" for place in stores]
        opened += [f"[vfs@{link}+{self.home}/run]{each}" for each in names]
        scopes = [f"[{driver}{path}]" for path in (root, link, f"{root}/") for driver in ("vfs@", "overlay@", "")]
        scopes += [
            f"[vfs@{path}]{each}" for path in (root, link) for each in (*names[:-1], name, "vendor.com", f"@{image_id}")
        ]
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        for image in opened:
            for scope in scopes:
                for default, inside in ((accept, reject), (reject, accept)):
                    policy = {"default": default, "transports": {"containers-storage": {scope: inside}}}
                    self.compare(f"{image} {scope}", json.dumps(policy).encode(), f"containers-storage:{image}")
        self.require_agreement(400, least_accepted=150)

    def test_names_of_signatures_in_a_storage(self) -> None:
        """Which takes a tag and a digest together."""
        name, digest, key = "vendor.com/a/b", digest_of(MANIFEST), new_key()
        place = f"containers-storage:[vfs@{self.home}/signed+{self.home}/run]"
        signed_names = (f"{name}:v1", f"{name}@{digest}", f"{name}:v1@{digest}", f"{name}:v2@{digest}", name)
        matchers = (
            None,
            {"type": "matchExact"},
            {"type": "matchRepository"},
            {"type": "exactReference", "dockerReference": f"{name}:v1"},
            {"type": "remapIdentity", "prefix": name, "signedPrefix": name},
        )
        for number, signed_name in enumerate(signed_names):
            text = sigstore_payload(signed_name, str(digest))
            blob = stored(signature_of(text, sign(key, text)))
            at = place.replace("/signed+", f"/signed-{number}+")
            self._stored(f"{at.partition(':')[2]}{name}:v1", blob)
            for matcher in matchers:
                demand = sigstore_signed({"keyData": b64(public_pem(key))}, matcher)
                for asked in (f"{name}:v1", f"{name}@{digest}", f"{name}:v1@{digest}"):
                    policy = json.dumps({"default": [demand]}).encode()
                    self.compare(f"{asked} signed {signed_name}, {matcher}", policy, f"{at}{asked}")
        self.require_agreement(75, least_accepted=25)

    def _stored(self, name: str, *signatures: bytes) -> str:
        """Copy the image into a storage, under `name`; its digest."""
        with Judge("copy", home=self.home) as judge:
            reply = judge.ask(source=f"dir:{self.image(signatures)}", destination=f"containers-storage:{name}")
        self.assertEqual(reply["error"], "")
        return str(reply["digest"])


class SimpleSigningTest(DifferentialCase):
    blobs: dict[str, bytes]
    keys: dict[str, Requirement]

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        super().setUpClass()
        with GpgHome() as home:
            made = SimpleBlobs(home, MANIFEST, SEED)
            cls.blobs = made.blobs
            cls.keys = ring_sources(made.rings, cls.home / "keys")

    def test_every_blob_alone(self) -> None:
        self.ask_the_program()
        for name, blob in self.blobs.items():
            self.compare_directory(name, [signed_by(self.keys["all"])], [blob])
        self.require_agreement(110, least_accepted=20, rows="4.6 duplicates, D5, D6 armor, D6 text, D7")

    def test_every_source_of_keys(self) -> None:
        for name, keys in self.keys.items():
            for blob in ("by main", "by revoked", "by other"):
                self.compare_directory(f"{name}, {blob}", [signed_by(keys)], [self.blobs[blob]])
            self.compare_directory(f"{name}, unsigned", [signed_by(keys)], [])
        for kind in ("signedByGPGKeys", "X509Certificates", "signedByX509CAs"):
            self.compare_directory(kind, [signed_by(self.keys["main"], key_type=kind)], [self.blobs["by main"]])
        bare = "D8 bare, " if _takes((self.home / "keys" / "unbound").read_bytes()) else ""
        self.require_agreement(80, least_accepted=10, rows=f"{bare}D8 secret, D8 twice")

    def test_every_matcher(self) -> None:
        for matcher in _matchers()[:4]:
            for blob in (name for name in self.blobs if name.startswith("payload: ") or name == "by main"):
                self.compare_directory(f"{matcher} {blob}", [signed_by(self.keys["main"], matcher)], [self.blobs[blob]])
        self.require_agreement(100, least_accepted=6, rows="4.6 duplicates, D5")

    def test_generated_combinations(self) -> None:
        self.ask_the_program()
        chance = random.Random(SEED)
        sigstore = SigstoreCases(MANIFEST, int(time.time()), SEED)
        attached = {
            "sigstore": stored(next(signature for _, _, signature in sigstore)),
            "attestation": stored(next(signature for name, _, signature in sigstore if name == "key: other mime type")),
        }
        common = ("by main", "by other", "by rsa", "by stranger", "payload: other tag", "payload: other digest")
        everything = {**self.blobs, **attached}
        requirements: list[Requirement] = [
            {"type": "insecureAcceptAnything"},
            {"type": "reject"},
            {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}},
            sigstore_signed(sigstore.trusting()),
            sigstore_signed(sigstore.trusting(sigstore.other)),
        ]
        for number in range(MIXED):
            chosen = []
            for _ in range(chance.choice((1, 1, 1, 2, 2, 3))):
                if chance.random() < 0.3:
                    chosen.append(chance.choice(requirements))
                    continue
                keys = self.keys[chance.choice(("all", "all", "main", "other", chance.choice(list(self.keys))))]
                chosen.append(signed_by(keys, chance.choice((MATCH, MATCH, MATCH, *_matchers()))))
            names = [
                chance.choice((*common, *attached, chance.choice(list(everything))))
                for _ in range(chance.choice((0, 1, 1, 2, 3)))
            ]
            files: list[bytes | None] = [everything[name] for name in names]
            if chance.random() < 0.05:
                files.insert(chance.randrange(len(files) + 1), None)
            what = f"{number}: {json.dumps(chosen)[:600]} over {names}"
            self.compare_directory(what, chosen, files, require_signed=chance.random() < 0.2)
        self.require_agreement(MIXED, least_accepted=MIXED // 12, rows=None)

    def test_debians_skopeo_agrees_on_signed_by(self) -> None:
        """It is old: signatures by a subkey are refused there (signatures.md 4.4)."""
        policy = json.dumps({"default": [signed_by(self.keys["all"])]}).encode()
        (self.home / "policy.json").write_bytes(policy)
        later = {"by subkey"}
        for name, blob in self.blobs.items():
            if name.startswith("flipped"):
                continue
            image = images.directory(self.home / f"skopeo-{len(os.listdir(self.home))}", MANIFEST, _blobs())
            (image / "signature-1").write_bytes(blob)
            ours = self.ours.judge(policy, f"dir:{image}")
            command = [
                require_peer("skopeo"),
                "--policy",
                str(self.home / "policy.json"),
                "copy",
                "--quiet",
                "--remove-signatures",
                f"dir:{image}",
                f"dir:{self.home / 'copied'}",
            ]
            done = subprocess.run(
                command, check=False, capture_output=True, env=clean_environment(self.home), timeout=60
            )
            theirs = Verdict(done.returncode == 0, done.stderr.decode("utf-8", "replace")[-300:])
            if name not in later:
                self.differences.compare(name, ours, theirs)
        self.require_agreement(50, least_accepted=15, rows="4.6 duplicates, D5, D6 armor, D6 text, D7")


class SigstoreTest(DifferentialCase):
    def test_every_signature_with_its_trust(self) -> None:
        self.ask_the_program()
        for name, members, signature in SigstoreCases(MANIFEST, int(time.time()), SEED):
            self.compare_directory(name, [sigstore_signed(members)], [stored(signature)])
        rows = "5.1 base64, 5.3 headers, 5.6 hosts, 5.6 text, D10 constraints, D10 leaf, D10 policies, D10 small"
        rows += ", D13, D5, D9 body, D9 entry"
        self.require_agreement(250, least_accepted=60, rows=rows)

    def test_certificates_with_a_changed_byte(self) -> None:
        """Signed all the same, by an authority that writes what it likes: whatever the library cannot read refuses."""
        cases, chance = SigstoreCases(MANIFEST, int(time.time()), SEED), random.Random(SEED)
        for number in range(CHANGED):
            leaf = cases.changed_leaf(chance)
            self.compare_directory(f"{number}", [sigstore_signed(cases.trusting_fulcio())], [stored(leaf)])
        self.assertEqual([each for each in self.differences.unmeant if "ours accepts" in each], [])
        self.assertGreater(self.differences.counts[True], CHANGED // 10)

    def test_members_of_a_stored_signature_that_only_another_reader_takes_for_known_ones(self) -> None:
        cases = SigstoreCases(MANIFEST, int(time.time()), SEED)
        good = stored(cases.signed(cases.key)).decode()
        self.compare_directory("good", [sigstore_signed(cases.trusting())], [good.encode()])
        for name in ("mimeType", "payload", "annotations"):
            for other in (name.upper(), name.capitalize(), name.replace("s", "\u017f"), f"{name}x"):
                for value in ("{}", "[]", "0", "null", '""', '"zz"'):
                    for text in (
                        good[:-1] + f', "{other}": {value}}}',
                        good.replace("{", f'{{"{other}": {value}, ', 1),
                    ):
                        self.compare_directory(text, [sigstore_signed(cases.trusting())], [text.encode()])
        self.require_agreement(100, least_accepted=30, rows="4.3 spelling")

    def test_every_matcher(self) -> None:
        cases = SigstoreCases(MANIFEST, int(time.time()), SEED)
        for name, members, signature in cases:
            if name in ("payload: other tag", "payload: name only", "key: P-256", "payload: other repository"):
                for matcher in _matchers():
                    self.compare_directory(
                        f"{matcher} {name}", [sigstore_signed(members, matcher)], [stored(signature)]
                    )
        self.require_agreement(30, least_accepted=5)


class RegistryTest(DifferentialCase):
    """`docker://` through a real registry: names, lookaside, attachments, lists, mirrors."""

    host: str
    key: str
    sigstore: SigstoreCases

    @classmethod
    def setUpClass(cls) -> None:
        require_peer("gpgv")
        super().setUpClass()
        registry = docker_registry(cls.home / "registry")
        cls.addClassCleanup(registry.stop)
        cls.host = registry.host
        cls.gpg = GpgHome()
        cls.addClassCleanup(cls.gpg.close)
        cls.key = cls.gpg.create_key("main")
        (cls.home / "main.gpg").write_bytes(cls.gpg.export_all(cls.key))
        cls.sigstore = SigstoreCases(MANIFEST, int(time.time()), SEED)
        cls.registries_d = cls.home / "registries.d"
        cls.registries_d.mkdir()
        cls.place_signatures(attachments=True)
        cls.conf = cls.home / "registries.conf"
        cls.conf.write_text("")
        cls.ours = Ours(
            Settings(
                platform=PlatformOptions(os="linux", architecture="amd64"),
                tls_verify=False,
                registries_d=str(cls.registries_d),
                registries_conf=str(cls.conf),
            )
        )

    gpg: GpgHome
    registries_d: Path
    conf: Path

    @classmethod
    def place_signatures(cls, *, attachments: bool, host: str = "") -> None:
        section = f"docker:\n  {host}:" if host else "default-docker:"
        indent = "    " if host else "  "
        (cls.registries_d / "all.yaml").write_text(
            f"{section}\n{indent}use-sigstore-attachments: {'true' if attachments else 'false'}\n"
            f"{indent}lookaside: file://{cls.home}/lookaside\n"
        )

    def push(self, repository: str, tag: str, manifest: bytes = MANIFEST) -> Digest:
        with Pusher(self.host, repository) as pusher:
            return pusher.image(tag, manifest, *_blobs())

    def keep(self, repository: str, digest: Digest, *blobs: bytes) -> None:
        """Signatures in the lookaside."""
        place = self.home / "lookaside" / f"{repository}@{digest.algorithm}={digest.encoded}"
        place.mkdir(parents=True, exist_ok=True)
        for number, blob in enumerate(blobs, 1):
            (place / f"signature-{number}").write_bytes(blob)

    def ask(self, name: str, requirements: Sequence[Requirement], image: str, **scopes: Any) -> None:
        policy: dict[str, Any] = {"default": requirements}
        if scopes:
            policy["transports"] = scopes
        self.compare(
            name,
            json.dumps(policy).encode(),
            f"docker://{image}",
            tls_verify=False,
            registries_d=self.registries_d,
            registries_conf=self.conf,
        )

    def signed(self, reference: str, digest: Digest) -> bytes:
        return self.gpg.sign_as(payload(reference, str(digest)), self.key)

    def by_key(self, matcher: Requirement | None) -> list[Requirement]:
        return [signed_by({"keyPath": str(self.home / "main.gpg")}, matcher)]

    def test_names_of_signatures_under_every_matcher(self) -> None:
        """Rows I01 to I17."""
        digest = digest_of(MANIFEST)
        other = f"sha256:{'0' * 64}"
        base = f"{self.host}/names/r"
        signed_names = (
            f"{base}:v1",
            f"{base}:v2",
            f"{base}:latest",
            base,
            f"{base}@{digest}",
            f"{base}@{other}",
            f"{base}:v1@{digest}",
            f"{self.host}/names/other:v1",
            f"localhost{self.host[9:]}/names/r:v1",
            "127.0.0.1/names/r:v1",
            f" {base}:v1",
            f"{base}:v1\n",
            f"docker://{base}:v1",
            "",
            "a" * 64,
            "vendor.com/r:v1",
            "vendor.com/names/r:v1",
            "vendor.com/r:77",
            "vendor.com/r",
            "docker.io/library/r:v1",
            "r:v1",
        )
        matchers: tuple[Requirement | None, ...] = (
            None,
            {"type": "matchExact"},
            {"type": "matchRepository"},
            {"type": "exactReference", "dockerReference": f"{base}:v1"},
            {"type": "exactReference", "dockerReference": f"{base}@{digest}"},
            {"type": "exactRepository", "dockerRepository": base},
            {"type": "remapIdentity", "prefix": f"{self.host}/names", "signedPrefix": "vendor.com"},
            {"type": "remapIdentity", "prefix": self.host, "signedPrefix": "vendor.com"},
            {"type": "remapIdentity", "prefix": "127.0.0.1", "signedPrefix": "vendor.com"},
            {"type": "remapIdentity", "prefix": f"{self.host}/nam", "signedPrefix": "vendor.com"},
            {"type": "remapIdentity", "prefix": f"{self.host}/names", "signedPrefix": "docker.io"},
            {"type": "remapIdentity", "prefix": f"{base}", "signedPrefix": "docker.io/r"},
        )
        for tag in ("v1", "latest"):
            self.push("names/r", tag)
        # by sigstore keys, which are verified in a hundredth of the time; the matchers are the same
        key = self.sigstore.key
        for signed_name in signed_names:
            text = self.sigstore.payload(signed_name)
            self.keep("names/r", digest, stored(signature_of(text, sign(key, text))))
            for matcher in matchers:
                requirements = [sigstore_signed(self.sigstore.trusting(), matcher)]
                for requested in (f"{base}:v1", base, f"{base}@{digest}"):
                    self.ask(f"{matcher} {requested} signed {signed_name!r}", requirements, requested)
        self.require_agreement(700, least_accepted=60)

    def test_scopes_of_names(self) -> None:
        """Rows S01 to S10 as far as names lead to this registry."""
        digest = self.push("scopes/a/b", "v1")
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        port = self.host.partition(":")[2]
        base = f"{self.host}/scopes/a/b"
        scopes = (
            f"{base}:v1",
            f"{base}@{digest}",
            base,
            f"{self.host}/scopes/a",
            f"{self.host}/scopes",
            self.host,
            "127.0.0.1",
            "*.0.0.1",
            "*.0.1",
            "*.1",
            f"*.0.0.1:{port}",
            "*.0.0.1/scopes",
            "*",
            f"{self.host}/scope",
            f"localhost:{port}",
            "localhost",
            "scopes/a/b",
            "",
        )
        images_asked = (f"{base}:v1", f"{base}@{digest}", f"localhost:{port}/scopes/a/b:v1")
        for image in images_asked:
            for scope in scopes:
                for default, inside in ((accept, reject), (reject, accept)):
                    self.ask(f"{image} {scope} {inside}", default, image, docker={scope: inside})
            for first, second in itertools.pairwise(scopes):
                self.ask(f"{image} {first} before {second}", reject, image, docker={first: accept, second: reject})
                self.ask(f"{image} {second} before {first}", reject, image, docker={first: reject, second: accept})
        self.require_agreement(180, least_accepted=60)

    def test_lookaside(self) -> None:
        digest = self.push("lookaside/r", "v1")
        image = f"{self.host}/lookaside/r:v1"
        good, other = self.signed(image, digest), self.signed(f"{image}x", digest)
        other_digest = self.signed(image, digest_of(b"other"))
        for name, blobs in (
            ("none", ()),
            ("good", (good,)),
            ("bad first", (other, good)),
            ("good first", (good, other)),
            ("other digest", (other_digest,)),
            ("unknown format beside", (good, b"{}")),
            ("empty beside", (good, b"")),
            ("many", (other,) * 10 + (good,)),
            ("sigstore", (stored(self.sigstore.signed(self.sigstore.key)),)),
        ):
            place = self.home / "lookaside" / f"lookaside/r@sha256={digest.encoded}"
            for old in place.glob("*"):
                old.unlink()
            self.keep("lookaside/r", digest, *blobs)
            self.ask(name, self.by_key(None), image)
            self.ask(f"{name}, accept anything", [{"type": "insecureAcceptAnything"}], image)
            self.ask(f"{name}, sigstore", [sigstore_signed(self.sigstore.trusting(), MATCH)], image)
        self.require_agreement(27, least_accepted=12)

    def test_attachments(self) -> None:
        """Rows K10 to K14."""
        cases = self.sigstore
        matcher = {"type": "exactReference", "dockerReference": NAME}
        requirements = [sigstore_signed(cases.trusting(), matcher)]
        good = cases.signed(cases.key)
        bad = cases.signed(cases.other)
        attestation = good._replace(mime_type="application/vnd.dsse.envelope.v1+json")
        parameters = good._replace(mime_type=f"{good.mime_type}; x=y")
        digest = self.push("attached/r", "v1")
        image = f"{self.host}/attached/r:v1"
        self.ask("none", requirements, image)
        for name, signatures, media_type in (
            ("good", [good], mediatype.OCI_MANIFEST),
            ("bad", [bad], mediatype.OCI_MANIFEST),
            ("bad first", [bad, good], mediatype.OCI_MANIFEST),
            ("attestation first", [attestation, good], mediatype.OCI_MANIFEST),
            ("attestation alone", [attestation], mediatype.OCI_MANIFEST),
            ("parameters", [parameters], mediatype.OCI_MANIFEST),
            ("docker type", [good], mediatype.DOCKER_MANIFEST),
        ):
            with Pusher(self.host, "attached/r") as pusher:
                pusher.attach(digest, signatures, media_type)
            self.ask(name, requirements, image)
            self.ask(f"{name}, accept anything", [{"type": "insecureAcceptAnything"}], image)
            self.place_signatures(attachments=False)
            self.ask(f"{name}, off", requirements, image)
            self.place_signatures(attachments=True)
        self.require_agreement(20, least_accepted=10)

    def test_lists_and_their_instances(self) -> None:
        """Rows X01, X02, X03, X11: all requirements within one of the two."""
        amd64, arm64 = {"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}
        second = self.gpg.create_key("second")
        (self.home / "second.gpg").write_bytes(self.gpg.export_all(second))
        one, two = ({"keyPath": str(self.home / f"{name}.gpg")} for name in ("main", "second"))
        other = images.manifest(images.CONFIG_C, [])
        for number, (index_keys, instance_keys, other_keys) in enumerate(
            (
                ("", "", ""),
                ("1", "", ""),
                ("", "1", ""),
                ("", "", "1"),
                ("1", "2", ""),
                ("12", "", ""),
                ("", "12", ""),
                ("2", "1", "1"),
                ("1", "1", "1"),
                ("12", "12", ""),
            )
        ):
            repository = f"list/r{number}"
            self.push(repository, "amd64")
            self.push(repository, "arm64", other)
            entries = [images.entry(MANIFEST, platform=amd64), images.entry(other, platform=arm64)]
            index = images.index(entries)
            with Pusher(self.host, repository) as pusher:
                top = pusher.manifest("v1", index, mediatype.OCI_INDEX)
            image = f"{self.host}/{repository}:v1"
            signed = {top: index_keys, digest_of(MANIFEST): instance_keys, digest_of(other): other_keys}
            for digest, keys in signed.items():
                signers = [{"1": self.key, "2": second}[each] for each in keys]
                self.keep(repository, digest, *(self.gpg.sign_as(payload(image, str(digest)), key) for key in signers))
            for asked in ([one], [two], [one, two]):
                self.ask(f"{number} {asked}", [signed_by(each, None) for each in asked], image)
            by_digest = f"{self.host}/{repository}@{top}"
            self.ask(f"{number} by digest", [signed_by(one, {"type": "matchRepository"})], by_digest)
        self.require_agreement(40, least_accepted=10)

    def test_mirrors(self) -> None:
        """Rows S13, X08, X09: policy and names are those asked for, signatures lie with the place that served."""
        digest = self.push("mirrored/r", "v1")
        port = self.host.partition(":")[2]
        self.conf.write_text(
            f"[[registry]]\nprefix = 'origin.example'\nlocation = 'origin.invalid'\n"
            f"[[registry.mirror]]\nlocation = '{self.host}/mirrored'\ninsecure = true\n"
        )
        self.addCleanup(self.conf.write_text, "")
        image = "origin.example/r:v1"
        accept, reject = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
        for scope in ("origin.example", self.host, f"localhost:{port}", "origin.example/r"):
            self.ask(f"scope {scope}", accept, image, docker={scope: reject})
            self.ask(f"scope {scope} accepts", reject, image, docker={scope: accept})
        for signed_name in (image, f"{self.host}/mirrored/r:v1"):
            self.keep("mirrored/r", digest, self.signed(signed_name, digest))
            self.ask(f"signed {signed_name}", self.by_key(None), image)
            for host in (self.host, "origin.example"):
                self.place_signatures(attachments=False, host=host)
                self.ask(f"signed {signed_name}, place of {host}", self.by_key(None), image)
                self.place_signatures(attachments=True)
        self.require_agreement(14, least_accepted=5)


def _matchers() -> tuple[Requirement | None, ...]:
    return (
        MATCH,
        None,
        {"type": "matchExact"},
        {"type": "matchRepository"},
        {"type": "exactReference", "dockerReference": "example.com/ns/r:v2"},
        {"type": "exactRepository", "dockerRepository": "example.com/ns/r"},
        {"type": "exactRepository", "dockerRepository": "example.com/ns/other:x"},
        {"type": "remapIdentity", "prefix": "example.com", "signedPrefix": "vendor.com"},
    )


def _blobs() -> Iterable[bytes]:
    return (images.CONFIG_C, images.LAYER_T)


if __name__ == "__main__":
    unittest.main()
