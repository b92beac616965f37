"""Clients of an HTTP server on this machine: each asks for one price after the other on a connection of its own.

Run as `python -m bench.measures.callers PORT CLIENTS PAUSE_S SECONDS SKU...`;
it prints `{"count", "failed", "p50_ms", "p99_ms"}`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

WARM_UP = 20
"""Answers of each client that do not count."""


async def _client(
    port: int, number: int, clients: int, pause_s: float, end_s: float, skus: list[str]
) -> tuple[list[float], int]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took_ms, failed, asked = [], 0, number * 997
    await asyncio.sleep(pause_s * number / clients)  # tills do not scan in step
    while time.perf_counter() < end_s:
        asked += 1
        began_s = time.perf_counter()
        writer.write(f"GET /prices/{skus[asked % len(skus)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length))
        took_ms.append((time.perf_counter() - began_s) * 1000)
        failed += b" 200 " not in head[:20] or b"amount_minor" not in body
        if pause_s:
            await asyncio.sleep(pause_s)
    writer.close()
    return took_ms[WARM_UP:], failed


async def _all(port: int, clients: int, pause_s: float, seconds: float, skus: list[str]) -> dict[str, float]:
    end_s = time.perf_counter() + seconds
    found = await asyncio.gather(*(_client(port, n, clients, pause_s, end_s, skus) for n in range(clients)))
    ordered = sorted(t for took_ms, _ in found for t in took_ms)
    return {
        "count": len(ordered),
        "failed": sum(failed for _, failed in found),
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[int(len(ordered) * 0.99)],
    }


if __name__ == "__main__":
    _port, _clients, _pause, _seconds, *_skus = sys.argv[1:]
    print(json.dumps(asyncio.run(_all(int(_port), int(_clients), float(_pause), float(_seconds), _skus))))
