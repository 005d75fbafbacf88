# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import unittest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cip.errors import SignatureError
from cip.trust.bundle.bundle import InclusionProof
from cip.trust.bundle.statement import parse_statement, peeked_predicate, pre_authentication_encoding
from cip.trust.bundle.tlog import note_key_id, parse_checkpoint, require_inclusion
from cip.trust.sigstore.keys import load_key
from tests.support.bundles import leaf_hash, note_line, statement, tree_path, tree_root
from tests.support.sigstore import b64, new_key, rsa_key, spki

ROOT = bytes.fromhex("00d21829a5503145348abcf712513eacf2a274211ad83e970202bb5b6d80b286")
HEAD = "log.lab\n5\nANIYKaVQMUU0irz3ElE+rPKidCEa2D6XAgK7W22AsoY=\n"
LINE = "\u2014 log.lab K/RilElMesev4sfvnDX5GoYJNRIsMrfFQJ+7jHVYYsbawA83M2k9jd2/O0fNmSck5w4QEWZKt+AJ0duIfIbyAVbCAgM=\n"


class KnownAnswerTest(unittest.TestCase):
    """The answers that tests/spec/bundles.md gives."""

    def test_encoding_of_an_envelope(self) -> None:
        made = pre_authentication_encoding("application/vnd.in-toto+json", b"{}")
        self.assertEqual(made, b"DSSEv1 28 application/vnd.in-toto+json 2 {}")
        expected = "4842cb1ba6fed6e460d8a0d56f6b64ccf1f1e11f7714a7f282080d5780251b63"
        self.assertEqual(hashlib.sha256(made).hexdigest(), expected)
        self.assertEqual(pre_authentication_encoding("é", b"x"), "DSSEv1 2 é 1 x".encode())

    def test_tree_of_five(self) -> None:
        leaves = [leaf_hash(b"leaf-%d" % number) for number in range(5)]
        self.assertEqual(tree_root(leaves), ROOT)
        checkpoint = parse_checkpoint(f"{HEAD}\n{LINE}")
        for index, length in ((0, 3), (2, 3), (4, 1)):
            path = tuple(tree_path(leaves, index))
            self.assertEqual(len(path), length)
            require_inclusion(b"leaf-%d" % index, InclusionProof(index, ROOT, 5, path, ""), checkpoint)

    def test_checkpoint_by_ed25519(self) -> None:
        private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        key = load_key(spki(private))
        self.assertEqual(note_key_id("log.lab", key).hex(), "2bf46294")
        checkpoint = parse_checkpoint(f"{HEAD}\n{LINE}")
        self.assertEqual((checkpoint.origin, checkpoint.size, checkpoint.root), ("log.lab", 5, ROOT))
        ((name, key_id, signature),) = checkpoint.lines
        self.assertEqual((name, key_id.hex()), ("log.lab", "2bf46294"))
        key.require_signed(signature, checkpoint.text)

    def test_key_ids_of_other_kinds(self) -> None:
        ecdsa, rsa = load_key(spki(new_key())), load_key(spki(rsa_key(2048)))
        self.assertEqual(note_key_id("a", ecdsa), hashlib.sha256(ecdsa.spki).digest()[:4])
        text = b"a\n\xffPKIX-RSA-PKCS#1v1.5" + rsa.spki
        self.assertEqual(note_key_id("a", rsa), hashlib.sha256(text).digest()[:4])


class InclusionTest(unittest.TestCase):
    def test_every_leaf_of_every_small_tree_and_no_other_index(self) -> None:
        for size in range(1, 18):
            leaves = [leaf_hash(b"%d" % number) for number in range(size)]
            checkpoint = parse_checkpoint(f"{HEAD}\n{LINE}")._replace(size=size, root=tree_root(leaves))
            for index in range(size):
                path = tuple(tree_path(leaves, index))
                proof = InclusionProof(index, b"", 0, path, "")
                with self.subTest(size=size, index=index):
                    require_inclusion(b"%d" % index, proof, checkpoint)
                    for other in range(size + 2):
                        if other != index:
                            with self.assertRaises(SignatureError):
                                require_inclusion(b"%d" % index, proof._replace(log_index=other), checkpoint)
                    with self.assertRaisesRegex(SignatureError, "hashes, expected"):
                        require_inclusion(b"%d" % index, proof._replace(hashes=(*path, bytes(32))), checkpoint)

    def test_an_index_past_the_end_is_refused_as_such(self) -> None:
        checkpoint = parse_checkpoint(f"{HEAD}\n{LINE}")
        for index in (5, 6, 2**63 - 1):
            with self.subTest(index), self.assertRaisesRegex(SignatureError, f"of entry {index} in a tree of 5"):
                require_inclusion(b"", InclusionProof(index, b"", 0, (), ""), checkpoint)

    def test_an_empty_tree_has_no_leaf(self) -> None:
        checkpoint = parse_checkpoint(f"{HEAD}\n{LINE}")._replace(size=0)
        with self.assertRaisesRegex(SignatureError, "entry 0 in a tree of 0"):
            require_inclusion(b"", InclusionProof(0, b"", 0, (), ""), checkpoint)


class CheckpointTest(unittest.TestCase):
    def test_malformed_checkpoints_are_refused_with_the_reason(self) -> None:
        for case, text, words in (
            ("nothing", "", "expected an origin"),
            ("no empty line", HEAD + LINE, "expected an origin"),
            ("no origin", f"\n5\n{HEAD.splitlines()[2]}\n\n{LINE}", "expected an origin"),
            ("two lines", f"log.lab\n5\n\n{LINE}", "a root of 0 bytes"),
            ("leading zero", HEAD.replace("\n5", "\n05") + "\n" + LINE, "size in decimal"),
            ("sign", HEAD.replace("\n5", "\n+5") + "\n" + LINE, "size in decimal"),
            ("other digits", HEAD.replace("\n5", "\n\u0665") + "\n" + LINE, "size in decimal"),
            ("root not canonical", HEAD.replace("AsoY=", "AsoZ=") + "\n" + LINE, "expected base64"),
            ("root too long", f"log.lab\n5\n{b64(ROOT + b'x')}\n\n{LINE}", "a root of 33 bytes"),
            ("root too short", HEAD.replace("ANIYKaVQ", "") + "\n" + LINE, "a root of 26 bytes"),
            ("no signature", HEAD + "\n", "signatures, found 0|1 to 32 signatures"),
            ("33 signatures", HEAD + "\n" + LINE * 33, "1 to 32 signatures, found 33"),
            ("another dash", HEAD + "\n" + LINE.replace("\u2014", "-"), "malformed signature line"),
            ("plus in the name", HEAD + "\n" + LINE.replace("log.lab", "log+lab"), "malformed signature line"),
            ("two blanks", HEAD + "\n" + LINE.replace("log.lab ", "log.lab  "), "malformed signature line"),
            ("not base64", HEAD + "\n" + LINE.replace("K/Ri", "K_Ri"), "expected base64"),
            ("less than a key id", HEAD + "\n\u2014 log.lab K/Ri\n", "without signature"),
            ("key id alone", HEAD + "\n\u2014 log.lab K/RilA==\n", "without signature"),
            ("text behind", f"{HEAD}\n{LINE}x", "1 to 32 signatures"),
            ("empty line behind", f"{HEAD}\n{LINE}\n", "expected an origin|a root|found 0"),
            ("tab", f"{HEAD}\t\n\n{LINE}", "control character"),
            ("delete", f"{HEAD}\x7f\n\n{LINE}", "control character"),
            ("carriage return", f"{HEAD}\n{LINE}".replace("\n", "\r\n"), "control character"),
        ):
            with self.subTest(case), self.assertRaisesRegex(SignatureError, words) as caught:
                parse_checkpoint(text)
            self.assertEqual(caught.exception.reason, "rekor")

    def test_32_signatures_are_read(self) -> None:
        self.assertEqual(len(parse_checkpoint(f"{HEAD}\n{LINE * 32}").lines), 32)

    def test_extensions_are_signed_and_the_last_empty_line_separates(self) -> None:
        key = new_key()
        text = f"{HEAD}extension\n\nafter an empty line\n"
        checkpoint = parse_checkpoint(f"{text}\n{note_line('log.lab', key, text)}")
        self.assertEqual(checkpoint.text, text.encode())
        load_key(spki(key)).require_signed(checkpoint.lines[0][2], checkpoint.text)


class StatementTest(unittest.TestCase):
    def test_a_peek_tells_another_attachment_and_nothing_else(self) -> None:
        for payload, expected in (
            (json.dumps(statement()).encode(), "https://sigstore.dev/cosign/sign/v1"),
            (b'{"predicateType": "https://spdx.dev/Document"}', "https://spdx.dev/Document"),
            (b"hello", ""),
            (b"[]", ""),
            (b'{"predicateType": 5}', ""),
            (b'{"predicateType": "a", "predicateType": "b"}', ""),
        ):
            with self.subTest(payload):
                self.assertEqual(peeked_predicate(payload), expected)

    def test_the_first_digest_is_for_records(self) -> None:
        subjects = [{"digest": {"sha512": "0"}}, {"digest": {"sha256": "1"}}, {"digest": {"sha256": "2"}}]
        read = parse_statement("application/vnd.in-toto+json", json.dumps(statement(subject=subjects)).encode())
        self.assertEqual((read.digest, read.sha256), ("sha256:1", ("", "1", "2")))


if __name__ == "__main__":
    unittest.main()
