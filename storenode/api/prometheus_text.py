"""The text that Prometheus reads (exposition format 0.0.4), and the one histogram in it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

Labels = Mapping[str, str]
Sample = tuple[Labels, float | int | None]


def family(name: str, kind: str, told: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of one metric; a sample of None, which nobody knows, is left out, and so is a metric without any."""
    lines = [_line(name, labels, value) for labels, value in samples if value is not None]
    if lines:
        yield from _header(name, kind, told)
        yield from lines


def gauge(name: str, told: str, value: float | int | None) -> Iterator[str]:
    """The lines of a metric of one sample without labels."""
    return family(name, "gauge", told, [({}, value)])


@dataclass(slots=True)
class Histogram:
    """How long something took, counted in `BUCKETS_S` by one label's value; grows with that label's values only."""

    label: str
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _sums_s: dict[str, float] = field(default_factory=dict)

    def observe(self, value: str, took_s: float) -> None:
        counts = self._counts.setdefault(value, [0] * (len(BUCKETS_S) + 1))
        counts[bisect_left(BUCKETS_S, took_s)] += 1
        self._sums_s[value] = self._sums_s.get(value, 0.0) + took_s

    def lines(self, name: str, told: str) -> Iterator[str]:
        if not self._counts:
            return
        yield from _header(name, "histogram", told)
        for value, counts in self._counts.items():
            labels, so_far = {self.label: value}, 0
            for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), counts, strict=True):
                so_far += count
                yield _line(f"{name}_bucket", labels | {"le": bound}, so_far)
            yield _line(f"{name}_sum", labels, self._sums_s[value])
            yield _line(f"{name}_count", labels, so_far)


def page(parts: Sequence[Iterable[str]]) -> bytes:
    """All lines as Prometheus wants them: each ended by a line feed."""
    return "".join(f"{line}\n" for part in parts for line in part).encode()


def _header(name: str, kind: str, told: str) -> tuple[str, str]:
    return f"# HELP {name} {told}", f"# TYPE {name} {kind}"


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
