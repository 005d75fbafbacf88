# SPDX-License-Identifier: Apache-2.0
"""ostree-ext and composefs, unchanged, with us in the place of their skopeo and beside a current one.

They are built for these tests alone, which takes 10 to 20 minutes: `tests/run --long`, or `CIP_TEST_LONG=1`.
"""

from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from tests.support import dropin, images
from tests.support.dropin import OURS, TAG, THEIRS, Updaters, ostree
from tests.support.parent import HURRY
from tests.support.peers import docker_registry, skopeo
from tests.support.realimages import umoci_layout
from tests.support.registry import Exchange, Fault, FaultyHost, Strike, at, status

COMPONENTS = 6
HANGS_SECONDS = 30  # what has not ended after that hangs; with HURRY ours end within a third of it
NAME = "os/base"
DENIED = b'{"errors":[{"code":"DENIED","message":"the subscription has run out"}]}'


def _flip(exchange: Exchange) -> None:
    """The right length with one wrong byte."""
    body = exchange.given.body
    exchange.answer(exchange.given._replace(body=body[:-1] + bytes([body[-1] ^ 1])))


# what a registry does to a layer, and the cause that the updater which we serve must tell
REFUSED: Sequence[tuple[str, Fault, str]] = (
    ("denied", status(403, DENIED), "the subscription has run out"),
    ("absent", status(404), "404"),
)
WRONG = ("wrong bytes", _flip, "expected digest sha256:")
STALLED = ("stalled", at(0.5, Exchange.stall), "no byte within the time")


@unittest.skipUnless("CIP_TEST_LONG" in os.environ, "builds ostree-ext and composefs: tests/run --long")
class DropIn(unittest.TestCase):
    """An image in a real registry, and the same served by one with faults."""

    scratch: ClassVar[Path]
    layout: ClassVar[Path]
    updaters: ClassVar[Updaters]
    image: ClassVar[str]

    @classmethod
    def prepare(cls, make: Callable[[Path], Path]) -> None:
        """Make the layout of this class's image and push it, unchanged, to a registry."""
        cls.scratch = Path(cls.enterClassContext(tempfile.TemporaryDirectory(prefix="cip-dropin-")))
        cls.updaters = Updaters(cls.scratch / "home")
        cls.layout = make(cls.scratch)
        registry = cls.enterClassContext(docker_registry(cls.scratch / "registry"))
        cls.updaters.allow_plain(registry.host)
        cls.image = f"{registry.host}/{NAME}:{TAG}"
        options = ("--preserve-digests", "--all", "--dest-tls-verify=false")
        skopeo("copy", *options, f"oci:{cls.layout}:{TAG}", f"docker://{cls.image}", home=cls.scratch)

    def pull(self, store: Path, image: str) -> Sequence[str | Path]:
        """The command that pulls into a new store."""
        raise NotImplementedError

    def struck(self, fault: Fault, proxy: str, seconds: float = 240) -> tuple[int | None, str]:
        """How a pull ends whose largest layer is always struck."""
        with FaultyHost(dropin.registry_with(self.layout)) as host:
            host.strikes.append(Strike("largest", fault, None))
            self.updaters.allow_plain(host.address)
            store = Path(tempfile.mkdtemp(dir=self.scratch)) / "store"
            return self.updaters.run(proxy, self.pull(store, f"{host.address}/{NAME}:{TAG}"), HURRY, seconds=seconds)

    def refused(self, *faults: tuple[str, Fault, str]) -> None:
        """Faults at which a pull ends through both, and through us with these words."""
        for name, fault, words in faults:
            with self.subTest(name):
                self.ends(fault, words)
                self.assertNotIn(self.struck(fault, THEIRS)[0], (0, None))

    def ends(self, fault: Fault, words: str) -> None:
        """A pull through us fails in time, with these words."""
        found, said = self.struck(fault, OURS, HANGS_SECONDS)
        self.assertNotIn(found, (0, None), said)
        self.assertIn(words, said)


class OstreeExt(DropIn):
    commit: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        def make(place: Path) -> Path:
            layout, cls.commit = dropin.encapsulated(cls.updaters, place, COMPONENTS)
            return layout

        cls.prepare(make)

    def pull(self, store: Path, image: str) -> Sequence[str | Path]:
        ostree(store, "init", "--mode=bare-user")
        return [
            dropin.build_ostree_ext(),
            *("container", "image", "pull", "--quiet", str(store), f"ostree-unverified-registry:{image}"),
        ]

    def trees(self, proxy: str, image: str) -> dict[str, str]:
        """Each ref that a pull through `proxy` leaves, with its tree: checksums, modes and attributes.

        Not the commits' own checksums: ostree-ext writes the time and a map in random order into them.
        """
        store = Path(tempfile.mkdtemp(dir=self.scratch)) / "store"
        self.updaters.must(proxy, *self.pull(store, image))
        ostree(store, "fsck", "--quiet")
        return {ref: ostree(store, "ls", "-RCX", ref) for ref in ostree(store, "refs").split()}

    def same_trees(self, image: str, *paths: str) -> None:
        """What both pulls leave is the same, and the image's own tree has these paths."""
        ours, theirs = (self.trees(proxy, image) for proxy in (OURS, THEIRS))
        self.assertEqual(ours, theirs)
        (merged,) = (tree for ref, tree in ours.items() if ref.startswith("ostree/container/image/"))
        for path in paths:
            self.assertIn(f" {path}\n", merged)

    def test_an_encapsulated_commit_gives_the_same_tree(self) -> None:
        self.assertEqual(len(dropin.layers_of(self.layout)), COMPONENTS + dropin.OTHER_LAYERS)
        self.same_trees(self.image, *(f"/usr/lib/component{number}/content" for number in range(COMPONENTS)))

    def test_the_commit_within_has_its_own_checksum(self) -> None:
        for proxy in (OURS, THEIRS):
            store = self.scratch / f"unencapsulated-{proxy}"
            ostree(store, "init", "--mode=bare-user")
            command = ("container", "unencapsulate", f"--repo={store}", "--write-ref=os")
            image = f"ostree-unverified-registry:{self.image}"
            self.updaters.must(proxy, dropin.build_ostree_ext(), *command, image)
            self.assertEqual(ostree(store, "rev-parse", "os").strip(), self.commit)

    def test_a_layer_on_top_gives_the_same_tree(self) -> None:
        """As every derived operating system: FROM an encapsulated image, and a layer that is none of OSTree's."""
        derived = self.image.replace(f":{TAG}", ":derived")
        layout = self.scratch / "derived"
        skopeo("copy", "--src-tls-verify=false", f"docker://{self.image}", f"oci:{layout}:{TAG}", home=self.scratch)
        dropin.add_layer(layout, images.Member(b"usr/share/added", b"derived\n"))
        skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:{TAG}", f"docker://{derived}", home=self.scratch)
        self.same_trees(derived, "/usr/bin/tool", "/usr/share/added")

    def test_a_refused_layer_is_told_with_its_cause(self) -> None:
        self.refused(*REFUSED, WRONG)

    def test_a_stalled_layer_hangs_theirs_and_ends_with_us(self) -> None:
        _, fault, words = STALLED
        self.ends(fault, words)
        self.assertIsNone(self.struck(fault, THEIRS, HANGS_SECONDS)[0])


class Composefs(DropIn):
    """composefs asks for no more once its own reading failed, so what fails midway is told in its words alone."""

    @classmethod
    def setUpClass(cls) -> None:
        def make(place: Path) -> Path:
            layout = place / "layout"
            umoci_layout(layout, TAG, place)
            dropin.add_layer(layout, images.Member(b"usr", kind=b"5", mode=0o755), images.Member(b"usr/added", b"x"))
            return layout

        cls.prepare(make)

    def store(self, store: Path, *arguments: str) -> Sequence[str | Path]:
        return [dropin.build_cfsctl(), "--repo", str(store), *arguments]

    def pull(self, store: Path, image: str) -> Sequence[str | Path]:
        # insecure: without fs-verity, which not every file system has; digests are computed all the same
        self.updaters.must(OURS, *self.store(store, "init", "--insecure"))
        return self.store(store, "oci", "pull", f"docker://{image}", "pulled")

    def test_an_image_has_the_same_digests(self) -> None:
        found = []
        for proxy in (OURS, THEIRS):
            store = Path(tempfile.mkdtemp(dir=self.scratch)) / "store"
            self.updaters.must(proxy, *self.pull(store, self.image))
            self.updaters.must(proxy, *self.store(store, "oci", "fsck"))
            commands = (["images", "--json"], ["inspect", "pulled"], ["compute-id", "pulled"], ["dump", "pulled"])
            said = [self.updaters.must(proxy, *self.store(store, "oci", *command)) for command in commands]
            shuffled = {path.readlink().name for path in store.glob("streams/oci-manifest-*")}  # references, at random
            found.append([*said, {path.name for path in store.glob("objects/*/*")} - shuffled])
        self.assertEqual(*found)
        self.assertIn("/usr/added", found[0][3])

    def test_a_refused_layer_is_told_with_its_cause(self) -> None:
        self.refused(*REFUSED, (WRONG[0], WRONG[1], "Failed to import layer sha256:"))

    def test_a_stalled_layer_hangs_theirs_and_ends_with_us(self) -> None:
        fault = STALLED[1]
        self.ends(fault, "Failed to import layer sha256:")
        self.assertIsNone(self.struck(fault, THEIRS, HANGS_SECONDS)[0])


if __name__ == "__main__":
    unittest.main()
