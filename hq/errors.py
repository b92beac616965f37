"""What can go wrong at HQ. Every error says in `hint` what the operator types next.

The fate of an error goes by its class. *refuse*: this command does nothing, and says why. *retry*: the cause passes by
itself; `hq run` tries again, a command is typed again. *halt*: a person must act first. What comes from a store or a
broker and cannot be read is no error of these: it is rejected with a `ContractViolation`, and the rest goes on.

HqError
├── BadSettings        refuse: the configuration is wrong; all mistakes at once
├── BadField           refuse: one field of a change, or one argument, is wrong
├── BadFeed            refuse: a feed that cannot be read, or one bad row of it
├── GuardTripped       refuse: an import would delete or change more than its guards allow
├── NotPublished       refuse: the broker does not have a change in time; the change itself is committed
├── BackupRefused      refuse: a copy of the master that is not sound, or a file that is in its way
├── AlreadyRunning     refuse: another `hq run` has this master
├── MasterMissing      refuse: no master at this path
├── ContextDiffers     refuse: a context is declared here otherwise than in the master
├── MasterBusy         retry: another command holds the master for too long
├── InboxUnwritable    retry: the inbox's disk is full, or refuses; nothing is acknowledged meanwhile
├── MasterUnwritable   halt: disk full, no permission, IO error
├── InboxDamaged       halt: not an inbox, or a damaged one
└── MasterDamaged      halt: not a master, or a damaged one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class HqError(Exception):
    """The one base of HQ's errors.

    Attributes:
        hint: what to type or check next; one line; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadSettings(HqError):
    pass


class BadField(HqError):
    """One field of a change, or one argument, is wrong.

    Attributes:
        field: its name as it was typed; empty if it is about all of the row.
        problem: what is wrong with it.
    """

    def __init__(self, field: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{field}: {problem}" if field else problem, hint=hint)
        self.field = field
        self.problem = problem


class BadFeed(HqError):
    """A feed is wrong.

    Attributes:
        file: its name.
        line: the line at fault, from 1; 0 if it is about all of the file.
        field: the column or field at fault, or empty.
    """

    def __init__(self, file: str, line: int, field: str, problem: str, *, hint: str = "") -> None:
        place = file + (f", line {line}" if line else "") + (f", field {field}" if field else "")
        super().__init__(f"{place}: {problem}", hint=hint)
        self.file = file
        self.line = line
        self.field = field


class GuardTripped(HqError):
    """An import would do more than its guards allow.

    Attributes:
        guard: which one, by the name that `hq import --json` gives it.
        plan: the `hq.ImportPlan` that was refused.
    """

    def __init__(self, guard: str, message: str, *, hint: str, plan: Any) -> None:
        super().__init__(message, hint=hint)
        self.guard = guard
        self.plan = plan


class NotPublished(HqError):
    pass


class BackupRefused(HqError):
    """A copy that is not sound.

    Attributes:
        differences: what of its schema is not as hq makes it, if it is that.
    """

    def __init__(self, message: str, *, hint: str = "", differences: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)


class AlreadyRunning(HqError):
    pass


class MasterMissing(HqError):
    pass


class ContextDiffers(HqError):
    pass


class MasterBusy(HqError):
    pass


class MasterUnwritable(HqError):
    pass


class InboxUnwritable(HqError):
    pass


class InboxDamaged(HqError):
    pass


class MasterDamaged(HqError):
    pass
