"""The simulated chain: one HQ, five stores, one faulty broker, one clock; everything follows from the seed.

At times another chain's HQ is there, started in the wrong place.
The oracle is `Model`: what HQ was asked for, folded by `tests.oracle`; HQ's word for a commit counts for nothing.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from hq.collect.inbox import StoreInbox
from hq.core.changes import Change
from hq.master.backup import back_up, restore
from hq.master.store import Master
from hq.node import Node as HqNode
from hq.node import Options
from hq.publish.publication import Publication
from hq.publish.sizes import Sizes
from storelink.contract.contexts import BUILT_IN, Row
from storelink.contract.streams import Stream
from storelink.transport.memory import MemoryBroker, MemoryLink
from storelink.transport.port import LinkEvent, NotConnected
from storenode.config import Settings
from storenode.outbox.store import Outbox
from storenode.replica.verify import prove
from storenode.replica.writer import Replica
from tests.nodes import NodeInMemory
from tests.oracle.history import History, State

PRODUCT, PRICE = Stream.parse("product/all", BUILT_IN), Stream.parse("price/all", BUILT_IN)
STREAMS = (PRODUCT, PRICE)
_STREAMS_BY_NAME = {str(stream): stream for stream in STREAMS}
STORES = 5
TOMBSTONES_KEPT_MS = 2_000
"""Short enough that a store which is cut off for some turns must rebuild."""

TURNS_AT_ONCE = 50
"""Of HQ, while it has more to do; then time goes on."""

EPOCH_MS = 1_760_000_000_000
SMALL = Sizes(tail_bytes=200, segment_bytes=400, segment_rows=6, segment_rows_max=12)


@dataclass
class Model:
    """What HQ was asked for, by stream and epoch; the newest epoch goes on."""

    histories: dict[Stream, dict[str, History]]

    @classmethod
    def of(cls, epochs: Mapping[Stream, str]) -> Model:
        return cls({stream: {epoch: History(str(stream), epoch)} for stream, epoch in epochs.items()})

    def now(self, stream: Stream) -> History:
        histories = self.histories[stream]
        return histories[max(histories)]

    def state(self, stream: Stream, epoch: str | None, seq: int) -> State | None:
        """What HQ had there; None if no change set ended there."""
        if epoch is None:
            return {} if seq == 0 else None
        history = self.histories[stream].get(epoch)
        return None if history is None or seq not in history.ends else history.state_at(seq)

    def heads(self) -> dict[Stream, tuple[str, int]]:
        return {stream: (self.now(stream).epoch, self.now(stream).head) for stream in self.histories}

    def restore(self, copied: Mapping[Stream, tuple[str, int]], epochs: Mapping[Stream, str]) -> None:
        """HQ is what it was at `copied`, in a later epoch; what stores saw meanwhile stays true of its own epoch."""
        for stream, epoch in epochs.items():
            assert epoch > self.now(stream).epoch, f"{stream} is restored in {epoch}, which is no later epoch"
            was_in, seq = copied[stream]
            self.histories[stream][epoch] = self.histories[stream][was_in].restored_in(epoch, seq)


class Node:
    """A process of the simulation: its events wait until its turn."""

    def __init__(self, broker: MemoryBroker, client_id: str) -> None:
        self.client_id = client_id
        self.events: list[LinkEvent] = []
        self.link = MemoryLink(broker, client_id, self.events.append)
        self.link.start()

    def next_event(self) -> LinkEvent | None:
        return self.events.pop(0) if self.events else None


class Hq(Node):
    def __init__(self, broker: MemoryBroker, directory: Path, life: int, sizes: Sizes = SMALL) -> None:
        super().__init__(broker, f"hq-{life}")
        self.master = Master.open(directory / "hq.db", BUILT_IN, lambda: 0)
        self.publication = Publication.open(directory / "hq.published.db")
        self.inbox = StoreInbox.open(directory / "hq.inbox.db")
        self.inbox.connection.execute("PRAGMA synchronous = OFF")  # the simulation is about logic, not disks
        self.node = HqNode.assemble(
            "t",
            self.master,
            self.publication,
            self.inbox,
            self.link,
            self.next_event,
            Options(
                head_interval_ms=300,
                heartbeat_ms=2_000,
                segment_grace_ms=5_000,
                tombstones_kept_ms=TOMBSTONES_KEPT_MS,
                prune_every_ms=500,
                sizes=sizes,
            ),
        )

    def turn(self, now_ms: int) -> None:
        for _ in range(TURNS_AT_ONCE):
            if not self.node.turn(now_ms, EPOCH_MS + now_ms):
                break

    def crash(self) -> None:
        self.link.close()
        self.master.close()
        self.publication.close()
        self.inbox.connection.close()


@cache
def _new_replica() -> bytes:
    """A replica that follows nothing yet; making one takes longer than all else at a store's start."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "new.db"
        Replica.open(path, ("all",), BUILT_IN).connection.close()
        return path.read_bytes()


class Store:
    def __init__(self, broker: MemoryBroker, directory: Path, name: str, life: int, now_ms: int) -> None:
        self.client_id = f"{name}-{life}"
        self.path = directory / f"{name}.db"
        if not self.path.exists():
            self.path.write_bytes(_new_replica())
        self.name = name
        self.outbox = directory / f"{name}.outbox.db"
        settings = Settings(db=self.path, store_id=name, root="t", outbox=self.outbox)
        self.node = NodeInMemory(settings, broker, self.client_id, wall_ms=EPOCH_MS, mono_ms=now_ms)
        self.replica, self.worker = self.node.replica, self.node.router
        self.reader = sqlite3.connect(self.path)
        self.seen: dict[Stream, tuple[str | None, int]] = {}
        self.newest: dict[Stream, tuple[str, int]] = {}

    def turn(self, now_ms: int) -> None:
        self.node.turn(now_ms)

    def spoil(self, rng: random.Random, now_ms: int) -> bool:
        """Change or lose a row, if there is one, behind the writer's back; the proof finds it at once."""
        stream = rng.choice(STREAMS)
        table, db = stream.context.table, self.replica.connection
        rows = db.execute(f"SELECT rowid FROM {table} ORDER BY rowid").fetchall()
        if not rows:
            return False
        row = rng.choice(rows)
        if rng.random() < 0.5:
            db.execute(f"DELETE FROM {table} WHERE rowid = ?", row)
        else:
            db.execute(f"UPDATE {table} SET seq = seq + 1000 WHERE rowid = ?", row)
        prove(self.path, {s: f.life for s, f in self.worker.followers.items()}, self.node.commands.submit)
        with suppress(NotConnected):
            self.node.commands.obey(now_ms)
        assert self.positions()[stream][2], "the replica says itself that these rows are not HQ's"
        return True

    def check_search(self) -> None:
        """The index is ready, and equals the rows by SQLite's own proof."""
        assert self.replica.is_search_ready()
        self.replica.connection.execute("INSERT INTO product_search(product_search, rank) VALUES('integrity-check', 1)")

    def crash(self) -> Counter[str]:
        """Let go of everything; returns what it counted in its life."""
        self.reader.close()
        self.node.crash()
        return self.worker.counters

    def positions(self) -> dict[Stream, tuple[str | None, int, str | None]]:
        """Of each stream epoch, position, and why a rebuild is due, if one is; as a till reads it."""
        rows = self.reader.execute("SELECT stream, epoch, position, rebuild_due FROM streams")
        return {_STREAMS_BY_NAME[name]: (epoch, position, due) for name, epoch, position, due in rows}

    def rows(self, stream: Stream) -> State:
        context = stream.context
        columns = ", ".join(context.columns)
        found = self.reader.execute(f"SELECT {columns} FROM {context.table} WHERE scope = 'all'")
        width = len(context.keys)
        return {tuple(row[1 : 1 + width]): tuple(row) for row in found}


class World:
    """Runs one seed: `storm` with faults, then `calm` until all agree."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.directory = directory
        self.now_ms = 0
        self.lives = 0
        self.broker = MemoryBroker(self.rng)
        Master.create(directory / "hq.db", BUILT_IN, EPOCH_MS, lambda: seed)
        self.hq: Hq | None = Hq(self.broker, directory, 0)
        self.foreign: Hq | None = None
        self.desk = Master.open(directory / "hq.db", BUILT_IN, lambda: seed)
        self.model = Model.of({r.stream: r.epoch for r in self.desk.streams()})
        self.copied: dict[Stream, tuple[str, int]] | None = None
        self.figures: Counter[str] = Counter(seeds=1)
        self.trace: list[tuple[str, Stream, str | None, int]] = []
        self.stores = [Store(self.broker, directory, f"store-{i}", 0, 0) for i in range(STORES)]
        self.emitted: dict[str, list[int]] = {f"store-{i}": [] for i in range(STORES)}
        self.collected: dict[str, list[int]] = {f"store-{i}": [] for i in range(STORES)}
        self.cursor = 0

    def close(self) -> None:
        self.desk.close()
        for store in self.stores:
            self._count(store.crash())
        for hq in (self.hq, self.foreign):
            if hq is not None:
                hq.crash()

    def _count(self, counters: Counter[str]) -> None:
        """Add what a store counted in a life that is over."""
        for name in ("catch_ups", "gaps", "repeats", "forks"):
            self.figures[name.replace("_", " ")] += counters[name]
        self.figures["messages rejected"] += sum(n for name, n in counters.items() if name.startswith("rejected_"))

    def storm(self, steps: int) -> None:
        for _ in range(steps):
            self._fault()
            if self.rng.random() < 0.5:
                self._commit()
            if self.rng.random() < 0.2:
                self._emit(self.rng.choice(self.stores))
            self._turn()

    def calm(self, steps_max: int) -> None:
        """End all faults; return once every store has HQ's newest."""
        self.broker.loss = self.broker.repeat = 0.0
        self.broker.reorder = False
        self.broker.delay_ms_max = 20
        if self.hq is None:
            self._start_hq()
        for node in (*self.stores, self.hq):
            assert node is not None
            self.broker.heal(node.client_id)
        for _ in range(steps_max):
            self._turn()
            if self._converged():
                for store in self.stores:
                    store.check_search()
                return
        states = {
            s.client_id: {str(t): (f.state, f.position.seq) for t, f in s.worker.followers.items()} for s in self.stores
        }
        behind = {n: (len(self.collected[n]), len(e)) for n, e in self.emitted.items() if self.collected[n] != e}
        heads = [(str(r.stream), r.head_seq) for r in self.desk.streams()]
        asked = [(str(stream), seq) for stream, (_, seq) in self.model.heads().items()]
        raise AssertionError(
            f"not converged: {states}, HQ {heads}, which was asked for {asked}, of the outboxes {behind}"
        )

    def _converged(self) -> bool:
        heads = self.model.heads()
        return self.collected == self.emitted and all(
            (epoch, seq) == heads[stream] and store.worker.followers[stream].state == "live"
            for store in self.stores
            for stream, (epoch, seq, _) in store.positions().items()
        )

    def _turn(self) -> None:
        self.now_ms += self.rng.choice((5, 20, 100, 400))
        self.figures["steps"] += 1
        self.broker.advance(self.now_ms)
        for hq in (self.hq, self.foreign):
            if hq is not None:
                hq.turn(self.now_ms)
        for store in self.stores:
            store.turn(self.now_ms)
            self._check(store)
        self._consume()

    def _check(self, store: Store) -> None:
        """The invariant: the rows are what HQ had at the position, which ends a change set and never goes back."""
        for stream, (epoch, seq, suspect) in store.positions().items():
            position, newest = (epoch, seq), (epoch or "", seq)
            assert newest >= store.newest.get(stream, newest), f"{stream} went back to {position}"
            store.newest[stream] = newest
            if suspect:
                store.seen.pop(stream, None)
            elif store.seen.get(stream) != position:
                store.seen[stream] = position
                self.trace.append((store.name, stream, *position))
                expected = self.model.state(stream, *position)
                assert expected is not None, f"{stream} stands at {position}, where no change set ended"
                assert store.rows(stream) == expected, f"{stream} at {position}"
                self.figures["states compared"] += 1

    def _emit(self, store: Store) -> None:
        """Store software tells HQ something, whatever the line, HQ and the daemon do: a number of its own each time."""
        with Outbox(store.outbox) as outbox:
            for _ in range(self.rng.choice((1, 1, 3, 9))):
                number = len(self.emitted[store.name])
                outbox.append("t", {"number": number, "pad": "x" * self.rng.choice((0, 0, 30_000))}, EPOCH_MS)
                self.emitted[store.name].append(number)

    def _consume(self) -> None:
        """A downstream job with a cursor: of each store a beginning of what it emitted, in order, nothing twice."""
        if self.hq is None:
            return
        rows = self.hq.inbox.connection.execute(
            "SELECT position, store, data FROM entries WHERE position > ? ORDER BY position", (self.cursor,)
        ).fetchall()
        for self.cursor, name, text in rows:
            self.collected[name].append(json.loads(text)["number"])
            done = self.collected[name]
            assert done == self.emitted[name][: len(done)], f"{name}: {done[-10:]}"

    def _commit(self) -> None:
        stream = self.rng.choice(STREAMS)
        changes = [self._change(stream) for _ in range(self.rng.choice((1, 1, 2, 5, 30)))]
        done = self.desk.commit(stream, changes, EPOCH_MS + self.now_ms)
        events, asked = self.model.now(stream).ask(changes), self.model.now(stream).head
        assert (done.events, done.head_seq) == (events, asked), f"{stream}: HQ says {done}, not {events} up to {asked}"
        self.figures["commits"] += 1
        self.figures["changes"] += events

    def _change(self, stream: Stream) -> Change:
        sku = str(self.rng.randrange(40))
        dead = self.rng.random() < 0.2
        if stream == PRICE:
            amount = self.rng.randrange(1, 999)
            return Change((sku, "regular"), None if dead else ("EUR", f"[[1760000000,null,{amount}]]"))
        values: Row = (None, f"name {self.rng.randrange(99)}", *(None,) * 10)
        return Change((sku,), None if dead else values)

    def _fault(self) -> None:
        rng, broker = self.rng, self.broker
        match rng.randrange(45):
            case 0 | 1:
                broker.cut(rng.choice(self.stores).client_id)
                self.figures["lines cut"] += 1
            case 2 | 3:
                broker.heal(rng.choice(self.stores).client_id)
            case 4:
                index = rng.randrange(STORES)
                self._count(self.stores[index].crash())
                self.figures["store crashes"] += 1
                self.lives += 1
                self.stores[index] = Store(broker, self.directory, f"store-{index}", self.lives, self.now_ms)
            case 5 if self.hq is not None:
                self.hq.crash()
                self.hq = None
                self.figures["HQ crashes"] += 1
            case 6 | 7 if self.hq is None:
                self._start_hq()
            case 8:
                self._stop_foreign()
                broker.forget_retained()
                broker.restart()
                self.figures["brokers emptied"] += 1
            case 9:
                self._stop_foreign()
                self._lose_some_retained()
                broker.restart()
                self.figures["brokers damaged"] += 1
            case 10:
                loss = rng.choice((0.0, 0.1, 0.4))
                broker.loss = loss if self.foreign is None else 0.0
                broker.repeat = rng.choice((0.0, 0.2))
                broker.reorder = rng.random() < 0.3 and self.foreign is None
                broker.delay_ms_max = rng.choice((1, 50, 2_000))
            case 11:
                self.figures["rows spoilt"] += rng.choice(self.stores).spoil(rng, self.now_ms)
            case 12:
                self._copy_master()
            case 13 | 14 if self.hq is None and self.copied is not None:
                self._restore_master(self.copied)
            case 15 | 16:
                self._start_foreign()
            case 17:
                self._stop_foreign()
            case _:
                pass

    def _lose_some_retained(self) -> None:
        """A broker that comes back with a damaged store: some messages are gone, some are altered."""
        kept = self.broker.retained
        for topic in [t for t in kept if not t.startswith("t/store/") and self.rng.random() < 0.15]:
            if self.rng.random() < 0.5:
                kept[topic] = replace(kept[topic], payload=kept[topic].payload[:-1])
            else:
                del kept[topic]

    def _copy_master(self) -> None:
        copy = self.directory / "copy.db"
        copy.unlink(missing_ok=True)
        back_up(self.desk.path, copy, BUILT_IN)
        self.copied = self.model.heads()

    def _restore_master(self, copied: Mapping[Stream, tuple[str, int]]) -> None:
        """HQ forgets what it did since the copy; stores must follow it back."""
        now_ms = EPOCH_MS + self.now_ms
        replaced = restore(self.desk.path, self.directory / "copy.db", now_ms, BUILT_IN, lambda: self.seed)
        assert replaced is not None
        replaced.unlink()
        self.model.restore(copied, {r.stream: r.epoch for r in self.desk.streams()})
        self.figures["restores"] += 1

    def _start_foreign(self) -> None:
        """
        Start another chain's HQ under this root: it must find our heads and publish nothing.

        Where the broker has nothing of ours it may publish. Where a line has no order, or loses messages of a
        connection that goes on, it cannot know; MQTT's line does neither.
        """
        ours_are_kept = any(topic.startswith("t/head/") for topic in self.broker.retained)
        if self.foreign is not None or self.broker.reorder or self.broker.loss or not ours_are_kept:
            return
        self.lives += 1
        directory = self.directory / f"foreign-{self.lives}"
        directory.mkdir()
        Master.create(directory / "hq.db", BUILT_IN, EPOCH_MS + self.now_ms, lambda: ~self.seed)
        with Master.open(directory / "hq.db", BUILT_IN, lambda: ~self.seed) as master:
            master.commit(PRODUCT, [Change(("foreign",), (None, "not ours", *(None,) * 10))], EPOCH_MS + self.now_ms)
        self.foreign = Hq(self.broker, directory, self.lives)

    def _stop_foreign(self) -> None:
        if self.foreign is not None:
            self.foreign.crash()
            self.foreign = None

    def _start_hq(self) -> None:
        self.lives += 1
        self.hq = Hq(self.broker, self.directory, self.lives)
