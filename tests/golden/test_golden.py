"""Every message ever released is read for ever, and what is written today has the released shape."""

from __future__ import annotations

import base64
import json
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import pytest

from storelink.contract import codec, messages, status, upstream
from storelink.contract.contexts import BUILT_IN
from storelink.contract.messages import Message
from storelink.contract.streams import STORE_KINDS, parse_topic

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("v*/*.json"))


def loaded(path: Path) -> tuple[Message, dict[str, Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    body = found.pop("body")
    payload = base64.b64decode(found.pop("payload_base64"), validate=True)
    return Message(payload=payload, **found), body


def root_of(message: Message) -> str:
    kind = message.attributes["type"].split(".")[2]
    middle = "/store/" if kind in STORE_KINDS else f"/{kind}/"
    return message.topic.partition(middle)[0]


def read_and_written(message: Message) -> Message:
    root = root_of(message)
    match message.attributes["type"].split(".")[2]:
        case "outbox":
            return upstream.encode_batch(root, upstream.decode_batch(root, message), 1767225900000)
        case "ack":
            return upstream.encode_ack(root, upstream.decode_ack(root, message), 1767225900000)
        case "status":
            return status.encode_status(root, status.decode_status(root, message))
    at_ms = 1767225900000
    match parse_topic(root, message.topic, BUILT_IN)[0]:
        case "live":
            return messages.encode_live(root, messages.decode_live(root, message, BUILT_IN))
        case "segment":
            return messages.encode_segment(root, messages.decode_segment(root, message, BUILT_IN), at_ms)
        case _:
            return messages.encode_head(root, messages.decode_head(root, message, BUILT_IN))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_released_message_is_read_and_written_alike(path: Path) -> None:
    message, body = loaded(path)
    assert json.loads(codec.unpack(message.payload, message.content_type)) == body
    again = read_and_written(message)
    assert json.loads(codec.unpack(again.payload, again.content_type)) == body
    assert (again.topic, again.retain, again.content_type) == (message.topic, message.retain, message.content_type)
    assert again.attributes == message.attributes


def test_released_digests_are_the_sum_of_row_hashes() -> None:
    """Computed here with the standard library alone, from a batch that starts at nothing."""
    for name in ("live-products", "live-prices-zstd"):
        _, body = loaded(GOLDEN / "v1.0" / f"{name}.json")
        acc = 0
        for row in body["rows"]:
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            acc += int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
        assert body["prev_digest"] == "0" * 32
        assert body["digest"] == f"{acc % 2**128:032x}"


def test_a_released_head_names_the_released_segment() -> None:
    head, body = loaded(GOLDEN / "v1.0" / "head-with-tail.json")
    segment, _ = loaded(GOLDEN / "v1.0" / "segment-prices-zstd.json")
    assert body["segments"] == [[1, 60, 60, len(segment.payload), sha256(segment.payload).hexdigest()]]
    assert root_of(head) == root_of(segment) == "chain/de-1"
