"""HQ, the command side: one master catalog, and the daemon that publishes it.

The public library is `Catalog`, its results and its errors, by these names; everything else may change. See
docs/library-hq.md. Importing `hq` imports nothing of it yet: each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hq.catalog import Catalog, ChangeSet, Imported
    from hq.collect.fleet import StoreStatus
    from hq.collect.inbox import InboxEntry
    from hq.collect.overrides import StoreOverride
    from hq.core.guard import Refused
    from hq.errors import (
        AlreadyRunning,
        BackupRefused,
        BadFeed,
        BadField,
        BadSettings,
        ContextDiffers,
        GuardTripped,
        HqError,
        InboxDamaged,
        InboxUnwritable,
        MasterBusy,
        MasterDamaged,
        MasterMissing,
        MasterUnwritable,
        NotPublished,
    )
    from hq.feeds.plan import Impact, ImportPlan
    from hq.lookup import Found, Prices
    from hq.master.records import Committed, StreamRow
    from hq.status import LoggedEvent, Status, StreamStatus, Verification

_HOME_OF = {
    "Catalog": "hq.catalog",
    "ChangeSet": "hq.catalog",
    "Committed": "hq.master.records",
    "Found": "hq.lookup",
    "Impact": "hq.feeds.plan",
    "ImportPlan": "hq.feeds.plan",
    "Imported": "hq.catalog",
    "InboxEntry": "hq.collect.inbox",
    "LoggedEvent": "hq.status",
    "Prices": "hq.lookup",
    "Refused": "hq.core.guard",
    "Status": "hq.status",
    "StoreOverride": "hq.collect.overrides",
    "StoreStatus": "hq.collect.fleet",
    "StreamRow": "hq.master.records",
    "StreamStatus": "hq.status",
    "Verification": "hq.status",
}

__all__ = [
    "AlreadyRunning",
    "BackupRefused",
    "BadFeed",
    "BadField",
    "BadSettings",
    "Catalog",
    "ChangeSet",
    "Committed",
    "ContextDiffers",
    "Found",
    "GuardTripped",
    "HqError",
    "Impact",
    "ImportPlan",
    "Imported",
    "InboxDamaged",
    "InboxEntry",
    "InboxUnwritable",
    "LoggedEvent",
    "MasterBusy",
    "MasterDamaged",
    "MasterMissing",
    "MasterUnwritable",
    "NotPublished",
    "Prices",
    "Refused",
    "Status",
    "StoreOverride",
    "StoreStatus",
    "StreamRow",
    "StreamStatus",
    "Verification",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME_OF.get(name, "hq.errors")), name)
