# SPDX-License-Identifier: Apache-2.0
"""A TCP relay that adds a round trip time: each byte arrives half of it later, at full rate.

Run as a program, so that its work is not done in the process that measures: `relay.py HOST PORT SECONDS` listens on a
free port of 127.0.0.1, prints it and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import time


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=4096)

    async def deliver() -> None:
        while True:
            due, data = await queue.get()
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    try:
        while data := await reader.read(1 << 18):
            await queue.put((time.monotonic() + delay, data))
        await queue.put((time.monotonic() + delay, b""))
        await delivery
    except (OSError, asyncio.CancelledError):
        delivery.cancel()  # one side is gone; the other is closed by our caller


async def _serve(host: str, port: int, seconds: float) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)  # the handshake of a real connection takes a round trip
        there, back = await asyncio.open_connection(host, port)
        await asyncio.gather(_carry(reader, back, seconds / 2), _carry(there, writer, seconds / 2))
        for end in (writer, back):
            end.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    sys.stdout.flush()
