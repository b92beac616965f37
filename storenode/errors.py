"""What can go wrong at a store; every error says in `hint` what the technician does next.

StorenodeError
├── BadSettings       refuse: the configuration is wrong; all mistakes at once
├── BadArgument       refuse: an argument of a command
├── AlreadyRunning    refuse: another daemon has this replica
├── ReplicaMissing    refuse: there is no replica here yet
├── ReplicaBusy       retry: the file is locked by somebody else
├── ReplicaUnwritable retry: disk full, no permission, IO error
├── ReplicaDamaged    halt: not a replica, or a damaged one
├── OutboxFull        refuse: the outbox's cap is reached, or its disk is full; nothing in it is lost
├── OutboxBusy        retry: the outbox is locked by somebody else
├── OutboxUnwritable  retry: no permission, IO error
├── OutboxDamaged     halt: not an outbox, or a damaged one
├── HookFailed        retry: the hook of price changes; nothing else stops
├── BackupFailed      refuse: no backup was made; the earlier ones are as they were
├── BackupUnsound     refuse: a file that is not a whole backup of a replica; nothing was restored
├── OverridesUnknown  refuse: a backup has own prices that this store's outbox does not know; nothing was restored
└── NotFound          refuse: no such row
"""

from __future__ import annotations

from collections.abc import Sequence


class StorenodeError(Exception):
    """The one base of the store's errors. `hint`: what to type or check next; one line; may be empty."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadSettings(StorenodeError):
    pass


class BadArgument(StorenodeError):
    pass


class AlreadyRunning(StorenodeError):
    pass


class ReplicaMissing(StorenodeError):
    pass


class ReplicaBusy(StorenodeError):
    pass


class ReplicaUnwritable(StorenodeError):
    pass


class ReplicaDamaged(StorenodeError):
    pass


class OutboxFull(StorenodeError):
    pass


class OutboxBusy(StorenodeError):
    pass


class OutboxUnwritable(StorenodeError):
    pass


class OutboxDamaged(StorenodeError):
    pass


class HookFailed(StorenodeError):
    pass


class BackupFailed(StorenodeError):
    pass


class BackupUnsound(StorenodeError):
    """`differences`: what of its schema is not as storenode makes it, if it is that."""

    def __init__(self, message: str, *, hint: str = "", differences: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)


class OverridesUnknown(StorenodeError):
    """`skus`: whose own prices they are."""

    def __init__(self, message: str, *, hint: str, skus: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.skus = tuple(skus)


class NotFound(StorenodeError):
    pass
