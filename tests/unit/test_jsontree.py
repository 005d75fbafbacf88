# SPDX-License-Identifier: Apache-2.0
"""Untrusted JSON: what is refused while parsing, and the complaints of typed reading with their paths."""

import unittest

from cip.errors import CipError, ConfigurationError, ErrorCode, InvalidDigestError, InvalidDocumentError
from cip.model.descriptor import parse_digest
from cip.model.jsontree import (
    DEPTH_LIMIT,
    PATH_LIMIT,
    JsonNode,
    fold_key,
    kind_of,
    parse_json,
    parse_json_text,
    refuse_surrogates,
    replace_surrogates,
)


def tree(text: str) -> JsonNode:
    return parse_json_text(text, "document")


class Parsing(unittest.TestCase):
    def test_texts_that_are_not_json_are_refused(self) -> None:
        for data, reason in (
            (b"", "not valid JSON at line 1 column 1"),
            (b"hello", "not valid JSON at line 1 column 1"),
            (b"{}\n x", "not valid JSON at line 2 column 2: extra data"),
            (b"{} {}", "extra data"),
            (b"\xef\xbb\xbf{}", "unexpected utf-8 bom"),
            (b"\xff\xfe{\0}\0", "not valid UTF-8 at byte 0"),
            (b"{\0}\0", "not valid JSON"),
            (b'{"a":"\xc3"}', "not valid UTF-8 at byte 6"),
            (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8 at byte 6"),
            (b'{"a":"\n"}', "invalid control character"),
            (b'{"a":1,}', "not valid JSON"),
            (b"[1,]", "not valid JSON"),
            (b"{'a':1}", "not valid JSON"),
            (b"/**/{}", "not valid JSON"),
            (b"[01]", "not valid JSON"),
            (b"[+1]", "not valid JSON"),
            (b"\x0c{}", "not valid JSON"),
            ("{}\u00a0".encode(), "extra data"),
        ):
            with self.subTest(data), self.assertRaisesRegex(InvalidDocumentError, f"^document: .*{reason}"):
                parse_json(data, "document")

    def test_numbers_that_no_double_or_reasonable_reader_holds_are_refused(self) -> None:
        for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5_000):
            with self.subTest(number[:9]), self.assertRaisesRegex(InvalidDocumentError, "not finite or too long"):
                tree(f'{{"a":[{number}]}}')
        self.assertEqual(tree("9" * 4_000).as_int(), int("9" * 4_000))

    def test_a_key_that_occurs_twice_is_refused_with_its_path(self) -> None:
        for text, path in (
            ('{"a":1,"a":1}', "a"),
            ('{"a":1,"\\u0061":2}', "a"),
            ('{"x":[0,{"b":{"a":1,"c":2,"a":3}}]}', r"x\[1\]\.b\.a"),
            ('{"a":{"b":1,"b":2},"a":3}', "a"),
            ('{"a":1,"a":2,"a":3}', "a"),
            ('{"a b":1,"a b":2}', r"\['a b'\]"),
            ('{"":1,"":2}', r"\[''\]"),
            ("[" * 100 + '{"a":1,"a":2}' + "]" * 100, r"\[0\]\.a"),
        ):
            reason = f"^document: .*{path}: duplicate key$"
            with self.subTest(text), self.assertRaisesRegex(InvalidDocumentError, reason):
                tree(text)

    def test_nesting_is_bounded(self) -> None:
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            inner = "1" if closing == "}" else ""
            tree(opening * DEPTH_LIMIT + inner + closing * DEPTH_LIMIT)
            for depth in (DEPTH_LIMIT + 1, 900, 100_000):
                with self.subTest(depth), self.assertRaisesRegex(InvalidDocumentError, "deeper than 128"):
                    tree(opening * depth + inner + closing * depth)

    def test_many_shallow_values_are_not_taken_for_deep_ones(self) -> None:
        self.assertEqual(len(list(tree("[" + ",".join(["[]"] * 50_000) + "]").items())), 50_000)

    def test_the_deepest_nesting_may_have_siblings(self) -> None:
        for depth in (65, DEPTH_LIMIT):
            tree("[" * (depth - 1) + ",".join(["[]"] * 200) + "]" * (depth - 1))
        with self.assertRaisesRegex(InvalidDocumentError, "deeper than 128"):
            tree("[" * DEPTH_LIMIT + ",".join(["[]"] * 200) + "]" * DEPTH_LIMIT)

    def test_brackets_in_strings_are_not_nesting(self) -> None:
        self.assertEqual(tree('"' + "[" * 5_000 + '"').as_str(), "[" * 5_000)

    def test_the_document_chooses_the_class_of_its_errors(self) -> None:
        def error(where: str, why: str) -> CipError:
            return ConfigurationError(where, why, code=ErrorCode.POLICY_INVALID)

        for text in ("{", '{"a":1,"a":2}', "NaN", "[" * 5_000):
            with self.subTest(text[:9]), self.assertRaises(ConfigurationError) as caught:
                parse_json_text(text, "policy.json", error=error)
            self.assertEqual(caught.exception.code, ErrorCode.POLICY_INVALID)
        root = parse_json_text('{"a":"sha256:0"}', "policy.json", error=error)
        with self.assertRaisesRegex(ConfigurationError, "^policy.json: a: expected an integer"):
            root["a"].as_int()
        with self.assertRaisesRegex(ConfigurationError, "^policy.json: a: digest 'sha256:0': expected 64") as caught:
            root["a"].parse(parse_digest)
        self.assertEqual(caught.exception.code, ErrorCode.POLICY_INVALID)
        self.assertIsInstance(caught.exception.__cause__, InvalidDigestError)


class Reading(unittest.TestCase):
    def test_each_kind_is_read_as_itself(self) -> None:
        root = tree('{"s":"x","i":7,"b":true,"n":null,"a":[1,2],"o":{"k":"v"}}')
        self.assertEqual((root["s"].as_str(), root["i"].as_int(), root["b"].as_bool()), ("x", 7, True))
        self.assertTrue(root["n"].is_null())
        self.assertFalse(root["s"].is_null())
        self.assertEqual([item.as_int() for item in root["a"].items()], [1, 2])
        self.assertEqual([(key, node.as_str()) for key, node in root["o"].members()], [("k", "v")])
        self.assertEqual(root.keys(), ("s", "i", "b", "n", "a", "o"))
        self.assertIsNone(root.get("n"))
        self.assertIsNone(root.get("absent"))
        self.assertEqual([root.has(key) for key in ("n", "absent")], [True, False])

    def test_no_kind_is_read_as_another(self) -> None:
        root = tree('[null,true,7,1.0,"x",[],{}]')
        kinds = ("null", "a boolean", "an integer", "a number", "a string", "an array", "an object")
        nodes = list(root.items())
        self.assertEqual([kind_of(node.value) for node in nodes], list(kinds))
        for position, node in enumerate(nodes):
            for read, own in (
                (node.as_bool, "a boolean"),
                (node.as_int, "an integer"),
                (node.as_str, "a string"),
                (node.as_replaced_str, "a string"),
                (node.items, "an array"),
                (node.members, "an object"),
                (node.keys, "an object"),
                (lambda node=node: node.has("k"), "an object"),
                (lambda node=node: node["k"], "an object with the member"),
                (lambda node=node: node.get("k"), "an object"),
                (lambda node=node: node.folded({"k"}), "an object"),
                (lambda node=node: node.require_only({"k"}), "an object"),
                (lambda node=node: node.require_exact_case({"k"}), "an object"),
            ):
                if kinds[position] == own:
                    read()
                elif not own.startswith(kinds[position]):
                    expected = own.removesuffix(" with the member")
                    reason = rf"^document: \[{position}\]: expected {expected}, found {kinds[position]}$"
                    with self.subTest(own, found=kinds[position]), self.assertRaisesRegex(InvalidDocumentError, reason):
                        read()

    def test_a_missing_member_is_named(self) -> None:
        with self.assertRaisesRegex(InvalidDocumentError, r"^document: a\[1\]: expected a member 'b', found none$"):
            list(tree('{"a":[0,{}]}')["a"].items())[1]["b"]

    def test_integers_have_bounds(self) -> None:
        self.assertEqual(tree("0").as_int(minimum=0, maximum=0), 0)
        with self.assertRaisesRegex(InvalidDocumentError, "^document: expected at least 0, found -1$"):
            tree("-1").as_int(minimum=0)
        with self.assertRaisesRegex(InvalidDocumentError, "expected at most 9, found 10$"):
            tree("10").as_int(maximum=9)
        with self.assertRaises(InvalidDocumentError) as caught:
            tree("9" * 4_000).as_int(maximum=9)
        self.assertLess(len(str(caught.exception)), 300)

    def test_paths_show_odd_keys_quoted_and_stay_short(self) -> None:
        root = tree('{"a.b":{"c d":{"\\n":{"é":"x"}}}}')
        node = root["a.b"]["c d"]["\n"]["é"]
        self.assertEqual(node.path, r"['a.b']['c d']['\n'].é")
        self.assertEqual((root.path, root.where, node.document), ("", "document", "document"))
        deep = tree('{"' + "k" * 64 + '":' * 1 + '{"kk":' * 100 + "1" + "}" * 101)
        node = deep
        while isinstance(node.value, dict):
            node = next(child for _, child in node.members())
        self.assertEqual(len(node.path), PATH_LIMIT)
        self.assertTrue(node.path.startswith("…") and node.path.endswith(".kk.kk"))

    def test_paths_are_cut_and_quoted_at_their_limits(self) -> None:
        self.assertEqual(PATH_LIMIT, 200)
        step, long = "k" * 64, "k" * 65
        self.assertEqual(tree(f'{{"{step}":1}}')[step].path, step)
        self.assertEqual(tree(f'{{"{long}":1}}')[long].path, f"['{long}']")
        whole = tree(f'{{"{step}":{{"{step}":{{"{step}":{{"kkkkk":1}}}}}}}}')[step][step][step]["kkkkk"]
        self.assertEqual((len(whole.path), whole.path[:3]), (200, "kkk"))

    def test_a_lone_surrogate_is_no_text(self) -> None:
        root = tree(r'{"a":"x\ud800","b":"\ud83d\ude00","c":{"\udc00":1}}')
        with self.assertRaisesRegex(InvalidDocumentError, "^document: a: a lone surrogate in a string"):
            root["a"].as_str()
        self.assertEqual(root["a"].as_replaced_str(), "x\ufffd")
        self.assertEqual(root["b"].as_str(), "\U0001f600")
        self.assertEqual(replace_surrogates("\ud800\udbff\U0001f600"), "\ufffd\ufffd\U0001f600")
        for text, place in ((r'{"a":["\ud800"]}', r"a\[0\]"), (r'{"c":{"\udc00":1}}', "c"), (r'"\udfff"', "document")):
            with self.subTest(text), self.assertRaisesRegex(InvalidDocumentError, f"{place}: a lone surrogate"):
                refuse_surrogates(tree(text))
        refuse_surrogates(tree(r'{"é":["\ud83d\ude00",1,null]}'))


class Keys(unittest.TestCase):
    def test_keys_fold_as_go_folds_them(self) -> None:
        for key, folded in (
            ("mediaType", "mediatype"),
            ("manife\u017ft\u017f", "manifests"),
            ("\u212aey", "key"),
            ("\u0130", "i\u0307"),
            ("os.Version", "os.version"),
        ):
            self.assertEqual(fold_key(key), folded)

    def test_only_known_keys_pass_where_only_they_may(self) -> None:
        tree('{"a":1}').require_only({"a", "b"})
        with self.assertRaisesRegex(InvalidDocumentError, "^document: unknown member 'A', expected one of a, b$"):
            tree('{"a":1,"A":2}').require_only(("a", "b"))

    def test_a_known_key_in_another_spelling_is_refused(self) -> None:
        tree('{"a":1,"other":2,"OTHER":3}').require_exact_case({"a"})
        for key in ("K", "\u212a"):
            with self.subTest(key), self.assertRaisesRegex(InvalidDocumentError, "ambiguous member .*spelled 'k'$"):
                tree(f'{{"k":1,"{key}":2}}').require_exact_case(("k",))

    def test_folding_finds_each_known_member_once(self) -> None:
        found = tree('{"ENV":1,"cmd":2,"User":null,"x":3}').folded(("Env", "Cmd", "User"))
        self.assertEqual({name: node.value for name, node in found.members()}, {"Env": 1, "Cmd": 2})
        for text in ('{"a":1,"A":2}', '{"a":null,"A":2}'):
            reason = "^document: A: ambiguous.*reads as 'a'"
            with self.subTest(text), self.assertRaisesRegex(InvalidDocumentError, reason):
                tree(text).folded(("a",))


if __name__ == "__main__":
    unittest.main()
