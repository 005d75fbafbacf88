# SPDX-License-Identifier: Apache-2.0
"""Counts lines of code as the project's limits mean them: no comments, no docstrings, no blank lines.

`python3 tests/support/codelines.py [PATH …]` prints each module below `cip/` with its lines, then the sums by room.
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "cip"
_NO_CODE = frozenset(
    {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
)


def code_lines(source: str) -> int:
    """The lines on which a token of code stands. Raises SyntaxError."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            lines.difference_update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def lines_of_package(package: Path = PACKAGE) -> dict[str, int]:
    """Dotted module name below the package → lines of code."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"] = code_lines(
            path.read_text(encoding="utf-8")
        )
    return found


def room_of(module: str) -> str:
    """The room that `module`, named as seen from the package, goes with; `core` for the rest."""
    sys.path[:1] = [str(ROOT)]
    from cip.rooms import ROOMS

    owners = (room.name for room in ROOMS for each in room.modules if f"{module}.".startswith(f"{each}."))
    return next(owners, "core")


def main(arguments: Sequence[str]) -> int:
    if arguments:
        for name in arguments:
            print(f"{code_lines(Path(name).read_text(encoding='utf-8')):6}  {name}")
        return 0
    lines = lines_of_package()
    sums: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for module, count in lines.items():
        print(f"{count:6}  {module}")
        sums[room_of(module)] += count
        files[room_of(module)] += 1
    print()
    for room, count in sums.most_common():
        print(f"{count:6}  {room} ({files[room]} files)")
    print(f"{sum(lines.values()):6}  in all ({len(lines)} files)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
