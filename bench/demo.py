"""`make demo`: HQ publishes a real catalogue, three stores replicate it, a line is cut, and all end equal - proven.

Runs the installed commands as processes, as a user would. Exit code 0: everything is equal; 1: something is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from testbed import commands
from testbed.broker import Broker, rumqttd
from testbed.chain import Chain
from testbed.feeds import Grocery, Prices, changed_prices, grocery, write_prices, write_products
from testbed.process import Process, StepFailed
from testbed.till import Till, freshness, price, wrong_prices

STORES = ("store-north", "store-south", "store-harbour")
CUT = STORES[-1]
CHANGES = 5_000
SEED = 2026
WIDTH_MIN = 100
"""A digest is shown whole, also in a pipe."""

console = Console(highlight=False, width=max(Console().width, WIDTH_MIN))


@dataclass(slots=True)
class Figures:
    """What the summary and `--json` show."""

    products: int = 0
    prices: int = 0
    import_s: dict[str, float] = field(default_factory=dict)
    bootstrap_s: dict[str, float] = field(default_factory=dict)
    bootstrap_bytes: dict[str, int] = field(default_factory=dict)
    catch_up_s: float = 0.0
    catch_up_bytes: int = 0
    live_s: float = 0.0
    live_bytes: int = 0
    till_lookups: int = 0
    till_p99_ms: float = 0.0
    total_s: float = 0.0
    equal: bool = False


class DemoChain(Chain):
    """The embedded broker, and everything as a user starts it; what does not end when it is asked to is told."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, hq_settings={}, run=commands.spawn)

    def make_broker(self) -> Broker:
        return rumqttd(self.directory, self.port)

    def status(self, name: str) -> Any:
        """What the store says of itself; None before it has made its replica."""
        return self.store_json(name, "status", codes=(0, 1, 2, 3))

    def end(self) -> list[str]:
        """Stop every daemon, then close. Returns what did not end by itself when asked to, or ended badly."""
        complaints = []
        for name, process in reversed([("hq", self.hq_run), *self.stores.items()]):
            complaints += _stopped_badly(name, process)
        self.close()
        return complaints


def _stopped_badly(name: str, process: Process) -> list[str]:
    if not process.began_s:
        return []
    try:
        code = process.stop()
    except StepFailed as error:
        return [str(error)]
    return [f"{name} ended with exit code {code}"] if code > 0 else []


class Demo:
    """The story, told while it happens; every step raises StepFailed if it does not come about."""

    def __init__(self, chain: DemoChain, catalogue: Grocery) -> None:
        self._chain = chain
        self._catalogue = catalogue
        self._changed: Prices = changed_prices(catalogue.prices, CHANGES, SEED)
        self._began = time.monotonic()
        self._heads: dict[str, int] = {}
        self.figures = Figures()

    def tell(self, who: str, what: str) -> None:
        console.print(f"[dim]{time.monotonic() - self._began:5.1f} s[/]  [bold]{who:14}[/] {what}")

    def play(self) -> None:
        self._open_headquarters()
        self._bootstrap_stores()
        self._cut_a_line()
        self._prove()

    def _open_headquarters(self) -> None:
        chain, figures = self._chain, self.figures
        self.tell("broker", f"rumqttd (iotcore), MQTT 5, port {chain.port}")
        chain.hq_run.start()
        products, prices = chain.directory / "products.csv", chain.directory / "prices.csv"
        write_products(products, self._catalogue)
        write_prices(prices, self._catalogue.prices)
        for context, feed in (("product", products), ("price", prices)):
            with console.status(f"hq import {context} {feed.name}"):
                done = chain.hq_json("import", context, str(feed))
            self._expect(done["events"], len(self._catalogue.products), f"events of the first {context} feed")
            figures.import_s[context] = done["seconds"]
            self.tell("hq", f"imported {feed.name}: {done['events']:,} events in {done['seconds']:.1f} s")
        figures.products = figures.prices = len(self._catalogue.products)
        again = chain.hq_json("import", "price", str(prices))
        self.tell("hq", f"the same feed once more: {again['events']} events")
        self._expect(again["events"], 0, "events of the same feed again")
        with console.status("publishing"):
            seconds = chain.wait("HQ has published everything", self._published)
        sent = self._read_heads()
        retained = sum(s["retained_bytes"] for s in sent)
        self.tell(
            "hq", f"published {seconds:.1f} s later: {sum(s['segments'] for s in sent)} segments, {_size(retained)}"
        )

    def _bootstrap_stores(self) -> None:
        chain, figures = self._chain, self.figures
        began = time.monotonic()
        for name in STORES:
            chain.add_store(name)
        with console.status("three stores bootstrap"):
            waiting = list(STORES)
            while waiting:
                chain.wait("the stores have bootstrapped", lambda: any(self._level(name) for name in waiting))
                for name in [each for each in waiting if self._level(each)]:
                    waiting.remove(name)
                    figures.bootstrap_s[name] = round(time.monotonic() - began, 2)
                    figures.bootstrap_bytes[name] = chain.lines[name].bytes_down
                    size = _size(chain.lines[name].bytes_down)
                    self.tell(name, f"live after {figures.bootstrap_s[name]:.1f} s, {size} over its line")

    def _cut_a_line(self) -> None:
        chain, figures = self._chain, self.figures
        sku, new = next(iter(self._changed.items()))
        till = Till(chain.replica(CUT), sorted(self._changed)[:500])
        till.start()
        chain.lines[CUT].cut()
        chain.wait("the cut store has noticed", lambda: chain.status(CUT)["connected"] is False)
        self.tell(CUT, "its line is cut; a till goes on asking it for prices")
        self._change_prices()
        status, answer = chain.status(CUT), chain.store_json(CUT, "price", sku)
        old = self._catalogue.prices[sku]
        self._expect(answer["amount_minor"], old, "the price that the cut store still has")
        stale = max(s["stale_seconds"] or 0 for s in status["streams"].values())
        self.tell(
            CUT, f"{status['state']}, {stale:.0f} s old; sku {sku} still costs {_money(old)}, at HQ {_money(new)}"
        )
        before = chain.lines[CUT].bytes_down
        chain.lines[CUT].heal()
        with console.status("the line is back"):
            figures.catch_up_s = round(chain.wait("the cut store is level again", lambda: self._level(CUT)), 2)
        figures.catch_up_bytes = chain.lines[CUT].bytes_down - before
        self.tell(CUT, f"the line is back: level after {figures.catch_up_s:.1f} s, {_size(figures.catch_up_bytes)}")
        till.stop()
        figures.till_lookups, figures.till_p99_ms = till.lookups, round(till.slowest_ms(0.99), 2)
        self._expect(till.failures[:3], [], "lookups of the till that failed")
        self._expect(price(chain.replica(CUT), sku), (new, "EUR"), "the price after the line came back")
        self.tell("till", f"{till.lookups:,} lookups meanwhile, none failed, 99 of 100 within {figures.till_p99_ms} ms")

    def _change_prices(self) -> None:
        chain, figures = self._chain, self.figures
        feed = chain.directory / "changes.csv"
        write_prices(feed, self._changed)
        before = chain.lines[STORES[0]].bytes_down
        began = time.monotonic()
        done = chain.hq_json("import", "price", str(feed))
        self._expect(done["events"], CHANGES, "events of the feed with changes")
        self.tell("hq", f"{done['events']:,} prices changed in {done['seconds']:.1f} s")
        self._read_heads()
        chain.wait("the other stores have the changes", lambda: all(self._level(name) for name in STORES[:-1]))
        figures.live_s = round(time.monotonic() - began, 2)
        figures.live_bytes = chain.lines[STORES[0]].bytes_down - before
        self.tell(
            "others", f"have them {figures.live_s:.1f} s after the command began, {_size(figures.live_bytes)} each"
        )

    def _prove(self) -> None:
        """Digests from a scan of the rows on every machine; and the rows themselves against what was fed."""
        chain = self._chain
        expected = {**self._catalogue.prices, **self._changed}
        with console.status("scanning every row on every machine"):
            master = chain.hq_json("verify")["streams"]
            self._expect([s["problems"] for s in master.values()], [[], []], "what HQ finds wrong with itself")
            digests = {name: facts["digest"] for name, facts in master.items()}
            table = Table("machine", "stream", "at", "rows", "digest", "", box=None, pad_edge=False)
            for name, facts in master.items():
                table.add_row("hq", name, f"{facts['head_seq']:,}", f"{facts['rows']:,}", facts["digest"])
            for store in STORES:
                for name, facts in chain.store_json(store, "verify", codes=(0, 2))["streams"].items():
                    equal = facts["digest"] == digests[name] and facts["rows"] == master[name]["rows"]
                    verdict = "[green]equal[/]" if equal else "[red]DIFFERS[/]"
                    table.add_row(store, name, f"{facts['position']:,}", f"{facts['rows']:,}", facts["digest"], verdict)
                    if not equal:
                        raise StepFailed(f"{store} {name} is {facts['digest']}, HQ's {digests[name]}")
                self._expect(wrong_prices(chain.replica(store), expected), 0, f"prices at {store} other than fed")
        console.print()
        console.print(table)
        self.figures.equal = True

    def _read_heads(self) -> list[dict[str, Any]]:
        """Remember where HQ's streams stand, for `_level`; return what HQ says of them."""
        found = self._chain.master()
        self._heads = {stream: facts["head_seq"] for stream, facts in found.items()}
        return list(found.values())

    def _published(self) -> bool:
        return all(s["published"] == s["head_seq"] for s in self._chain.master().values())

    def _level(self, name: str) -> bool:
        """Whether a store says that it is live and stands where HQ stands."""
        return freshness(self._chain.replica(name)) == {stream: ("live", seq) for stream, seq in self._heads.items()}

    def _expect(self, found: Any, wanted: Any, what: str) -> None:
        if found != wanted:
            raise StepFailed(f"{what}: {found!r}, not {wanted!r}")

    def summary(self) -> None:
        figures = self.figures
        figures.total_s = round(time.monotonic() - self._began, 1)
        fed = figures.products + figures.prices + CHANGES
        received = sum(line.bytes_down for line in self._chain.lines.values())
        console.print(
            f"\n[green bold]All equal.[/] {fed:,} events, {figures.products + figures.prices:,} rows,"
            f" {len(STORES)} stores, {_size(received)} over their lines, {figures.total_s:.0f} s."
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path(".demo"), help="everything is kept here")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console.print(f"[bold]storenode demo[/]: HQ, a broker, three stores; all in {options.directory}\n")
    chain = DemoChain(empty_directory(options.directory.absolute()))
    demo = Demo(chain, grocery())
    failure = None
    try:
        demo.play()
    except StepFailed as error:
        failure = str(error)
    except KeyboardInterrupt:
        failure = "interrupted"
    finally:
        complaints = chain.end()
    if failure or complaints:
        for each in filter(None, (failure, *complaints)):
            console.print(f"[red bold]failed:[/] {each}", markup=True)
        return 1
    demo.summary()
    if options.json:
        figures = {name: getattr(demo.figures, name) for name in Figures.__slots__}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


def empty_directory(path: Path) -> Path:
    """Make the directory, or empty it if an earlier run left it."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02} EUR"


if __name__ == "__main__":
    sys.exit(main())
