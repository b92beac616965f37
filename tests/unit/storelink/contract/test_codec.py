"""Payloads that must be refused: one case for each way in which bytes can lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
import zstandard

from storelink.contract import codec, limits
from storelink.contract.contexts import BUILT_IN
from storelink.contract.errors import ContractViolation
from storelink.contract.messages import Live, Message, decode_live, encode_live
from storelink.contract.rows import EMPTY, hash_of, row_hash, to_hex
from storelink.contract.streams import Stream

PRICES = Stream.parse("price/all", BUILT_IN)
ROW = (1, "4011", "regular", "EUR", "[[1767225600,null,199]]")
LIVE = Live(
    PRICES,
    "019b76da1000-5f3c9a01",
    1,
    1,
    EMPTY,
    to_hex(row_hash(ROW)),
    True,
    1767225600000,
    [ROW],
    [],
    [["currency", "schedule"]],
)
MESSAGE = encode_live("t", LIVE)
BODY = codec.unpack(MESSAGE.payload, MESSAGE.content_type)
JSON, ZSTD = codec.JSON_TYPE, codec.ZSTD_TYPE


def reason(payload: bytes, content_type: str | None = JSON, topic: str = MESSAGE.topic) -> str:
    with pytest.raises(ContractViolation) as caught:
        decode_live("t", Message(topic, payload, content_type=content_type), BUILT_IN)
    return caught.value.reason


def held(payload: bytes) -> str:
    """Why the one row of a batch is held."""
    found = decode_live("t", Message(MESSAGE.topic, payload, content_type=JSON), BUILT_IN)
    (row,) = found.held
    assert (found.rows, found.changed, row.seq, row.key) == ([], [], 1, ("4011", "regular"))
    return row.reason


def with_first(text: str) -> bytes:
    assert BODY.count(b'"first":1,') == 1
    return BODY.replace(b'"first":1,', f'"first":{text},'.encode())


def with_sku(raw: bytes) -> bytes:
    assert BODY.count(b'"4011"') == 1
    return BODY.replace(b'"4011"', raw)


def with_schedule(text: str) -> bytes:
    return BODY.replace(msgspec.json.encode(ROW[4]), json.dumps(text).encode())


def test_what_was_written_is_read() -> None:
    assert decode_live("t", MESSAGE, BUILT_IN) == LIVE


@pytest.mark.parametrize(
    "text", ["1.0", "1e0", "true", "null", '"1"', "9223372036854775808", "-1", "0", "[1]", "{}", "NaN", "Infinity"]
)
def test_a_number_is_a_plain_integer_of_63_bits(text: str) -> None:
    assert reason(with_first(text)) in {"wrong_type", "bad_json", "bad_range"}


@pytest.mark.parametrize(
    "text", ["NaN", "-Infinity", '{"a":1,"a":1}', '[{"a":[{"b":0,"b":0}]}]', "[" * 9000 + "]" * 9000]
)
def test_members_that_are_ignored_must_be_strict_json_all_the_same(text: str) -> None:
    assert reason(with_first(f'1,"later":{text}')) in {"wrong_type", "bad_json", "duplicate_key"}


def test_a_member_that_a_later_minor_version_adds_is_ignored() -> None:
    later = with_first('1,"later":{"x":[1.5,null]}').replace(b'"version":"1.0"', b'"version":"1.7"')
    assert decode_live("t", Message(MESSAGE.topic, later, content_type=JSON), BUILT_IN) == LIVE


@pytest.mark.parametrize("version", ["2.0", "0.9", "1", "1.", "1.x", "1.0.1", "1.\u0663", "1.0\n", ""])
def test_another_version_is_refused(version: str) -> None:
    assert reason(BODY.replace(b'"1.0"', json.dumps(version).encode())) == "version"


@pytest.mark.parametrize("extra", ['1,"first":1', '1,"rows":[]', '1,"\\u0066irst":2', '1,"version":"1.0"'])
def test_a_key_given_twice_is_refused(extra: str) -> None:
    assert reason(with_first(extra)) == "duplicate_key"


@pytest.mark.parametrize("extra", [b"x", b"{}", b"\0", BODY])
def test_bytes_behind_the_value_are_refused(extra: bytes) -> None:
    assert reason(BODY + extra) == "wrong_type"


@pytest.mark.parametrize(
    "raw",
    [
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
        b'"a\\\\\\u0000"',
        b'"\x00"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\xc0\x80"',
        b'""',
    ],
)
def test_text_that_sqlite_cannot_hold_is_refused(raw: bytes) -> None:
    assert reason(with_sku(raw)) in {"wrong_type", "bad_json"}


def test_a_backslash_before_u0000_is_only_text() -> None:
    """HQ once could have stored it, and every store would have refused the batch for ever."""
    live = decode_live("t", Message(MESSAGE.topic, with_sku(b'"\\\\u0000"'), content_type=JSON), BUILT_IN)
    assert live.rows[0][1] == "\\u0000"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[[]]",
        "[[1,null,1]]\n",
        " [[1,null,1]]",
        "[[01,null,1]]",
        "[[\u0661,null,1]]",
        "[[1,null,-1]]",
        "[[1,null,1.5]]",
        "[[5,5,1]]",
        "[[5,4,1]]",
        "[[1,9,1],[5,null,2]]",
        "[[1,null,1],[5,null,2]]",
        "[[9,null,1],[1,2,2]]",
        "[[1,null,1,1]]",
        "[" + ",".join(f"[{n},{n + 1},1]" for n in range(limits.STEPS_MAX + 1)) + "]",
    ],
)
def test_a_schedule_is_sorted_and_never_overlaps(text: str) -> None:
    """A reader computes prices from it in SQL, where it cannot refuse."""
    assert held(with_schedule(text)).startswith("schedule: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"regular"', b'"gift"'),
        (b'"regular"', b'"regular\\n"'),
        (b'"EUR"', b"199"),
        (b'"EUR"', b'["EUR"]'),
        (EMPTY.encode(), EMPTY.encode() + b"\\n"),
        (EMPTY.encode(), EMPTY.encode()[:-1] + b"G"),
        (b"5f3c9a01", b"5f3c9a01\\n"),
        (b'["currency","schedule"]', b'["amount"]'),
        (b'"price/all"', b'"price/zone-west"'),
        (b'["seq","sku",', b'["sku","seq",'),
        (b'"commit":true', b'"commit":1'),
    ],
)
def test_a_value_outside_its_declaration_is_refused(old: bytes, new: bytes) -> None:
    assert BODY.count(old) == 1
    assert reason(BODY.replace(old, new)) in {"wrong_type", "columns", "wrong_stream"}


@pytest.mark.parametrize("new", [b'"eur"', b'"EU\\n"', b"null", b'""', b'"EURO"'])
def test_a_text_that_breaks_a_rule_is_held_and_not_the_message_refused(new: bytes) -> None:
    assert BODY.count(b'"EUR"') == 1
    assert held(BODY.replace(b'"EUR"', new))


def test_what_is_held_counts_in_the_digest_as_hq_wrote_it() -> None:
    bad = (1, "4011", "regular", "€", "[[1767225600,null,199]]")
    found = decode_live("t", encode_live("t", replace(LIVE, rows=[bad])), BUILT_IN)
    assert hash_of(found.held[0].row.encode()) == row_hash(bad)


@pytest.mark.parametrize("rows", ["[]", "[[2,%s],[1,%s]]", "[[1,%s],[1,%s]]", "[[1,%s],[3,%s]]", "[[2,%s]]"])
def test_a_batch_holds_exactly_the_seqs_it_says(rows: str) -> None:
    rest = json.dumps(ROW[1:])[1:-1]
    raw = BODY.replace(msgspec.json.encode([ROW]), (rows.replace("%s", rest)).encode())
    assert raw != BODY
    assert reason(raw) == "bad_range"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "t",
        "t/live/price",
        "t/live/price/all/1-1",
        "t/head/price/all",
        "t/live/tax/all",
        "t/live/price/ALL",
        "t/live/price/all\n",
        "t//live/price/all",
        "u/live/price/all",
        "t/live/price/zone-west",
        "t/live/price/+",
        "t/live/product/all",
        "t/live/price/\ud800",
    ],
)
def test_a_message_under_a_foreign_topic_is_refused(topic: str) -> None:
    assert reason(MESSAGE.payload, MESSAGE.content_type, topic)


def frame(body: bytes, **options: bool) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(body)  # type: ignore[arg-type]


FRAME = frame(BODY)
DICTIONARY = zstandard.ZstdCompressionDict(BODY * 3, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
LIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "only a magic number": lambda: FRAME[:4],
    "no declared size": lambda: frame(BODY, write_content_size=False),
    "empty content": lambda: frame(b""),
    "cut short": lambda: FRAME[:-3],
    "a byte behind": lambda: FRAME + b"x",
    "a second frame": lambda: FRAME + FRAME,
    "a skippable frame first": lambda: b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + FRAME,
    "only a skippable frame": lambda: b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd",
    "a size too small": lambda: _resized(-1),
    "a size too large": lambda: _resized(+1),
    "a dictionary": lambda: zstandard.ZstdCompressor(dict_data=DICTIONARY).compress(BODY),
    "plain JSON": lambda: BODY,
}


def _resized(by: int) -> bytes:
    """The frame with another declared size: two bytes, less 256, after magic number and descriptor."""
    content = BODY + b" " * (300 - len(BODY) if len(BODY) < 300 else 0)
    raw = bytearray(frame(content))
    assert raw[4] & 0xC0 == 0x40
    raw[5:7] = (len(content) - 256 + by).to_bytes(2, "little")
    return bytes(raw)


@pytest.mark.parametrize("name", LIES)
def test_a_frame_that_lies_is_refused(name: str) -> None:
    assert reason(LIES[name](), ZSTD) == "bad_zstd"


def test_a_bomb_is_refused_by_what_it_declares() -> None:
    """zstandard allocates what a frame declares, whatever `max_output_size` says."""
    assert reason(frame(b"0" * (limits.BODY_BYTES_MAX + 1)), ZSTD) == "oversized"
    assert reason(bytes.fromhex("28b52ffd e0 0000000000000040 010000"), ZSTD) == "oversized"


def test_a_payload_beyond_the_limit_is_not_looked_at() -> None:
    assert reason(b"x" * (limits.MESSAGE_BYTES_MAX + 1), ZSTD) == "oversized"


@pytest.mark.parametrize("content_type", [None, "", "application/cloudevents+json", "APPLICATION/JSON", "text/plain"])
def test_another_content_type_is_refused(content_type: str | None) -> None:
    assert reason(BODY, content_type) == "content_type"


def test_what_is_packed_is_compressed_only_where_that_pays() -> None:
    small, large = b"{}", b'{"a":"' + b"x" * limits.COMPRESS_ABOVE_BYTES + b'"}'
    assert codec.pack(small) == (small, JSON)
    payload, content_type = codec.pack(large)
    assert (content_type, codec.unpack(payload, content_type)) == (ZSTD, large)
    assert len(payload) < len(large)
