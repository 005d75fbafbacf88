# SPDX-License-Identifier: Apache-2.0
import os
import threading
import unittest
from unittest import mock

from cip.content import start_timer, timed
from cip.errors import ConfigurationError, ErrorCode, SourceError
from cip.hostconfig import paths
from cip.settings import CredentialOptions, PolicyOptions, PolicySource, Settings
from tests.support.host import make_host


class ReadingTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def test_a_file_is_read_whole_up_to_the_limit(self) -> None:
        path = self.host.write("file", b"x" * 100_000)
        self.assertEqual(b"x" * 100_000, paths.read_configuration(path, 100_000))
        with self.assertRaisesRegex(ConfigurationError, f"^{path}: larger than 99999 bytes$"):
            paths.read_configuration(path, 99_999)

    def test_a_missing_file_is_an_error_only_where_it_must_exist(self) -> None:
        path = str(self.host.root / "nothing")
        self.assertIsNone(paths.read_if_present(path, 10))
        with self.assertRaisesRegex(ConfigurationError, "nothing: no such file$"):
            paths.read_configuration(path, 10)

    def test_what_is_there_and_cannot_be_read_is_refused_with_the_reason(self) -> None:
        directory = self.host.path("/etc")
        directory.mkdir()
        below_a_file = self.host.write("file") + "/x"
        loop = self.host.root / "loop"
        loop.symlink_to(loop)
        for case, path, reason in (
            ("directory", str(directory), "expected a file, found a directory"),
            ("file as directory", below_a_file, "cannot be read: not a directory"),
            ("link to itself", str(loop), "cannot be read: too many levels"),
            ("NUL", "a\0b", "cannot be read: .*embedded null"),
        ):
            with self.subTest(case), self.assertRaisesRegex(ConfigurationError, reason):
                paths.read_if_present(path, 10)

    def test_a_file_without_permission_is_refused(self) -> None:
        with (
            mock.patch("os.open", side_effect=PermissionError(13, "Permission denied")),
            self.assertRaisesRegex(ConfigurationError, "^/x: cannot be read: permission denied$"),
        ):
            paths.read_if_present("/x", 10)

    def test_a_named_pipe_that_nobody_writes_to_reads_as_empty(self) -> None:
        path = str(self.host.root / "pipe")
        os.mkfifo(path)
        self.assertEqual(b"", paths.read_if_present(path, 10))

    def test_a_pipe_is_read_to_its_end(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        writer = threading.Thread(target=self._write_and_close, args=(writing, b"y" * 200_000))
        writer.start()
        self.addCleanup(writer.join)
        self.assertEqual(b"y" * 200_000, paths.read_configuration(f"/proc/self/fd/{reading}", 300_000))

    def test_a_pipe_without_an_end_does_not_hang(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        os.write(writing, b"half")
        with (
            mock.patch.object(paths, "READ_WAIT", 0.02),
            self.assertRaisesRegex(ConfigurationError, "no end of file within"),
        ):
            paths.read_configuration(f"/dev/fd/{reading}", 10)

    def test_a_pipe_has_what_is_left_of_the_time_to_open(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        with timed(start_timer(0.05, "--open-timeout")), self.assertRaisesRegex(SourceError, "--open-timeout"):
            paths.read_configuration(f"/dev/fd/{reading}", 10)

    def test_an_error_carries_the_code_that_was_asked_for(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            paths.read_configuration("/nonexistent", 10, code=ErrorCode.POLICY_INVALID)
        self.assertIs(ErrorCode.POLICY_INVALID, caught.exception.code)

    @staticmethod
    def _write_and_close(descriptor: int, data: bytes) -> None:
        with open(descriptor, "wb") as file:
            file.write(data)


class PolicyPathTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def test_the_first_of_user_administrator_and_vendor_counts(self) -> None:
        settings = self.host.settings()
        vendor = self.host.write("/usr/share/containers/policy.json")
        self.assertEqual(vendor, paths.policy_path(settings))
        admin = self.host.write("/etc/containers/policy.json")
        self.assertEqual(admin, paths.policy_path(settings))
        user = self.host.write("~/.config/containers/policy.json")
        self.assertEqual(user, paths.policy_path(settings))

    def test_xdg_config_home_replaces_the_home_directory_and_is_never_added_to_it(self) -> None:
        self.host.write("~/.config/containers/policy.json")
        settings = self.host.settings({"XDG_CONFIG_HOME": str(self.host.root / "xdg")})
        with self.assertRaises(ConfigurationError):
            paths.policy_path(settings)
        xdg = self.host.write("xdg/containers/policy.json")
        self.assertEqual(xdg, paths.policy_path(settings))

    def test_an_empty_or_relative_xdg_config_home_counts_as_unset(self) -> None:
        user = self.host.write("~/.config/containers/policy.json")
        for value in ("", "relative", "./x"):
            with self.subTest(value):
                self.assertEqual(user, paths.policy_path(self.host.settings({"XDG_CONFIG_HOME": value})))

    def test_a_dangling_link_makes_room_for_the_next_place(self) -> None:
        admin = self.host.write("/etc/containers/policy.json")
        link = self.host.path("~/.config/containers/policy.json")
        link.parent.mkdir(parents=True)
        link.symlink_to("nowhere")
        self.assertEqual(admin, paths.policy_path(self.host.settings()))

    def test_a_place_that_cannot_be_looked_into_is_not_passed_over(self) -> None:
        self.host.write("/etc/containers/policy.json")
        self.host.write("~/.config", "a file where a directory belongs")
        with self.assertRaisesRegex(ConfigurationError, "policy.json: cannot be read: not a directory"):
            paths.policy_path(self.host.settings())

    def test_a_named_policy_stands_alone(self) -> None:
        self.host.write("/etc/containers/policy.json")
        missing = str(self.host.root / "mine.json")
        by_option = self.host.settings()._replace(policy=PolicyOptions(PolicySource.FILE, missing))
        by_variable = self.host.settings({"CONTAINERS_POLICY_JSON": missing})
        for settings, name in ((by_option, "--policy"), (by_variable, "CONTAINERS_POLICY_JSON")):
            with (
                self.subTest(name),
                self.assertRaisesRegex(ConfigurationError, f"no such file, though {name} names it"),
            ):
                paths.policy_path(settings)
        mine = self.host.write("mine.json")
        self.assertEqual(mine, paths.policy_path(by_option))
        self.assertEqual(mine, paths.policy_path(by_variable))

    def test_a_host_without_a_policy_is_told_how_to_go_on(self) -> None:
        with self.assertRaisesRegex(
            ConfigurationError,
            "no signature policy on this host, looked for .*/home/.*/etc/.*"
            "/usr/share/.*--policy FILE.*--insecure-policy",
        ) as caught:
            paths.policy_path(self.host.settings())
        self.assertIs(ErrorCode.POLICY_MISSING, caught.exception.code)


def drop_ins(settings: Settings) -> list[str]:
    return [file.path for file in paths.registries_files(settings) if file.role == "registries.conf drop-in"]


class RegistriesFilesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def test_a_host_without_any_file_has_none(self) -> None:
        files = paths.registries_files(self.host.settings())
        self.assertEqual([("registries.conf", None)] * 3, [(file.role, file.required) for file in files])

    def test_one_main_file_is_read_and_all_drop_ins_beside_it(self) -> None:  # C37, the newer rule
        self.host.write("/usr/share/containers/registries.conf")
        self.host.write("/etc/containers/registries.conf")
        user = self.host.write("~/.config/containers/registries.conf")
        vendor_drop_in = self.host.write("/usr/share/containers/registries.conf.d/20-v.conf")
        admin_drop_in = self.host.write("/etc/containers/registries.conf.d/10-a.conf")
        user_drop_in = self.host.write("~/.config/containers/registries.conf.d/05-u.conf")
        files = paths.registries_files(self.host.settings())
        self.assertEqual([user, user_drop_in, admin_drop_in, vendor_drop_in], [file.path for file in files])
        self.assertEqual([True, False, False, False], [file.required for file in files])
        self.assertEqual([True, True, False, False], [file.users for file in files])

    def test_a_drop_in_replaces_less_specific_ones_of_the_same_name(self) -> None:
        for uid, special in ((0, "rootful"), (1000, "rootless")):
            with self.subTest(special):
                host = make_host(self)
                expected = ""
                directories = [
                    "/usr/share/containers/registries.conf.d",
                    f"/usr/share/containers/registries.{special}.conf.d",
                ]
                directories += ["/etc/containers/registries.conf.d", f"/etc/containers/registries.{special}.conf.d"]
                directories += [f"/etc/containers/registries.{special}.conf.d/1000"] if uid else []
                directories += ["~/.config/containers/registries.conf.d"]
                for directory in directories:
                    expected = host.write(f"{directory}/50.conf")
                    self.assertEqual([expected], drop_ins(host.settings(uid=uid)))

    def test_root_and_others_have_drop_ins_of_their_own(self) -> None:
        self.host.write("/etc/containers/registries.rootless.conf.d/a.conf")
        self.host.write("/etc/containers/registries.rootless.conf.d/7/b.conf")
        self.host.write("/etc/containers/registries.rootful.conf.d/c.conf")

        def names(settings: Settings) -> list[str]:
            return [os.path.basename(path) for path in drop_ins(settings)]

        self.assertEqual(["c.conf"], names(self.host.settings(uid=0)))
        self.assertEqual(["a.conf", "b.conf"], names(self.host.settings(uid=7)))
        self.assertEqual(["a.conf"], names(self.host.settings(uid=8)))
        self.assertEqual(["a.conf", "b.conf"], names(self.host.settings({"_CONTAINERS_ROOTLESS_UID": "7"}, uid=0)))
        self.assertEqual(["c.conf"], names(self.host.settings({"_CONTAINERS_ROOTLESS_UID": "x"}, uid=0)))

    def test_drop_ins_have_the_right_end_and_are_no_directories(self) -> None:
        good = self.host.write("/etc/containers/registries.conf.d/a.conf")
        self.host.write("/etc/containers/registries.conf.d/b.conf.rpmsave")
        self.host.write("/etc/containers/registries.conf.d/sub/c.conf")
        directory = self.host.path("/etc/containers/registries.conf.d")
        (directory / "directory.conf").mkdir()
        (directory / "link.conf").symlink_to("a.conf")
        (directory / "nowhere.conf").symlink_to("nowhere")
        found = drop_ins(self.host.settings())
        self.assertEqual([good, f"{directory}/link.conf", f"{directory}/nowhere.conf"], found)

    def test_drop_ins_are_sorted_by_bytes(self) -> None:
        for name in ("b.conf", "B.conf", "10.conf", "9.conf", "ä.conf", "_.conf"):
            self.host.write(f"/etc/containers/registries.conf.d/{name}")
        found = [os.path.basename(path) for path in drop_ins(self.host.settings())]
        self.assertEqual(["10.conf", "9.conf", "B.conf", "_.conf", "b.conf", "ä.conf"], found)

    def test_the_option_keeps_the_drop_ins_and_the_variable_stands_alone(self) -> None:
        drop_in = self.host.write("/etc/containers/registries.conf.d/a.conf")
        mine = self.host.write("mine.conf")
        variables = {"CONTAINERS_REGISTRIES_CONF": mine}
        files = paths.registries_files(self.host.settings(variables))
        self.assertEqual([mine], [file.path for file in files])
        other = self.host.write("other.conf")
        files = paths.registries_files(self.host.settings(variables)._replace(registries_conf=other))
        self.assertEqual([other, drop_in], [file.path for file in files])

    def test_a_named_file_must_exist(self) -> None:
        missing = str(self.host.root / "missing.conf")
        for name, settings in (
            ("--registries-conf", self.host.settings()._replace(registries_conf=missing)),
            ("CONTAINERS_REGISTRIES_CONF", self.host.settings({"CONTAINERS_REGISTRIES_CONF": missing})),
        ):
            with (
                self.subTest(name),
                self.assertRaisesRegex(ConfigurationError, f"no such file, though {name} names it"),
            ):
                paths.registries_files(settings)

    def test_the_override_comes_last_whatever_was_named_before(self) -> None:
        mine = self.host.write("mine.conf")
        variables = {"CONTAINERS_REGISTRIES_CONF": mine, "CONTAINERS_REGISTRIES_CONF_OVERRIDE": "/o.conf"}
        last = paths.registries_files(self.host.settings(variables))[-1]
        self.assertEqual(("/o.conf", "registries.conf override", True), (last.path, last.role, last.required))

    def test_a_directory_that_cannot_be_listed_is_refused(self) -> None:
        self.host.write("/etc/containers/registries.conf.d", "a file where a directory belongs")
        with self.assertRaisesRegex(ConfigurationError, "registries.conf.d: cannot be read: not a directory"):
            paths.registries_files(self.host.settings())


class OtherPlacesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _auth_paths(self, settings: Settings) -> list[str]:
        return [file.path.replace(str(self.host.root), "") for file in paths.auth_files(settings)[0]]

    def test_credentials_are_searched_in_the_documented_order(self) -> None:
        expected = [
            "/run/containers/5/auth.json",
            "/home/.config/containers/auth.json",
            "/home/.docker/config.json",
            "/home/.dockercfg",
        ]
        self.assertEqual(expected, self._auth_paths(self.host.settings(uid=5)))
        self.assertEqual(
            [False, False, False, True], [file.legacy for file in paths.auth_files(self.host.settings())[0]]
        )

    def test_variables_move_the_places_of_credentials(self) -> None:
        runtime = self.host.path("/runtime")
        runtime.mkdir()
        variables = {
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CONFIG_HOME": str(self.host.root / "xdg"),
            "DOCKER_CONFIG": str(self.host.root / "docker"),
            "CREDENTIALS_DIRECTORY": str(self.host.root / "creds"),
        }
        expected = [
            "/creds/container-image-proxy.auth.json",
            "/runtime/containers/auth.json",
            "/xdg/containers/auth.json",
            "/docker/config.json",
            "/home/.dockercfg",
        ]
        self.assertEqual(expected, self._auth_paths(self.host.settings(variables)))

    def test_a_named_file_is_the_only_one(self) -> None:
        settings = self.host.settings({"CREDENTIALS_DIRECTORY": "/creds"})
        settings = settings._replace(credentials=CredentialOptions(authfile="/mine"))
        (file,), warnings = paths.auth_files(settings)
        self.assertEqual(("/mine", False, ()), (file.path, file.legacy, warnings))

    def test_a_missing_runtime_directory_is_warned_about_and_passed_over(self) -> None:  # A31
        files, warnings = paths.auth_files(self.host.settings({"XDG_RUNTIME_DIR": "/missing"}))
        self.assertEqual(3, len(files))
        self.assertRegex(warnings[0], "^XDG_RUNTIME_DIR: '/missing' does not exist")

    def test_certificates_lie_below_the_host_or_in_the_named_directory(self) -> None:
        settings = self.host.settings({"XDG_CONFIG_HOME": "/xdg"})
        found = [path.replace(str(self.host.root), "") for path in paths.certificate_directories("r.io:5000", settings)]
        self.assertEqual(
            [
                "/home/.config/containers/certs.d/r.io:5000",
                "/etc/containers/certs.d/r.io:5000",
                "/etc/docker/certs.d/r.io:5000",
            ],
            found,
        )
        self.assertEqual(("/certs",), paths.certificate_directories("r.io", settings._replace(cert_dir="/certs")))


if __name__ == "__main__":
    unittest.main()
