# SPDX-License-Identifier: Apache-2.0
"""What `typing.NamedTuple` promises, held against it."""

from __future__ import annotations

import copy
import pickle
import typing
import unittest
from collections.abc import Callable

from cip.values import NamedTuple


class Ours(NamedTuple):
    """A value."""

    first: int
    second: str = "b"
    third: tuple[int, ...] = ()

    @property
    def doubled(self) -> int:
        return 2 * self.first


class Theirs(typing.NamedTuple):
    first: int
    second: str = "b"
    third: tuple[int, ...] = ()


class Empty(NamedTuple):
    pass


class NamedTupleTest(unittest.TestCase):
    def test_values_are_made_as_by_typing(self) -> None:
        for values, named in (
            ((1,), {}), ((1, "c"), {}), ((1, "c", (2,)), {}), ((), {"first": 1}), ((1,), {"third": (2,)}),
            ((), {"third": (), "first": 1, "second": "c"}),
        ):  # fmt: skip
            with self.subTest(values=values, named=named):
                ours: Callable[..., tuple[object, ...]] = Ours
                theirs: Callable[..., tuple[object, ...]] = Theirs
                self.assertEqual(ours(*values, **named), theirs(*values, **named))
                self.assertEqual(repr(ours(*values, **named))[4:], repr(theirs(*values, **named))[6:])

    def test_calls_that_typing_refuses_are_refused(self) -> None:
        for values, named in (
            ((), {}), ((1, "c", (), 4), {}), ((1,), {"first": 1}), ((1,), {"other": 1}), ((), {"second": "c"}),
            ((1, "c", ()), {"other": 1}),
        ):  # fmt: skip
            for kind in (Ours, Theirs):
                with self.subTest(kind=kind, values=values, named=named), self.assertRaises(TypeError):
                    typing.cast(Callable[..., object], kind)(*values, **named)

    def test_members_are_read_and_never_written(self) -> None:
        value = Ours(1, third=(3,))
        self.assertEqual((value.first, value.second, value.third, value.doubled, value[1]), (1, "b", (3,), 2, "b"))
        for name in ("first", "doubled", "other"):
            with self.subTest(name), self.assertRaises(AttributeError):
                setattr(value, name, 1)
        self.assertFalse(hasattr(value, "__dict__"))

    def test_a_changed_copy(self) -> None:
        value = Ours(1)._replace(second="c")
        self.assertEqual((type(value), value), (Ours, (1, "c", ())))
        self.assertEqual(value._asdict(), {"first": 1, "second": "c", "third": ()})
        with self.assertRaises((TypeError, ValueError)):
            Ours(1)._replace(**typing.cast(typing.Any, {"other": 1}))

    def test_copies_patterns_and_hashes(self) -> None:
        value = Ours(1, third=(3,))
        self.assertEqual(pickle.loads(pickle.dumps(value)), value)
        self.assertEqual(copy.deepcopy(value), value)
        self.assertEqual(hash(value), hash((1, "b", (3,))))
        match value:
            case Ours(first, second):
                self.assertEqual((first, second), (1, "b"))
        self.assertEqual((Empty(), repr(Empty())), ((), "Empty()"))

    def test_a_member_without_default_after_one_with_it_is_a_mistake(self) -> None:
        base = typing.cast(type, NamedTuple)
        body = {"__annotations__": {"first": "int", "second": "int"}, "first": 1}
        with self.assertRaisesRegex(TypeError, "Late: a member without a default follows one that has it"):
            type(base)("Late", (base,), body)


if __name__ == "__main__":
    unittest.main()
