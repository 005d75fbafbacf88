# SPDX-License-Identifier: Apache-2.0
"""What a blob costs at least: receive, sha256, send of 1 MiB pieces in one thread, with the same libraries.

`floor.py FD HOST PORT PATH SIZE [CA [COUNT]]` asks for PATH (over TLS where an authority is named; COUNT times over one
connection), writes the bodies to FD, and prints the CPU seconds of this loop alone. It checks nothing and repeats
nothing: it is the bound, not a proxy.
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
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    count = int(sys.argv[7]) if len(sys.argv) > 7 else 1
    hasher, buffer = hashlib.sha256(), memoryview(bytearray(PIECE))
    began = time.process_time()
    for _ in range(count):
        sock.sendall(request)
        filled, head = 0, -1
        while head < 0:
            filled += sock.recv_into(buffer[filled : 64 * 1024])
            head = bytes(buffer[:filled]).find(b"\r\n\r\n")
        assert bytes(buffer[:13]) == b"HTTP/1.1 200 ", bytes(buffer[:head])
        left, part = int(size), buffer[head + 4 : filled]
        while True:
            hasher.update(part)
            left -= len(part)
            while part:
                part = part[os.write(int(output), part) :]
            if not left:
                break
            filled, wanted = 0, min(left, PIECE)
            while filled < wanted:
                received = sock.recv_into(buffer[filled:wanted])
                assert received, "ended early"
                filled += received
            part = buffer[:filled]
    print(time.process_time() - began)


if __name__ == "__main__":
    main()
