# SPDX-License-Identifier: Apache-2.0
"""A write that takes a part only says so by its count and by nothing else: no caller in the package drops one."""

import ast
import unittest
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "cip"
WRITES = frozenset(
    {"write", "pwrite", "writev", "pwritev", "sendfile", "copy_file_range", "splice", "send", "sendto", "sendmsg"}
)
HARMLESS = {  # where a part cannot be, or is told
    "channels.py: self._sock.send(packet)": "a packet",
    "confine/remote.py: control.send(b'setup')": "a packet",
    "fetch/progress.py: os.write(self._descriptor or 0, text.encode())": "a line on a terminal that is drawn again",
    "programs.py: child.stdin.write(stdin)": "less than an empty pipe takes",
    "report/journal.py: self._socket.send(encode(fields))": "a datagram",
    "wire/jsonproxy/pipes.py: os.write(error_fd, encode_error_object(error))": "less than an empty pipe takes",
    "wire/jsonproxy/replies.py: sock.sendmsg([packet.data], control, socket.MSG_DONTWAIT)": "a packet",
    "wire/fds.py: open(os.devnull, 'r+b', buffering=0)": "nothing is written to it",
    "programs.py: subprocess.Popen": "its pipe is written to as above",
    "temporary.py: UnlinkedFile(dir=self._directory, buffering=0)": "made for its descriptor",
}


def _dropped(tree: ast.AST, ours: frozenset[str]) -> Iterator[str]:
    """Calls that may write a part and whose count nobody takes, and files that are opened without a buffer."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            call = node.value.func
            if isinstance(call, ast.Attribute) and call.attr in WRITES and ast.unparse(call) not in ours:
                yield ast.unparse(node.value)
        if isinstance(node, ast.Call):
            for keyword in node.keywords:
                if keyword.arg in ("buffering", "bufsize") and ast.unparse(keyword.value) == "0":
                    reads = len(node.args) > 1 and ast.unparse(node.args[1]) in ("'rb'", "'r'")
                    if not reads:
                        text = ast.unparse(node)
                        yield text if len(text) < 100 else ast.unparse(node.func)


# functions of ours, which take all or raise
OURS = frozenset(
    {"self._output.send", "self.send", "self._writer.write", "writer.write", "self._incoming.write", "stdout.write"}
)


class CountTest(unittest.TestCase):
    def test_no_count_of_a_write_is_dropped(self) -> None:
        found = {
            f"{path.relative_to(PACKAGE)}: {text}"
            for path in PACKAGE.rglob("*.py")
            for text in _dropped(ast.parse(path.read_text(encoding="utf-8")), OURS)
        }
        self.assertEqual(found - set(HARMLESS), set())

    def test_what_drops_one_is_found(self) -> None:
        for text in ("os.write(1, data)", "file.write(data)", "sock.sendmsg([data])", "open(1, 'wb', buffering=0)"):
            with self.subTest(text):
                self.assertEqual(list(_dropped(ast.parse(text), OURS)), [text])
        for text in ("left = left[os.write(1, left):]", "open(1, 'rb', buffering=0)", "self._output.send(data)"):
            with self.subTest(text):
                self.assertEqual(list(_dropped(ast.parse(text), OURS)), [])


if __name__ == "__main__":
    unittest.main()
