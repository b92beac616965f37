"""What a stream of HQ must hold at every seq: the change sets that were asked for, folded here and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

Text = str | None
Key = tuple[str, ...]
Row = tuple[Text | int, ...]
State = dict[Key, Row]
"""Live rows `(seq, *keys, *values)` by key."""


def digest_of(state: State) -> str:
    """The digest that storelink/contract/README.md section 3 describes, by the standard library alone."""
    total = 0
    for row in state.values():
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        total += int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "big")
    return f"{total % (1 << 128):032x}"


@dataclass
class History:
    """One epoch of a stream: `log[seq - 1]` is the change of that seq, `ends` the seqs at which change sets end."""

    name: str
    epoch: str
    log: list[tuple[Key, Row | None]] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    _now: dict[Key, Row] = field(default_factory=dict, repr=False)
    _states: dict[int, State] = field(default_factory=lambda: {0: {}}, repr=False)

    @property
    def head(self) -> int:
        """The seq at which the newest change set ends."""
        return self.ends[-1]

    def ask(self, changes: Iterable[tuple[Key, Row | None]]) -> int:
        """
        HQ is asked for a change set, and refuses nothing; returns how many events that must make.

        A change to what is so already makes none; a second change of an entity is compared with the first.
        """
        before = len(self.log)
        for key, values in changes:
            if self._now.get(key) == values:
                continue
            if values is None:
                del self._now[key]
            else:
                self._now[key] = values
            self.log.append((key, values))
        if len(self.log) > before:
            self.ends.append(len(self.log))
        return len(self.log) - before

    def state_at(self, seq: int) -> State:
        """The live rows after the change of `seq`; not to be altered."""
        if seq not in self._states:
            start = max(known for known in self._states if known <= seq)
            state = dict(self._states[start])
            for number, (key, values) in enumerate(self.log[start:seq], start + 1):
                if values is None:
                    del state[key]
                else:
                    state[key] = (number, *key, *values)
            self._states[seq] = state
        return self._states[seq]

    def restored_in(self, epoch: str, seq: int) -> History:
        """What HQ holds once a copy that was made at `seq` is put back; it goes on in another epoch."""
        ends = [end for end in self.ends if end <= seq]
        found = History(self.name, epoch, self.log[: ends[-1]], ends)
        found._now = {key: row[1 + len(key) :] for key, row in self.state_at(ends[-1]).items()}
        return found
