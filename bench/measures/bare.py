"""The limit of an HTTP lookup in Python: raw sqlite3 behind asyncio, with as little HTTP as a client accepts.

Run as `python -m bench.measures.bare REPLICA PORT`; no routes, no checks, no deadlines. Ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import sys
from typing import cast

from testbed.till import PRICE_SQL


class _Bare(asyncio.Protocol):
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        sku = data.partition(b" HTTP")[0].rpartition(b"/")[2].decode()
        amount_minor, currency = self._db.execute(PRICE_SQL, (sku,)).fetchone()
        body = json.dumps({"sku": sku, "amount_minor": amount_minor, "currency": currency}).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))


async def _serve(replica: str, port: int) -> None:
    db = sqlite3.connect(f"file:{replica}?mode=ro", uri=True)
    server = await asyncio.get_running_loop().create_server(lambda: _Bare(db), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
