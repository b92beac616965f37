"""Streams and topics: `context/scope`, and the MQTT topics that carry one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from storelink.contract.contexts import CONTEXTS, Context
from storelink.contract.errors import ContractViolation

SCOPE_ALL = "all"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_CONTEXT = re.compile(r"[a-z](?:[a-z0-9_]{0,30}[a-z0-9])?")
_ROOT = re.compile(r"[a-z0-9-]{1,32}(?:/[a-z0-9-]{1,32}){0,2}")
_EPOCH = re.compile(r"[0-9a-f]{12}-[0-9a-f]{8}")
KINDS = ("live", "head", "segment")
STORE_KINDS = ("outbox", "ack", "status")


def checked_name(name: str, what: str) -> str:
    """Return `name` if it can stand in a topic: `[a-z0-9-]`, 1 to 32 characters, no dash at an end."""
    if not _NAME.fullmatch(name):
        raise ContractViolation(
            "bad_name",
            f"{what} {name[:40]!r} must be 1 to 32 of a-z, 0-9 and '-', not starting or ending in '-'",
            field=what,
        )
    return name


def checked_root(root: str) -> str:
    """Return `root` if it can lead every topic: one to three levels of `[a-z0-9-]`."""
    if not _ROOT.fullmatch(root):
        raise ContractViolation(
            "bad_name",
            f"root {root[:40]!r} must be one to three levels of a-z, 0-9 and '-'",
            field="root",
        )
    return root


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One sequence of changes: a context in a scope (`price/all`, `price/zone-west`)."""

    context: str
    scope: str

    def __str__(self) -> str:
        return f"{self.context}/{self.scope}"

    @property
    def declared(self) -> Context:
        return CONTEXTS[self.context]

    @classmethod
    def named(cls, text: str) -> Stream:
        """Read `context/scope` where the context may be one that only the other side declares; it has no `declared`."""
        context, _, scope = text.partition("/")
        if not _CONTEXT.fullmatch(context):
            raise ContractViolation("bad_stream", f"{text[:80]!r} is no context/scope", field="stream")
        return cls(context, checked_name(scope, "scope"))

    @classmethod
    def parse(cls, text: str) -> Stream:
        """Read `context/scope`. Raises ContractViolation for an unknown context or a bad scope."""
        context, slash, scope = text.partition("/")
        if not slash or context not in CONTEXTS:
            raise ContractViolation("bad_stream", f"{text[:80]!r} is not a declared context/scope", field="stream")
        return cls(context, checked_name(scope, "scope"))


def new_epoch(now_ms: int, entropy: int) -> str:
    """Name an incarnation of HQ's log; later ones sort after earlier ones."""
    return f"{now_ms:012x}-{entropy & 0xFFFFFFFF:08x}"


def is_epoch(text: str) -> bool:
    return _EPOCH.fullmatch(text) is not None


def live_topic(root: str, stream: Stream) -> str:
    return f"{root}/live/{stream}"


def head_topic(root: str, stream: Stream) -> str:
    return f"{root}/head/{stream}"


def segment_topic(root: str, stream: Stream, first: int, last: int) -> str:
    return f"{root}/segment/{stream}/{first}-{last}"


def store_topic(root: str, store_id: str, kind: str) -> str:
    """The topic of one store's `outbox`, `ack` or `status`; `+` for the store stands for all of them."""
    return f"{root}/store/{store_id}/{kind}"


def parse_store_topic(root: str, topic: str) -> tuple[str, str]:
    """Take a topic of the way back apart: (kind, store id)."""
    parts = topic.removeprefix(root + "/").split("/") if topic.startswith(root + "/") else []
    if len(parts) != 3 or parts[0] != "store" or parts[2] not in STORE_KINDS:
        raise ContractViolation("bad_topic", f"{topic[:120]!r} is no topic of the way back")
    return parts[2], checked_name(parts[1], "store id")


def parse_topic(root: str, topic: str) -> tuple[str, Stream, tuple[int, int] | None]:
    """Take a downstream topic apart: (kind, stream, range of a segment)."""
    parts = topic.removeprefix(root + "/").split("/") if topic.startswith(root + "/") else []
    if len(parts) not in (3, 4) or parts[0] not in KINDS or (len(parts) == 4) != (parts[0] == "segment"):
        raise ContractViolation("bad_topic", f"{topic[:120]!r} is no topic of this protocol")
    stream = Stream.parse(f"{parts[1]}/{parts[2]}")
    if len(parts) == 3:
        return parts[0], stream, None
    found = re.fullmatch(r"([1-9][0-9]{0,18})-([1-9][0-9]{0,18})", parts[3])
    if not found:
        raise ContractViolation("bad_topic", f"segment range {parts[3][:60]!r} must be first-last")
    return parts[0], stream, (int(found[1]), int(found[2]))


def rfc3339(ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, to the second below."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms // 1000))
