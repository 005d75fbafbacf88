# SPDX-License-Identifier: Apache-2.0
"""What a blob costs at least: receive, sha256, send of 1 MiB pieces in one thread, with the same libraries.

`floor.py FD HOST PORT PATH SIZE [CA]` asks for PATH (over TLS where an authority is named), writes the body to FD, and
prints the CPU seconds of this loop alone. It checks nothing and repeats nothing: it is the bound, not a proxy.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import sys
import time

PIECE = 1 << 20  # bytes


def main() -> None:
    output, host, port, path, size = sys.argv[1:6]
    sock = socket.create_connection((host, int(port)))
    if len(sys.argv) > 6:
        sock = ssl.create_default_context(cafile=sys.argv[6]).wrap_socket(sock, server_hostname=host)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 200 "), head
    left, hasher, buffer = int(size), hashlib.sha256(), memoryview(bytearray(PIECE))
    began = time.process_time()
    while left:
        filled, wanted = 0, min(left, PIECE)
        while filled < wanted:
            count = sock.recv_into(buffer[filled:wanted])
            assert count, "ended early"
            filled += count
        hasher.update(buffer[:filled])
        part = buffer[:filled]
        while part:
            part = part[os.write(int(output), part) :]
        left -= filled
    print(time.process_time() - began)


if __name__ == "__main__":
    main()
