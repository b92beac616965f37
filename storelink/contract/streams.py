"""Streams and topics: `context/scope`, and the MQTT topics that carry one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from storelink.contract.contexts import Context, Contexts
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
    """One sequence of changes: a context in a scope (`price/all`, `price/zone-west`).

    Streams are compared, ordered and hashed by `name`.
    """

    context: Context = field(compare=False, repr=False)
    scope: str = field(compare=False, repr=False)
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.context.name}/{self.scope}")

    def __hash__(self) -> int:
        return hash(self.name)  # a key of dictionaries for every message

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(cls, text: str, contexts: Contexts) -> Stream:
        """Read `context/scope`. Raises ContractViolation for an unknown context or a bad scope."""
        context, slash, scope = text.partition("/")
        if not slash or context not in contexts:
            raise ContractViolation("bad_stream", f"{text[:80]!r} is not a declared context/scope", field="stream")
        return cls(contexts[context], checked_name(scope, "scope"))


def check_stream_name(text: str) -> None:
    """Raise ContractViolation unless `text` is a `context/scope`; the context may be one of the other side only."""
    context, _, scope = text.partition("/")
    if not _CONTEXT.fullmatch(context):
        raise ContractViolation("bad_stream", f"{text[:80]!r} is no context/scope", field="stream")
    checked_name(scope, "scope")


def new_epoch(wall_ms: int, entropy: int) -> str:
    """Name an incarnation of HQ's log; later ones sort after earlier ones."""
    return f"{wall_ms:012x}-{entropy & 0xFFFFFFFF:08x}"


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
    """Take an upstream topic apart: (kind, store id)."""
    parts = topic.removeprefix(root + "/").split("/") if topic.startswith(root + "/") else []
    if len(parts) != 3 or parts[0] != "store" or parts[2] not in STORE_KINDS:
        raise ContractViolation("bad_topic", f"{topic[:120]!r} is no upstream topic")
    return parts[2], checked_name(parts[1], "store id")


def parse_topic(root: str, topic: str, contexts: Contexts) -> tuple[str, Stream, tuple[int, int] | None]:
    """Take a downstream topic apart: (kind, stream, range of a segment)."""
    parts = topic.removeprefix(root + "/").split("/") if topic.startswith(root + "/") else []
    if len(parts) not in (3, 4) or parts[0] not in KINDS or (len(parts) == 4) != (parts[0] == "segment"):
        raise ContractViolation("bad_topic", f"{topic[:120]!r} is no topic of this protocol")
    stream = Stream.parse(f"{parts[1]}/{parts[2]}", contexts)
    if len(parts) == 3:
        return parts[0], stream, None
    found = re.fullmatch(r"([1-9][0-9]{0,18})-([1-9][0-9]{0,18})", parts[3])
    if not found:
        raise ContractViolation("bad_topic", f"segment range {parts[3][:60]!r} must be first-last")
    return parts[0], stream, (int(found[1]), int(found[2]))
