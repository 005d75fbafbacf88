# SPDX-License-Identifier: Apache-2.0
"""storage.conf and its environment: where the store is, with which driver, and what is read beside it."""

import unittest

from cip.errors import ConfigurationError
from cip.settings import HostEnvironment
from cip.sources.storage.configuration import load_storage, parse_driver, parse_store_options, storage_files
from tests.support.host import make_host

CONF = "etc/containers/storage.conf"


class StorageConfTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def test_without_a_file_the_store_is_where_it_always_is(self) -> None:
        found = load_storage(self.host.settings())
        root = self.host.root
        self.assertEqual(("", f"{root}/var/lib/containers/storage", f"{root}/run/containers/storage", ()), found)
        user = load_storage(self.host.settings(uid=1000))
        self.assertEqual(
            (f"{self.host.home}/.local/share/containers/storage", "/tmp/storage-run-1000/containers"), user[1:3]
        )
        moved = {"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": "/run/user/1000"}
        self.assertEqual(
            ("/data/containers/storage", "/run/user/1000/containers"),
            load_storage(self.host.settings(moved, uid=1000))[1:3],
        )
        inside = load_storage(self.host.settings({"_CONTAINERS_ROOTLESS_UID": "1000"}, uid=0))
        self.assertEqual(f"{self.host.home}/.local/share/containers/storage", inside.root)

    def test_files_are_laid_over_each_other_key_by_key(self) -> None:
        self.host.write(
            CONF,
            '[storage]\ndriver="overlay2"\ngraphroot="/one"\nrunroot="/run/one"\n'
            '[storage.options]\nadditionalimagestores=["/a","/b",""]\n',
        )
        self.host.write("etc/containers/storage.rootful.conf.d/x.conf", '[storage]\nGraphRoot="/two"\n')
        found = load_storage(self.host.settings())
        self.assertEqual(("overlay", "/two", "/run/one", ("/a", "/b")), found[:4])
        last = self.host.write(
            "last.conf", '[storage]\nimagestore="/images"\n[storage.options]\nadditionalimagestores=[]\n'
        )
        found = load_storage(self.host.settings({"CONTAINERS_STORAGE_CONF_OVERRIDE": last}))
        self.assertEqual(("/two", ("/images",)), (found.root, found.image_stores))

    def test_the_root_is_written_as_policies_name_it(self) -> None:
        """As the image library does: what a file names is freed of links, other places keep theirs and are clean."""
        (self.host.root / "link").symlink_to(self.host.root)
        link = f"{self.host.root}/link"
        (self.host.root / "here").mkdir()
        for written, found in (("/here/../here/", "/here"), ("//here", "/here"), ("/x/.././here", "/link/here")):
            self.host.write(CONF, f'[storage]\ngraphroot="{link}{written}"\n')
            self.assertEqual(f"{self.host.root}{found}", load_storage(self.host.settings()).root)
        user = load_storage(self.host.settings({"XDG_DATA_HOME": f"{link}/x/..//"}, uid=1000))
        self.assertEqual(f"{link}/containers/storage", user.root)

    def test_places_in_system_files_are_root_s(self) -> None:
        self.host.write(CONF, '[storage]\ndriver="vfs"\ngraphroot="/system"\n')
        user = self.host.settings({"USER": "me"}, uid=1000)
        found = load_storage(user)
        self.assertEqual(("vfs", f"{self.host.home}/.local/share/containers/storage"), (found.driver, found.root))
        self.host.write(
            "etc/containers/storage.conf.d/rootless.conf", '[storage]\nrootless_storage_path="/srv/$UID/${USER}$HOME"\n'
        )
        self.assertEqual(f"/srv/1000/me{self.host.home}", load_storage(user).root)
        self.host.write("~/.config/containers/storage.conf.d/mine.conf", '[storage]\ngraphroot="/mine"\n')
        self.assertEqual("/mine", load_storage(user).root)

    def test_the_environment_has_the_last_word(self) -> None:
        self.host.write(CONF, '[storage]\ndriver="overlay"\n[storage.options]\nadditionalimagestores=["/a"]\n')
        found = load_storage(self.host.settings({"STORAGE_DRIVER": "vfs", "STORAGE_OPTS": "overlay.imagestore=/x,y=z"}))
        self.assertEqual(("vfs", ("/x",)), (found.driver, found.image_stores))
        named = self.host.write("named.conf", '[storage]\ngraphroot="/named"\n')
        self.assertEqual("/named", load_storage(self.host.settings({"CONTAINERS_STORAGE_CONF": named}, uid=5)).root)

    def test_store_options_are_read_in_every_spelling(self) -> None:
        options = "additionalimagestore=/a, imagestore=/b,overlay.ImageStore=/c,.imagestore=/d,vfs.imagestore=,size=1,x"
        self.assertEqual(("/a", "/b", "/c", "/d"), parse_store_options(options.split(","), "STORAGE_OPTS"))
        with self.assertRaisesRegex(ConfigurationError, "STORAGE_OPTS: expected an absolute path, found 'a'"):
            parse_store_options(["imagestore=a"], "STORAGE_OPTS")

    def test_what_cannot_be_used_is_refused_with_file_and_key(self) -> None:
        for content, reason in (
            ("[storage]\ndriver", "not valid TOML at"),
            ("storage=1", "storage: expected an object, found an integer"),
            ("[storage]\ndriver=1", "storage.driver: expected a string"),
            ('[storage]\ndriver="../x"', "storage.driver: expected the name of a storage driver"),
            ('[storage]\ngraphroot="x"', "storage.graphroot: expected an absolute path, found 'x'"),
            ('[storage]\ngraphroot="$NOTHING"', "storage.graphroot: expected an absolute path, found ''"),
            ('[storage]\ngraphroot="/a"\nGRAPHROOT="/b"', "ambiguous"),
            ('[storage.options]\nadditionalimagestores="/a"', "additionalimagestores: expected an array"),
            ('[storage.options]\nadditionalimagestores=["a"]', r"stores\[0\]: expected an absolute path"),
        ):
            path = self.host.write(CONF, content)
            with self.subTest(content), self.assertRaisesRegex(ConfigurationError, f"^{path}: .*{reason}"):
                load_storage(self.host.settings())
        with self.assertRaisesRegex(ConfigurationError, "STORAGE_DRIVER: expected the name"):
            parse_driver("a/b", "STORAGE_DRIVER")

    def test_storage_conf_is_found_as_registries_conf_is(self) -> None:
        def found(environment: HostEnvironment) -> list[tuple[str, bool]]:
            return [(file.path, file.users) for file in storage_files(environment) if file.required is not None]

        environment = self.host.environment()
        self.assertEqual([], found(environment))
        system = self.host.write("usr/share/containers/storage.conf")
        self.assertEqual([(system, False)], found(environment))
        theirs = self.host.write("etc/containers/storage.conf.d/a.conf")
        ours = self.host.write("home/.config/containers/storage.conf.d/b.conf")
        own = self.host.write("home/.config/containers/storage.conf")
        self.assertEqual([(own, True), (theirs, False), (ours, True)], found(environment))
        named = self.host.environment({"CONTAINERS_STORAGE_CONF": system, "CONTAINERS_STORAGE_CONF_OVERRIDE": "/o"})
        self.assertEqual([(system, True), ("/o", True)], found(named))
        missing = self.host.environment({"CONTAINERS_STORAGE_CONF": "/no/such"})
        with self.assertRaisesRegex(ConfigurationError, "/no/such: no such file, though CONTAINERS_STORAGE_CONF"):
            storage_files(missing)


if __name__ == "__main__":
    unittest.main()
