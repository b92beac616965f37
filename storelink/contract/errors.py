"""The one error of the contract: bytes or values that break it."""

from __future__ import annotations


class ContractViolation(Exception):
    """Something does not follow the contract; nothing of it may be used.

    Attributes:
        reason: a short constant word to count by (`oversized`, `bad_json`, `wrong_type`, ...).
        detail: what exactly, for a person; never holds a whole payload.
        field: the field at fault, where one can be named.
    """

    def __init__(self, reason: str, detail: str, *, field: str | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.field = field
