"""What can go wrong at a store. Each class has one fate; `hint` says what the operator or technician types next.

    StorenodeError
    ├── BadArgument            refuse: an argument of a command or of the library
    ├── BadSettings            refuse: the configuration is wrong; the message lists every mistake
    ├── NotFound               refuse: what was asked for is not there
    ├── AlreadyRunning         refuse: another daemon has this replica
    ├── ReplicaError           the replica's file
    │   ├── ReplicaMissing     retry: there is no replica yet; the daemon makes it
    │   ├── ReplicaBusy        retry: another program keeps the file locked
    │   ├── ReplicaUnwritable  retry: disk full, no permission to read or write, IO error
    │   └── ReplicaDamaged     halt: not a replica, or a damaged one; the daemon replaces it
    ├── OutboxError            the outbox's file
    │   ├── OutboxBusy         retry: another program keeps the file locked
    │   ├── OutboxFull         refuse: this entry; the cap is reached or the disk is full; nothing is lost
    │   ├── OutboxUnwritable   retry: no permission, IO error
    │   └── OutboxDamaged      halt: not an outbox, or a damaged one; a technician must act
    ├── HookFailed             retry: the hook of price changes; nothing else waits for it
    ├── BackupFailed           refuse: no backup was made; the earlier ones are as they were
    ├── BackupUnsound          refuse: a file that is not a sound backup of a replica; nothing was restored
    └── OverridesUnknown       refuse: a backup has overrides that this store's outbox lacks; nothing was restored

Fates: *retry*: the same may succeed later, and what runs by itself tries again; *halt*: nothing is read from or written
to this file until it is replaced; *refuse*: this one command or entry, and nothing was changed. An entity that breaks a
rule is no error: the replica holds it in quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence


class StorenodeError(Exception):
    """
    The one base of the store's errors.

    Attributes:
        hint: what to type or check next; one line; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadArgument(StorenodeError):
    pass


class BadSettings(StorenodeError):
    pass


class NotFound(StorenodeError):
    pass


class AlreadyRunning(StorenodeError):
    pass


class ReplicaError(StorenodeError):
    """The replica cannot be used now; always one of the classes below it."""


class ReplicaMissing(ReplicaError):
    pass


class ReplicaBusy(ReplicaError):
    pass


class ReplicaUnwritable(ReplicaError):
    pass


class ReplicaDamaged(ReplicaError):
    pass


class OutboxError(StorenodeError):
    """The outbox cannot be used now; always one of the classes below it."""


class OutboxBusy(OutboxError):
    pass


class OutboxFull(OutboxError):
    pass


class OutboxUnwritable(OutboxError):
    pass


class OutboxDamaged(OutboxError):
    pass


class HookFailed(StorenodeError):
    pass


class BackupFailed(StorenodeError):
    pass


class BackupUnsound(StorenodeError):
    """
    Attributes:
        differences: what of its schema is not as storenode makes it, if it is that.
    """

    def __init__(self, message: str, *, hint: str = "", differences: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)


class OverridesUnknown(StorenodeError):
    """
    Attributes:
        skus: whose overrides they are.
    """

    def __init__(self, message: str, *, hint: str, skus: Sequence[str]) -> None:
        super().__init__(message, hint=hint)
        self.skus = tuple(skus)
