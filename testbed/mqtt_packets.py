"""The few packets of MQTT 5 that a subscriber needs, made and read without copying payloads.

Source: OASIS "MQTT Version 5.0", chapters 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14
PINGREQ_PACKET = b"\xc0\x00"
DISCONNECT_PACKET = b"\xe0\x00"
LENGTH_BYTES_MAX = 4
HEADER_BYTES_MIN = 2

_CLEAN_START = 2
_SESSION_EXPIRY, _PACKET_MAXIMUM = 0x11, 0x27
_CONTENT_TYPE, _USER_PROPERTY, _SUBSCRIPTION_ID = 0x03, 0x26, 0x0B
_FIXED_BYTES = {0x01: 1, 0x02: 4, 0x23: 2}
_ONE_TEXT = {0x08, 0x09}


class BadPacket(Exception):
    """Bytes that are no packet of MQTT 5, or none that a subscriber gets."""


@dataclass(frozen=True, slots=True)
class Publish:
    """A PUBLISH as it came; `payload` lies in the receiver's buffer and is gone when that is used again."""

    topic: str
    payload: memoryview
    qos: int
    packet_id: int
    content_type: str | None


def connect(client_id: str, keepalive_s: int, packet_bytes_max: int) -> bytes:
    """As a store connects: without a Receive Maximum, which would stand in for mosquitto's max_inflight_messages."""
    properties = bytes([_SESSION_EXPIRY, 0, 0, 0, 0, _PACKET_MAXIMUM]) + packet_bytes_max.to_bytes(4, "big")
    head = _text("MQTT") + bytes([5, _CLEAN_START]) + keepalive_s.to_bytes(2, "big")
    return _packet(0x10, head + _length(len(properties)) + properties + _text(client_id))


def subscribe(packet_id: int, topics: Sequence[str], qos: int) -> bytes:
    return _packet(0x82, packet_id.to_bytes(2, "big") + b"\0" + b"".join(_text(t) + bytes([qos]) for t in topics))


def unsubscribe(packet_id: int, topics: Sequence[str]) -> bytes:
    return _packet(0xA2, packet_id.to_bytes(2, "big") + b"\0" + b"".join(map(_text, topics)))


def publish(packet_id: int, topic: str, payload: bytes, *, retain: bool) -> bytes:
    """A PUBLISH at QoS 1 without properties."""
    return _packet(0x32 | int(retain), _text(topic) + packet_id.to_bytes(2, "big") + b"\0" + payload)


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def split(buffer: memoryview) -> tuple[int, int, int] | None:
    """The first packet of a buffer: (first byte, start of its body, end); None while it is incomplete."""
    if len(buffer) < HEADER_BYTES_MIN:
        return None
    found = _read_length(buffer, 1)
    if found is None or found[1] + found[0] > len(buffer):
        return None
    length, start = found
    return buffer[0], start, start + length


def read_publish(first: int, body: memoryview) -> Publish:
    qos, at = first >> 1 & 3, 2 + int.from_bytes(body[:2], "big")
    topic, packet_id = str(body[2:at], "utf-8"), 0
    if qos:
        packet_id, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    found = _read_length(body, at)
    if found is None:
        raise BadPacket("a PUBLISH ends within its properties")
    end = found[1] + found[0]
    return Publish(topic, body[end:], qos, packet_id, _content_type(body[found[1] : end]))


def reason_codes(body: memoryview) -> bytes:
    """The reason codes of a SUBACK or UNSUBACK."""
    found = _read_length(body, 2)
    if found is None:
        raise BadPacket("an acknowledgement ends within its properties")
    return bytes(body[found[1] + found[0] :])


def _content_type(properties: memoryview) -> str | None:
    at = 0
    while at < len(properties):
        ident, at = properties[at], at + 1
        if ident in _FIXED_BYTES:
            at += _FIXED_BYTES[ident]
        elif ident == _SUBSCRIPTION_ID:
            found = _read_length(properties, at)
            at = found[1] if found else len(properties)
        elif ident == _CONTENT_TYPE:
            return str(properties[at + 2 : at + 2 + int.from_bytes(properties[at : at + 2], "big")], "utf-8")
        elif ident == _USER_PROPERTY or ident in _ONE_TEXT:
            for _ in range(2 if ident == _USER_PROPERTY else 1):
                at += 2 + int.from_bytes(properties[at : at + 2], "big")
        else:
            raise BadPacket(f"property {ident} in a PUBLISH")
    return None


def _packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + _length(len(body)) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _length(number: int) -> bytes:
    found = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        found.append(low | 0x80 if number else low)
        if not number:
            return bytes(found)


def _read_length(buffer: memoryview, at: int) -> tuple[int, int] | None:
    """A variable byte integer and where it ends; None if the buffer ends first."""
    number = 0
    for place in range(LENGTH_BYTES_MAX):
        if at + place >= len(buffer):
            return None
        byte = buffer[at + place]
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise BadPacket("a length of more than four bytes")
