# SPDX-License-Identifier: Apache-2.0
"""Named tuples whose classes cost little to make.

A start makes some eighty classes of values. `typing.NamedTuple` compiles a function for each of them and an expression
for each of their members: 0.3 ms a class, a fifth of the time that a parent waits for a manifest. Here a class is a
tuple with one descriptor for each member, and making a value costs a little more instead. Type checkers see
`typing.NamedTuple`, whose rules hold: members in the order of their annotations, defaults last, nothing inherited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import NamedTuple as NamedTuple
else:
    from operator import itemgetter

    class _NamedTupleType(type):
        """Makes a class of the annotations in its body, which must be texts: `from __future__ import annotations`."""

        def __new__(mcs, name, bases, namespace):
            if bases != (tuple,):
                fields = tuple(namespace.get("__annotations__", ()))
                defaults = {field: namespace[field] for field in fields if field in namespace}
                if tuple(defaults) != fields[len(fields) - len(defaults) :]:
                    raise TypeError(f"{name}: a member without a default follows one that has it")
                for number, field in enumerate(fields):
                    namespace[field] = property(itemgetter(number))
                namespace.update(_fields=fields, _field_defaults=defaults, __match_args__=fields)
            namespace.setdefault("__slots__", ())
            return super().__new__(mcs, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_NamedTupleType):
        """As `typing.NamedTuple`."""

        def __new__(cls, *values, **named):
            if len(values) != len(cls._fields) or named:
                values = cls._complete(values, named)
            return tuple.__new__(cls, values)

        @classmethod
        def _complete(cls, values, named):
            """The members in their order, by place, by name or by default. Raises TypeError as any call does."""
            rest = cls._fields[len(values) :]
            members = {**cls._field_defaults, **named}
            if len(values) > len(cls._fields) or not named.keys() <= set(rest) or not members.keys() >= set(rest):
                raise TypeError(
                    f"{cls.__name__}: expected {', '.join(cls._fields)}, found {len(values)} values by place"
                    f" and by name {', '.join(named) or 'none'}"
                )
            return (*values, *(members[field] for field in rest))

        def _replace(self, /, **changes):
            return type(self)(**{**self._asdict(), **changes})

        def _asdict(self):
            return dict(zip(self._fields, self, strict=True))

        def __repr__(self):
            return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"

        def __getnewargs__(self):
            return tuple(self)
