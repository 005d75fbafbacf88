# SPDX-License-Identifier: Apache-2.0
import unittest
from unittest import mock

from cip.errors import ConfigurationError, InvalidInputError
from cip.hostconfig.certsd import Certificates, find_certificates
from tests.support.host import make_host


class CertificatesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.host = make_host(self)

    def _find(self, host: str = "r.io:5000") -> Certificates:
        self.warnings: list[str] = []
        return find_certificates(host, self.host.settings(), warn=self.warnings.append)

    def test_a_host_without_a_directory_has_none(self) -> None:
        found = self._find()
        self.assertEqual(("", (), ()), found[:3])
        self.assertEqual([False, False, False], [file.read for file in found.looked_at])

    def test_authorities_and_pairs_are_told_by_their_ends(self) -> None:
        for name in ("b.crt", "a.crt", "client.cert", "client.key", "other.cert", "other.key", "ca.pem", "README"):
            self.host.write(f"/etc/docker/certs.d/r.io:5000/{name}")
        found = self._find()
        base = str(self.host.path("/etc/docker/certs.d/r.io:5000"))
        self.assertEqual(base, found.directory)
        self.assertEqual((f"{base}/a.crt", f"{base}/b.crt"), found.authorities)
        self.assertEqual(
            ((f"{base}/client.cert", f"{base}/client.key"), (f"{base}/other.cert", f"{base}/other.key")), found.pairs
        )

    def test_the_first_directory_counts_even_when_it_is_empty(self) -> None:
        self.host.write("/etc/containers/certs.d/r.io:5000/a.crt")
        self.assertEqual(1, len(self._find().authorities))
        self.host.path("~/.config/containers/certs.d/r.io:5000").mkdir(parents=True)
        self.assertEqual((), self._find().authorities)

    def test_the_port_belongs_to_the_name(self) -> None:
        self.host.write("/etc/containers/certs.d/r.io/a.crt")
        self.assertEqual(0, len(self._find("r.io:443").authorities))
        self.assertEqual(1, len(self._find("r.io").authorities))

    def test_half_a_pair_is_refused(self) -> None:  # M21
        for name, reason in (
            ("c.cert", r"c.cert: expected its key 'c.key' beside it, found none"),
            (
                "c.key",
                r"c.key: expected its certificate 'c.cert' beside it, found none: .*\.crt is taken for an authority",
            ),
        ):
            with self.subTest(name):
                self.host.write(f"/etc/containers/certs.d/{name}/{name}")
                with self.assertRaisesRegex(ConfigurationError, reason):
                    self._find(name)

    def test_a_named_directory_is_taken_as_it_is(self) -> None:
        self.host.write("/etc/containers/certs.d/r.io/a.crt")
        mine = self.host.write("certs/mine.crt")
        settings = self.host.settings()._replace(cert_dir=str(self.host.root / "certs"))
        self.assertEqual((mine,), find_certificates("r.io", settings).authorities)

    def test_a_named_directory_that_is_missing_is_warned_about(self) -> None:
        settings = self.host.settings()._replace(cert_dir="/nonexistent")
        warnings: list[str] = []
        self.assertEqual("", find_certificates("r.io", settings, warn=warnings.append).directory)
        self.assertEqual(["--cert-dir: '/nonexistent' does not exist"], warnings)

    def test_a_directory_without_permission_counts_as_absent_and_is_warned_about(self) -> None:
        # with another answer than the kernel's, because root may look everywhere
        with mock.patch("os.listdir", side_effect=[PermissionError(13, "no"), ["a.crt"]]):
            found = self._find()
        self.assertEqual(1, len(found.authorities))
        self.assertIn("/etc/containers/certs.d/r.io:5000", found.directory)
        self.assertRegex(self.warnings[0], "home/.config/containers/certs.d/r.io:5000: permission denied, not used")

    def test_a_file_in_the_place_of_the_directory_is_refused(self) -> None:
        self.host.write("/etc/containers/certs.d/r.io:5000", "")
        with self.assertRaisesRegex(ConfigurationError, "r.io:5000: cannot be listed: not a directory"):
            self._find()

    def test_a_host_that_is_a_path_is_refused(self) -> None:
        for host in ("", ".", "..", "../x", "a/b", "a\0"):
            with self.subTest(host), self.assertRaisesRegex(InvalidInputError, "expected HOST or HOST:PORT"):
                self._find(host)


if __name__ == "__main__":
    unittest.main()
