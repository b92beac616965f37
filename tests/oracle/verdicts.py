"""What an oracle found: the one answer that every check of files, rows and entries gives."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Verdict:
    """What was found wrong; nothing wrong, lost or doubled is a pass."""

    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0

    @property
    def ok(self) -> bool:
        return not self.wrong and not self.lost and not self.doubled

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(self.wrong + other.wrong, self.lost + other.lost, self.doubled + other.doubled)
