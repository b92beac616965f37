"""The query side: a replica of HQ's catalog in every store, and the daemon that keeps it equal.

The public library; guide: docs/library-store.md. Documents that it returns: storenode/documents.py. Each name is loaded
when it is first used, so `import storenode` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storenode.catalog import Catalog, Snapshot, open_catalog
    from storenode.errors import (
        BadArgument,
        NotFound,
        OutboxBusy,
        OutboxDamaged,
        OutboxError,
        OutboxFull,
        OutboxUnwritable,
        ReplicaBusy,
        ReplicaDamaged,
        ReplicaError,
        ReplicaMissing,
        ReplicaUnwritable,
        StorenodeError,
    )
    from storenode.outbox_client import Outbox

__all__ = [
    "BadArgument",
    "Catalog",
    "NotFound",
    "Outbox",
    "OutboxBusy",
    "OutboxDamaged",
    "OutboxError",
    "OutboxFull",
    "OutboxUnwritable",
    "ReplicaBusy",
    "ReplicaDamaged",
    "ReplicaError",
    "ReplicaMissing",
    "ReplicaUnwritable",
    "Snapshot",
    "StorenodeError",
    "open_catalog",
]

_HOMES = {"Catalog": "catalog", "Snapshot": "catalog", "open_catalog": "catalog", "Outbox": "outbox_client"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
