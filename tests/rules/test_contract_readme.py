"""The protocol's normative text is true: its examples run, its tables are the code's."""

from __future__ import annotations

import doctest
import json
import re
from hashlib import sha256
from pathlib import Path

from storelink.contract import codec, limits, messages, status, upstream
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Head, Live, Message, Segment

ROOT = Path(__file__).parents[2]
PATH = ROOT / "storelink" / "contract" / "README.md"
TEXT = PATH.read_text(encoding="utf-8")
SHOWN = re.findall(r"```mqtt\n(.*?)```", TEXT, re.DOTALL)
EXAMPLES = [example for example in SHOWN if "/store/" not in example.partition("\n")[0]]
WAY_BACK = [example for example in SHOWN if example not in EXAMPLES]


def shown(example: str) -> Message:
    """A message as the text shows it: properties, an empty line, the data."""
    front, _, body = example.partition("\n\n")
    properties = dict(line.split(": ", 1) for line in front.splitlines())
    return Message(
        topic=properties.pop("topic"),
        retain=properties.pop("retain") == "1",
        content_type=properties.pop("content-type"),
        attributes=properties,
        payload=json.dumps(json.loads(body), separators=(",", ":")).encode(),
    )


def reencoded(message: Message) -> Message:
    """Read a message, and write what was read."""
    at_ms = json.loads(message.payload).get("at_ms", 1767225840000)
    match message.attributes["type"].split(".")[2]:
        case "outbox":
            return upstream.encode_batch("storenode", upstream.decode_batch("storenode", message), 1767225900000)
        case "ack":
            return upstream.encode_ack("storenode", upstream.decode_ack("storenode", message), 1767225900000)
        case "status":
            return status.encode_status("storenode", status.decode_status("storenode", message))
        case "live":
            return messages.encode_live("storenode", messages.decode_live("storenode", message, BUILT_IN))
        case "segment":
            return messages.encode_segment("storenode", messages.decode_segment("storenode", message, BUILT_IN), at_ms)
        case _:
            return messages.encode_head("storenode", messages.decode_head("storenode", message, BUILT_IN))


def decoded() -> tuple[list[Live], Segment, Head]:
    *lives, segment, head = map(shown, EXAMPLES)
    return (
        [messages.decode_live("storenode", m, BUILT_IN) for m in lives],
        messages.decode_segment("storenode", segment, BUILT_IN),
        messages.decode_head("storenode", head, BUILT_IN),
    )


def test_the_text_has_an_example_of_every_kind() -> None:
    kinds = [shown(example).topic.split("/")[1] for example in EXAMPLES]
    assert kinds == ["live", "live", "live", "segment", "head"]
    assert [shown(example).topic.rpartition("/")[2] for example in WAY_BACK] == ["outbox", "ack", "status"]


def test_a_shown_message_is_what_the_code_writes() -> None:
    for message in map(shown, SHOWN):
        again = reencoded(message)
        body = codec.unpack(again.payload, again.content_type)
        assert (again.topic, again.retain, again.attributes) == (message.topic, message.retain, message.attributes)
        assert body == message.payload


def test_the_shown_messages_tell_one_story() -> None:
    """A store that applies the live batches and one that applies segment and tail hold the same rows."""
    (changed, deleted, beat), segment, head = decoded()
    live = {row[1:3]: row for row in segment.rows}
    live |= {row[1:3]: row for row in changed.rows}
    for row in deleted.deleted:
        del live[row[1:3]]
    caught_up = {row[1:3]: row for row in (*segment.rows, *head.tail_rows)}
    for row in head.tail_deleted:
        del caught_up[row[1:3]]
    assert live == caught_up
    assert changed.digest == deleted.prev_digest
    assert deleted.digest == beat.digest == beat.prev_digest == head.digest
    assert (beat.last, head.count) == (head.seq, len(live))


def test_the_shown_head_names_the_shown_segment() -> None:
    *_, segment, head = map(shown, EXAMPLES)
    (ref,) = messages.decode_head("storenode", head, BUILT_IN).segments
    assert (ref.size_bytes, ref.sha256) == (len(segment.payload), sha256(segment.payload).hexdigest())


def test_the_python_examples_do_what_they_show() -> None:
    failed, ran = doctest.testfile(str(PATH), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert ran > 10


def test_the_columns_are_the_declared_ones() -> None:
    declared = []
    for context in BUILT_IN.values():
        for column in (*context.keys, *context.values):
            kind = column.kind + (", key" if column in context.keys else "")
            required = "yes" if column.required else "no"
            declared.append(f"| {context.name} | `{column.name}` | {kind} | {required} | {column.chars_max} |")
    assert re.findall(r"^\| (?:product|price) \| `.*$", TEXT, re.MULTILINE) == declared


def test_the_limits_are_the_codes() -> None:
    told = {name: int(value) for name, value in re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|$", TEXT, re.MULTILINE)}
    # What HQ aims for when it builds messages is not part of the protocol.
    known = {n: v for n, v in vars(limits).items() if n.isupper() and not n.endswith("_TARGET")}
    assert told == known


def test_every_reason_to_refuse_is_listed() -> None:
    listed = re.findall(r"^\| `([a-z_]+)` \| ", TEXT, re.MULTILINE)
    raised = set()
    for path in (ROOT / "storelink" / "contract").glob("*.py"):
        raised |= set(re.findall(r'ContractViolation\(\s*"([a-z_]+)"', path.read_text(encoding="utf-8")))
    assert listed == sorted(raised)
