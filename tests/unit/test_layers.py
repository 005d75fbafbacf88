# SPDX-License-Identifier: Apache-2.0
"""Holds every import in `cip/` against the rooms of the architecture: arrows point down only.

The check is a function from source texts to complaints, so that each rule is first shown to catch what it is for.
"""

import ast
import sys
import unittest
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cip import rooms

PACKAGE = "cip"
LOADER = "cip.rooms"
COMPUTED = "a computed name"  # which the loader alone may import: that of an offer
STILL_NAMED = {"cip.cli": "confine"}  # until the program asks the loader for it, too
REPOSITORY = Path(__file__).resolve().parents[2]

_VALUES = frozenset({"version", "errors", "log", "model"})
_LOW = _VALUES | {"settings", "content", "events"}
_BELOW_IMAGE = _LOW | {"sources.base", "sources.referring", "programs", "rooms", "temporary"}

# room: what it may import besides itself; a room that is a package may of course import its own modules
ROOMS: Mapping[str, frozenset[str]] = {
    "version": frozenset(),
    "errors": frozenset(),
    "log": frozenset({"errors"}),
    "model": frozenset({"errors", "log", "rooms"}),
    "settings": _VALUES,
    "content": _VALUES | {"rooms", "hashing"},
    "hashing": frozenset(),
    "temporary": frozenset({"errors"}),
    "programs": _VALUES | {"content", "settings"},
    "events": _VALUES | {"content"},
    "rooms": frozenset({"errors"}),  # what it loads is no arrow of its own
    "report": _LOW | {"trust"},
    "hostconfig": _LOW | {"programs", "rooms"},  # credential helpers
    "trust": _LOW | {"rooms"},  # neither hostconfig nor a source: opening alone brings bytes and belief together
    "sources.base": _LOW | {"sources.referring"},
    "sources.referring": _LOW,
    "sources": _BELOW_IMAGE | {"hostconfig", "net"},  # a daemon speaks HTTP
    "net.lines": frozenset({"errors"}),  # under both directions
    "net": _LOW | {"hostconfig", "rooms"},  # of hostconfig the value that says which proxy is spoken to
    "registry": _BELOW_IMAGE
    | {"hostconfig", "net", "net.lines", "partial"},  # of the sources only what they all promise
    "signatures": _BELOW_IMAGE | {"hostconfig", "trust"},
    "union": _BELOW_IMAGE | {"hostconfig", "sources"},  # the registry reaches it as a callable
    "partial": _LOW,
    "segments": _LOW | {"registry", "net", "sources.base"},  # a range of a blob is one
    "early": _LOW | {"hostconfig", "net"},
    "transports": _BELOW_IMAGE | {"hostconfig", "sources", "net", "registry", "union", "partial", "early"},
    "readahead": _LOW,
    "referrers": _LOW | {"sources.base", "sources.referring"},
    "image": _BELOW_IMAGE | {"readahead", "referrers"},
    "opening": _BELOW_IMAGE
    | {"hostconfig", "trust", "sources", "registry", "union", "transports"}
    | {"image", "referrers"},
    "fetch": _BELOW_IMAGE | {"hostconfig", "sources", "transports", "image", "opening", "partial", "confine"},
    "wire": _VALUES | {"content", "temporary", "image", "net.lines", "rooms"},
    "explain": _BELOW_IMAGE | {"hostconfig", "trust", "sources", "net", "registry", "union", "transports", "image"},
    "channels": frozenset({"version", "errors", "model", "content"}),
    "client": frozenset({"version", "errors", "model", "content", "channels", "rooms"}),
    "flags": _VALUES | {"settings"},
    "options": _VALUES | {"settings", "rooms", "flags"},
    "skopeo": frozenset({"version", "errors", "log", "flags", "options"}),
    "watch": frozenset({"content"}),  # which starts threads
    "confine": _VALUES | {"content", "settings", "programs", "hostconfig", "trust"},  # of trust what a policy asks for
    "cli": _BELOW_IMAGE
    | {"hostconfig", "trust", "sources", "net", "registry", "union", "transports", "readahead", "early"}
    | {"image", "opening", "wire", "explain", "options", "watch", "confine", "report"},
    "main": frozenset({"cli"}),
}
_ROOM_OF_FILE = {"__init__": "version", "__main__": "main"}
# the one module that may import each of these, and never while it is itself imported
OPTIONAL_PACKAGES = {"cryptography": "cip.trust.sigstore.keys", "yaml": "cip.hostconfig.registriesd"}
# what each module at the heart of the program may be imported by; that nobody does is a fault as well
LIBRARIES: Mapping[str, frozenset[str]] = {
    "urllib.request": frozenset({"cip.net.opener", "cip.registry.authorization"}),
    "http.server": frozenset({"cip.wire.httpserver"}),
    "http.client": frozenset({"cip.net.connection", "cip.net.response", "cip.channels"}),
}
# rooms whose decisions depend on nothing but their arguments, and what they must therefore not import
PURE_ROOMS = ("model", "trust")
IMPURE = frozenset({"os", "subprocess", "socket", "ssl", "pathlib", "shutil", "tempfile", "time", "http", "random"})
STANDARD_LATER = frozenset({"compression"})  # part of the standard library from 3.14 on


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name in full: its line, how it was written, whether it runs with the importer's import, or never."""

    name: str
    line: int
    relative: bool
    at_import_time: bool
    for_types: bool


def complaints(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with the imports of these modules, given as dotted name → source text, packages by `__init__`."""
    found: list[str] = []
    arrows: dict[str, set[str]] = {_dotted(name): set() for name in sources}
    for name, text in sources.items():
        module = _dotted(name)
        room = room_of(name)
        if room is None:
            found.append(f"{module}: has no room in the table of tests/unit/test_layers.py")
            continue
        for each in _imports(text, module, is_package=name.endswith(".__init__")):
            place = f"{module}:{each.line}"
            if each.name == PACKAGE or each.name.startswith(PACKAGE + "."):
                if not each.relative:
                    found.append(f"{place}: imports inside {PACKAGE} are relative, found {each.name}")
                target = _nearest(each.name, arrows)
                part, own = part_of(each.name), part_of(module)
                if module == LOADER and (part or each.for_types):
                    continue
                allowed = {own, *_needs_of(own), STILL_NAMED.get(module)}
                if part and not each.for_types and part not in allowed:
                    found.append(f"{place}: {own or 'the core'} must not name the room {part}, but ask {LOADER}")
                if part and part_of(target) is None:
                    continue  # of a room that this copy lacks
                arrows[module].add(target)
                target_room = room_of(target if target != PACKAGE else f"{PACKAGE}.__init__")
                inside = target_room == room or str(target_room).startswith(f"{room}.")
                if target_room is not None and not inside and target_room not in ROOMS[room]:
                    found.append(f"{place}: {room} must not import {target_room} ({each.name})")
            elif module != LOADER or each.name != COMPUTED:
                found.extend(f"{place}: {reason}" for reason in _foreign(each, module, room))
    found.extend(f"import cycle: {' -> '.join(cycle)}" for cycle in _cycles(arrows))
    return found


def part_of(module: str) -> str | None:
    """The room that can be left out with which `module` goes; None for the core."""
    inside = f"{module.removeprefix(PACKAGE).lstrip('.')}."
    return next((room.name for room in rooms.ROOMS for each in room.modules if inside.startswith(f"{each}.")), None)


def _needs_of(part: str | None) -> Sequence[str]:
    return next((room.needs for room in rooms.ROOMS if room.name == part), ())


def room_of(name: str) -> str | None:
    """The room of a dotted module name, or None when the table does not know it."""
    parts = name.removesuffix(".__init__").split(".")[1:] or ["__init__"]
    for candidate in (".".join(parts[:2]), _ROOM_OF_FILE.get(parts[0], parts[0])):
        if candidate in ROOMS:
            return candidate
    return None


def _foreign(each: Import, module: str, room: str) -> Iterator[str]:
    root = each.name.partition(".")[0]
    if root in OPTIONAL_PACKAGES:
        if module != OPTIONAL_PACKAGES[root]:
            yield f"{root} may be imported in {OPTIONAL_PACKAGES[root]} only"
        elif each.at_import_time:
            yield f"{root} is optional and must be imported where it is needed, not at module level"
    elif root not in sys.stdlib_module_names | STANDARD_LATER:
        yield f"{each.name} is neither ours nor of the standard library"
    for library, importers in LIBRARIES.items():
        if f"{each.name}.".startswith(f"{library}.") and module not in importers:
            yield f"{library} may be imported in {', '.join(sorted(importers))} only"
    if room in PURE_ROOMS and root in IMPURE:
        yield f"{room} is pure and must not import {each.name}"


def absent_libraries(sources: Mapping[str, str]) -> Iterator[str]:
    """Each module of LIBRARIES with an importer that does not import it."""
    for library, importers in LIBRARIES.items():
        for module in sorted(importers):
            if part_of(module) is not None and module not in sources:
                continue  # went with its room
            text = sources.get(module, "")
            imports = _imports(text, module, is_package=False) if library.rpartition(".")[2] in text else ()
            if not any(f"{each.name}.".startswith(f"{library}.") for each in imports):
                yield f"{module}: expected it to import {library}"


def _imports(text: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import statement of a module, with `from x import y` as `x.y`; and import_module() with a fixed name."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node, at_import_time, for_types in _walk(ast.parse(text), True, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, False, at_import_time, for_types)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", node.lineno, node.level > 0, at_import_time, for_types)
        elif isinstance(node, ast.Call) and _called(node).endswith(("import_module", "__import__")):
            fixed = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
            yield Import(str(fixed or COMPUTED), node.lineno, False, at_import_time, for_types)


def _called(node: ast.Call) -> str:
    return str(getattr(node.func, "attr", getattr(node.func, "id", "")))


def _walk(node: ast.AST, at_import_time: bool, for_types: bool) -> Iterator[tuple[ast.AST, bool, bool]]:
    """All nodes below; what stands in a function does not run at import, what stands under TYPE_CHECKING never."""
    nodes = [(node, at_import_time, for_types)]
    for node, at_import_time, for_types in nodes:  # which grows meanwhile
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else ()
        for child in ast.iter_child_nodes(node):
            never = child in guarded
            nodes.append((child, at_import_time and not later and not never, for_types or never))
    yield from nodes[1:]


def _dotted(name: str) -> str:
    return name.removesuffix(".__init__")


def _nearest(name: str, modules: Mapping[str, object]) -> str:
    """The module that `a.b.c` is or lies in: `c` may be a module of `a.b` or a name that it defines."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name


def _cycles(arrows: Mapping[str, set[str]]) -> Iterator[list[str]]:
    done: set[str] = set()

    def follow(module: str, path: list[str]) -> Iterator[list[str]]:
        if module in path:
            yield [*path[path.index(module) :], module]
        elif module not in done:
            for target in sorted(arrows.get(module, set()) - {PACKAGE}):
                yield from follow(target, [*path, module])
            done.add(module)

    for module in sorted(arrows):
        yield from follow(module, [])


def read_package(directory: Path) -> dict[str, str]:
    """Dotted name → source text of every module below `directory`."""
    return {
        ".".join(path.relative_to(directory.parent).with_suffix("").parts): path.read_text(encoding="utf-8")
        for path in sorted(directory.rglob("*.py"))
    }


class LayersTest(unittest.TestCase):
    def test_every_import_of_the_package_points_down(self) -> None:
        sources = read_package(REPOSITORY / PACKAGE)
        self.assertIn("cip.errors", sources)
        self.assertEqual([], complaints(sources))

    def test_what_the_program_is_built_on_is_imported_where_it_belongs(self) -> None:
        self.assertEqual([], list(absent_libraries(read_package(REPOSITORY / PACKAGE))))
        without = {"cip.net.opener": "from . import response", "cip.net.response": "import http.client"}
        found = list(absent_libraries(without))
        self.assertIn("cip.net.opener: expected it to import urllib.request", found)
        self.assertNotIn("cip.net.response: expected it to import http.client", found)

    def test_no_private_name_of_ssl_is_used(self) -> None:
        # what it would save was measured (stdlib-http.md section 5); it may be gone with any release
        self.assertEqual([], [name for name, text in read_package(REPOSITORY / PACKAGE).items() if "_sslobj" in text])

    def test_a_program_of_allowed_arrows_has_no_complaint(self) -> None:
        self.assertEqual(
            [],
            complaints(
                {
                    "cip.__init__": "__version__ = '1'",
                    "cip.__main__": "from .cli import run",
                    "cip.cli": "import sys\nfrom . import __version__\ndef run():\n    from .image import open_image",
                    "cip.errors": "import enum",
                    "cip.image": "from .trust.policy import Policy\nfrom .sources.base import ImageSource",
                    "cip.sources.__init__": "",
                    "cip.sources.base": "from ..errors import CipError",
                    "cip.rooms": "def f():\n    from .union import x\nif TYPE_CHECKING:\n    from .image import Image",
                    "cip.sources.layout": "from .base import ImageSource\nfrom . import base",
                    "cip.union": "from .sources.archives.spool import Spools",
                    "cip.sources.archives.spool": "from .. import base",
                    "cip.transports": "from . import rooms\nif TYPE_CHECKING:\n    from .sources.archives import spool",
                    "cip.trust.sigstore.keys": "def load():\n    from cryptography.hazmat import primitives",
                    "cip.hostconfig.registriesd": "def read():\n    import yaml",
                    "cip.net.opener": "import urllib.request\nfrom ..content import copy",
                }
            ),
        )

    def test_each_rule_catches_what_it_is_for(self) -> None:
        for case, module, text, expected in _BAD_MODULES:
            with self.subTest(case):
                found = complaints({**_EMPTY, module: text})
                self.assertIn(expected, "\n".join(found))
                self.assertEqual([], [each for each in found if not each.startswith(module)])

    def test_a_cycle_is_told_with_its_path(self) -> None:
        sources = {
            "cip.model.a": "from . import b",
            "cip.model.b": "def f():\n    from .c import x",
            "cip.model.c": "from .a import y",
        }
        self.assertEqual(
            ["import cycle: cip.model.a -> cip.model.b -> cip.model.c -> cip.model.a"], complaints(sources)
        )

    def test_what_the_loader_offers_is_in_a_room_and_there(self) -> None:
        for name, offer in [(name, each) for each in rooms.OFFERS for name in each.names]:
            with self.subTest(name):
                self.assertIsNotNone(part_of(f"{PACKAGE}.{offer.module}"))
                if part_of(f"{PACKAGE}.{offer.module}") in rooms.present():
                    found = getattr(rooms, name)
                    self.assertEqual(
                        getattr(found, "__module__", f"{PACKAGE}.{offer.module}"), f"{PACKAGE}.{offer.module}"
                    )

    def test_the_table_itself_has_no_cycle(self) -> None:
        self.assertEqual([], list(_cycles({room: set(targets) for room, targets in ROOMS.items()})))


# case, module, its text, what must be said about it
_BAD_MODULES = (
    ("upward", "cip.model.digest", "from ..content import copy", "model must not import content"),
    ("upward by package", "cip.model.digest", "from .. import content", "model must not import content"),
    ("sideways", "cip.trust.policy", "from ..hostconfig import paths", "trust must not import hostconfig"),
    ("trust from a source", "cip.sources.layout", "import x\nfrom ..trust import policy", "must not import trust"),
    ("registry from a source", "cip.sources.layout", "from ..registry import blob", "must not import registry"),
    ("source from registry", "cip.registry.blob", "from ..sources import layout", "registry must not import sources"),
    ("trust starts a program", "cip.trust.policy", "from ..programs import run_gpgv", "trust must not import programs"),
    ("wire and settings", "cip.wire.fds", "from ..settings import Settings", "wire must not import settings"),
    ("wire and registry", "cip.wire.fds", "from ..registry import blob", "wire must not import registry"),
    ("client and image", "cip.client", "from .image import Image", "client must not import image"),
    ("sandbox below cli", "cip.image", "from .confine import sandbox", "image must not import confine"),
    ("runner below cli", "cip.image", "from .confine.remote import run", "image must not import confine"),
    ("hidden in a function", "cip.model.digest", "def f():\n  from ..image import I", "model must not import image"),
    ("for types only", "cip.model.digest", "if TYPE_CHECKING:\n  from .. import image", "must not import image"),
    ("in a method", "cip.errors", "class A:\n  def f(self):\n    import cip.cli", "errors must not import cli"),
    ("absolute", "cip.image", "from cip.content import copy", "are relative, found cip.content.copy"),
    ("third party", "cip.image", "import requests", "requests is neither ours nor"),
    ("third party, lazily", "cip.image", "def f():\n  import requests.adapters", "requests.adapters is neither"),
    ("cryptography elsewhere", "cip.trust.policy", "def f():\n  import cryptography", "cip.trust.sigstore.keys only"),
    ("yaml elsewhere", "cip.image", "def f():\n  import yaml", "in cip.hostconfig.registriesd only"),
    ("cryptography at import", "cip.trust.sigstore.keys", "from cryptography import x509", "not at module level"),
    ("guarded at import", "cip.trust.sigstore.keys", "try:\n  import cryptography\nexcept: 0", "not at module level"),
    ("yaml in a class body", "cip.hostconfig.registriesd", "class A:\n  import yaml", "not at module level"),
    ("urllib.request", "cip.registry.token", "import urllib.request", "in cip.net.opener, cip.registry"),
    ("from urllib", "cip.registry.token", "from urllib import request", "in cip.net.opener, cip.registry"),
    ("its opener", "cip.cli", "from urllib.request import urlopen", "in cip.net.opener, cip.registry"),
    ("trust reads files", "cip.trust.sigstore.keys", "import os.path", "trust is pure and must not import os.path"),
    ("trust has a clock", "cip.trust.sigstore.keys", "def f():\n  from time import time", "trust is pure"),
    ("by name", "cip.image", "import importlib\nimportlib.import_module('numpy')", "numpy is neither ours"),
    ("by computed name", "cip.image", "__import__(name)", "a computed name is neither ours"),
    ("the core names a room", "cip.sources.layout", "def f():\n  from .archives.spool import S", "the room archives"),
    ("a room names another", "cip.sources.daemon", "from .storage import store", "must not name the room storage"),
    ("the loader decides", "cip.rooms", "from .image import Image", "rooms must not import image"),
    ("no room", "cip.utils", "", "cip.utils: has no room"),
    ("no room in wire's place", "cip.wires.fds", "", "cip.wires.fds: has no room"),
)

# so that names resolve to modules and not to their packages
_EMPTY = {
    f"cip.{name}": ""
    for name in (
        "__init__",
        "errors",
        "content",
        "settings",
        "programs",
        "image",
        "confine.__init__",
        "confine.sandbox",
        "cli",
        "model.__init__",
        "trust.sigstore.__init__",
        "trust.sigstore.keys",
        "net.__init__",
        "trust.__init__",
        "hostconfig.__init__",
        "hostconfig.paths",
        "sources.__init__",
        "sources.base",
        "sources.directory",
        "sources.archives.__init__",
        "sources.archives.spool",
        "sources.storage.__init__",
        "sources.storage.store",
        "sources.daemon",
        "rooms",
        "registry.__init__",
        "wire.__init__",
    )
}


if __name__ == "__main__":
    unittest.main()
