"""Whatever arrives is read or refused: a round trip, or ContractViolation, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storelink.contract import codec, messages, schedule, status, upstream
from storelink.contract.contexts import BUILT_IN
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Message
from storelink.contract.streams import Stream, parse_store_topic, parse_topic
from storelink.contract.upstream import checked_json
from tests.property.contract_rows import acks, batches, heads, lives, segments, statuses

Decoder = Callable[[str, Message], Any]
DECODERS: tuple[Decoder, ...] = tuple(
    partial(decode, contexts=BUILT_IN)
    for decode in (messages.decode_live, messages.decode_segment, messages.decode_head)
)
UPSTREAM: tuple[Decoder, ...] = (upstream.decode_batch, upstream.decode_ack, status.decode_status)
CONTENT_TYPES = st.sampled_from([codec.JSON_TYPE, codec.ZSTD_TYPE, None, "text/plain"])
MESSAGES = st.one_of(
    lives().map(lambda live: messages.encode_live("t", live)),
    segments().map(lambda segment: messages.encode_segment("t", segment, 1)),
    heads().map(lambda head: messages.encode_head("t", head)),
    batches().map(lambda batch: upstream.encode_batch("t", batch, 1)),
    acks().map(lambda ack: upstream.encode_ack("t", ack, 1)),
    statuses().map(lambda found: status.encode_status("t", found)),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
many = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def read_or_refuse(message: Message) -> None:
    """Read it with each decoder; anything raised but ContractViolation is a failure of the test."""
    for decode in (*DECODERS, *UPSTREAM):
        try:
            found = decode("t", message)
        except ContractViolation as violation:
            assert violation.reason
            assert len(violation.detail) < 1_000, "a refusal never repeats a whole payload"
        else:
            if decode in UPSTREAM:
                assert found.store == parse_store_topic("t", message.topic)[1]
            else:
                assert found.stream == parse_topic("t", message.topic, BUILT_IN)[1]


@many
@given(lives())
def test_a_live_batch_is_read_as_it_was_written(live: messages.Live) -> None:
    assert messages.decode_live("t", messages.encode_live("t", live), BUILT_IN) == live


@many
@given(segments())
def test_a_segment_is_read_as_it_was_written(segment: messages.Segment) -> None:
    assert messages.decode_segment("t", messages.encode_segment("t", segment, 1), BUILT_IN) == segment


@many
@given(heads())
def test_a_head_is_read_as_it_was_written(head: messages.Head) -> None:
    assert messages.decode_head("t", messages.encode_head("t", head), BUILT_IN) == head


@many
@given(batches())
def test_an_outbox_batch_is_read_as_it_was_written(batch: upstream.OutboxBatch) -> None:
    assert upstream.decode_batch("t", upstream.encode_batch("t", batch, 1)) == batch


@many
@given(acks())
def test_an_ack_is_read_as_it_was_written(ack: upstream.Ack) -> None:
    assert upstream.decode_ack("t", upstream.encode_ack("t", ack, 1)) == ack


@many
@given(statuses())
def test_a_status_is_read_as_it_was_written(found: status.Status) -> None:
    assert status.decode_status("t", status.encode_status("t", found)) == found


@many
@given(JSON.map(json.dumps) | st.text(max_size=60))
def test_any_text_as_an_entrys_data_is_kept_or_refused(text: str) -> None:
    """What is kept is what it was, and is kept again as it is."""
    try:
        kept = checked_json(text)
    except ContractViolation:
        return
    assert json.loads(kept) == json.loads(text)
    assert checked_json(kept) == kept


@many
@given(st.binary(max_size=300), CONTENT_TYPES, st.text(max_size=40) | MESSAGES.map(lambda m: m.topic))
def test_random_bytes_are_refused(payload: bytes, content_type: str | None, topic: str) -> None:
    read_or_refuse(Message(topic, payload, content_type=content_type))


@many
@given(st.binary(max_size=300), MESSAGES)
def test_random_bytes_in_a_frame_are_refused(body: bytes, message: Message) -> None:
    read_or_refuse(replace(message, payload=zstandard.compress(body), content_type=codec.ZSTD_TYPE))


@many
@given(MESSAGES, st.data())
def test_damaged_bytes_are_read_or_refused(message: Message, data: st.DataObject) -> None:
    """Flip, cut, repeat and insert: on the payload as sent, and below the compression."""
    body = codec.unpack(message.payload, message.content_type)
    plain = data.draw(st.booleans())
    raw = bytearray(body if plain else message.payload)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        match data.draw(st.integers(0, 3)):
            case 0 if raw:
                raw[at] ^= data.draw(st.integers(1, 255))
            case 1:
                del raw[at : at + data.draw(st.integers(1, 20))]
            case 2:
                raw[at:at] = raw[at : at + 30]
            case _:
                raw[at:at] = data.draw(
                    st.binary(min_size=1, max_size=4) | st.sampled_from([b"\\u0000", b"NaN", b'"', b"["])
                )
    read_or_refuse(
        replace(message, payload=bytes(raw), content_type=codec.JSON_TYPE if plain else message.content_type)
    )


@many
@given(MESSAGES, JSON, st.data())
def test_any_json_in_any_place_is_read_or_refused(message: Message, value: Any, data: st.DataObject) -> None:
    """Replace one value, however deep, by another; what is then read is written again without loss."""
    body = json.loads(codec.unpack(message.payload, message.content_type))
    at: Any = body
    while True:
        places = list(at) if isinstance(at, dict) else list(range(len(at)))
        place = data.draw(st.sampled_from(places))
        if isinstance(at[place], list) and at[place] and data.draw(st.booleans()):
            at = at[place]
            continue
        at[place] = value
        break
    read_or_refuse(
        replace(message, payload=json.dumps(body).encode("utf-8", "surrogatepass"), content_type=codec.JSON_TYPE)
    )


@many
@given(st.text(max_size=60) | st.from_regex(r"t/(live|segment|head)/[a-z/0-9-]*"))
def test_any_topic_is_read_or_refused(topic: str) -> None:
    try:
        kind, stream, span = parse_topic("t", topic, BUILT_IN)
    except ContractViolation:
        return
    parts = ["t", kind, str(stream), *([f"{span[0]}-{span[1]}"] if span else [])]
    assert "/".join(parts) == topic


@many
@given(st.text(max_size=40))
def test_any_stream_name_is_read_or_refused(text: str) -> None:
    with suppress(ContractViolation):
        assert str(Stream.parse(text, BUILT_IN)) == text


@many
@given(JSON.map(json.dumps) | st.text(max_size=60) | st.from_regex(r"\[\[\d*,(null|\d*),\d*\](,\[\d*,\d*,\d*\])*\]"))
def test_any_schedule_text_is_read_or_refused(text: str) -> None:
    try:
        steps = schedule.load(text)
    except ContractViolation:
        return
    assert schedule.load(schedule.dump(steps)) == steps
