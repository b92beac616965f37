"""Bits that flip in a replica's file and in its log: each is found and healed, or no till can tell."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.faults.acts.damage import worn_stories
from tests.faults.acts.scenes import Props, Record
from tests.faults.acts.stage import Stage
from tests.faults.scale import scaled, seeded, some
from tests.oracle import files as oracle

FLIPS = scaled(25)
"""Of each file: of a replica whose log is full, and of one that was stopped cleanly."""

FILES = [("worn", "replica.db"), ("worn", "replica.db-wal"), ("worn, stopped", "replica.db")]


def flip(path: Path, rng: Random) -> str:
    """Turn one bit over; returns where."""
    at, bit = rng.randrange(path.stat().st_size), rng.randrange(8)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
    return f"{path.name} byte {at} bit {bit}"


@pytest.mark.parametrize(("begins", "name"), FILES)
def test_a_flipped_bit_is_found_and_healed_or_harmless(
    begins: str, name: str, stage: Stage, props: Props, record_property: Record
) -> None:
    rng, found, failures = seeded(f"{begins} {name}"), Counter[str](), list[object]()
    for _ in range(FLIPS):
        with props.directory(begins) as directory:
            (directory / "replica.db-shm").unlink()  # the machine was off
            where = flip(directory / name, rng)
            said = stage.play("examine", directory).said[-1]
            if "raised" in said or said["wrong"]:
                failures.append((where, said))
                continue
            found[said["found"] or "harmless"] += 1
        if said["found"]:
            failures += healed_wrongly(begins, name, where, stage, props)
    record_property("bits flipped", FLIPS)
    for how, count in sorted(found.items()):
        record_property("harmless" if how == "harmless" else f"found by {how}", count)
    assert not failures, f"{len(failures)} of {FLIPS}, the first: {failures[0]}"


def healed_wrongly(begins: str, name: str, where: str, stage: Stage, props: Props) -> list[object]:
    """The same damage again, on which a store starts: what is not as HQ has it in the end."""
    at, bit = int(where.split()[2]), int(where.split()[4])
    with props.directory(begins) as directory:
        (directory / "replica.db-shm").unlink()
        path = directory / name
        whole = bytearray(path.read_bytes())
        whole[at] ^= 1 << bit
        path.write_bytes(whole)
        said = stage.play("heal", directory).said
        if said[-1:] != [{"done": True}]:
            return [(where, said[-1:])]
        verdict = oracle.judge_replica(directory / "replica.db", worn_stories())
        verdict.wrong += oracle.judge_search(directory / "replica.db").wrong
        verdict.wrong += at_the_end(directory / "replica.db")
        return [] if verdict.ok else [(where, verdict)]


def at_the_end(path: Path) -> list[str]:
    """Streams that did not catch up with HQ."""
    with oracle.reading(path) as db:
        assert db is not None
        positions = dict(db.execute("SELECT stream, position FROM streams").fetchall())
    return [each.name for each in worn_stories() if positions[each.name] != each.ends[-1]]


def test_a_flipped_bit_in_the_position_of_a_stream_is_put_right_by_what_hq_says(
    stage: Stage, props: Props, record_property: Record
) -> None:
    """No proof in the file can know better; a later epoch than HQ's would otherwise be waited for for ever."""
    rng, told, failures, flips = seeded("position"), worn_stories()[0], list[object](), 0
    with props.directory("worn, stopped") as directory:
        whole = (directory / "replica.db").read_bytes()
    begin = whole.index(f"{told.name}{told.epoch}".encode()) + len(told.name)
    for at in some(range(begin, begin + len(told.epoch) + 2 + 32), "position"):
        where = f"replica.db byte {at} bit {rng.randrange(8)}"
        failures += healed_wrongly("worn, stopped", "replica.db", where, stage, props)
        flips += 1
    record_property("bits flipped", flips)
    assert not failures, f"{len(failures)} of {flips}, the first: {failures[0]}"


def test_control_with_nobody_looking_tills_see_the_damage(stage: Stage, props: Props) -> None:
    """The planted fault: neither the file nor the digests are checked."""
    rng = seeded("control")
    for _ in range(200):
        with props.directory("worn, stopped") as directory:
            flip(directory / "replica.db", rng)
            if stage.play("examine", directory, blind=True).said[-1].get("wrong"):
                return
    pytest.fail("no till saw any of 200 flips: the oracle sees nothing")
