"""Which time the store's prices go by: this machine's clock, checked against HQ's. No clock in here.

The estimator. Every live message says when HQ made it (`at_ms`). It can only be delayed on its way, so `at_ms` minus
the machine's steady clock (which nobody sets) is never more than HQ's clock is ahead of that steady clock. The largest
such lead among the messages of the last two minutes is the best, and a lower bound. HQ's time is the steady clock plus
that lead, also while the line is down and whatever is done to the wall clock. It counts as an estimate once messages of
five different seconds over 20 s came while the stream was live; a single message, and a retained head, is a bound only:
HQ's time is not earlier. A lead over a minute above the median of the two minutes is left out, and a bound further in
the future than the hold: one message does not move the time of a chain's prices.

The rules; `known` is the newest of HQ's times that this store knows of, carried on by the steady clock.

| HQ heard well since the machine started | the wall clock is            | prices go by        | verdict       |
|-----------------------------------------|------------------------------|---------------------|---------------|
| yes                                     | within 60 s of HQ's          | the wall clock      | `ok`          |
| yes                                     | further off                  | HQ's time           | `corrected`   |
| no                                      | plausible if corrected as before | that            | `corrected`   |
| no                                      | up to a day past `known`     | the wall clock      | `unconfirmed` |
| no                                      | up to `hold` past `known`    | the wall clock      | `suspect`     |
| no                                      | further past `known`         | `known`             | `held`        |
| no                                      | over 60 s before `known`     | `known`             | `behind`      |

In no case do prices go by a time before `known`. The steady clock drifts: an estimate loses 1 ms in 5 s of its age.
What was `suspect` stays so until HQ is heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

OK, CORRECTED, UNCONFIRMED, SUSPECT, HELD, BEHIND = "ok", "corrected", "unconfirmed", "suspect", "held", "behind"

SKEW_MS_MAX = 60_000
WINDOW_MS = 120_000
SETTLED_SAMPLES, SETTLED_MS = 5, 20_000
SAMPLE_EVERY_MS = 1_000
DRIFT_SHARE = 5_000
"""The steady clock is right to one part in so many, generously (200 ppm)."""

SUSPECT_AFTER_MS = 86_400_000
DAY_MS = 86_400_000
NEVER_MS = 2**50
"""In place of a hold: later than any clock."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What the store last wrote down about its clock; times since 1970 but for `steady_ms` and `heard_ms`.

    `wall_ms` is what the wall clock showed when `known_ms` was so; `correction_ms` is to be added to it. `skew_ms`: how
    far it was ahead of HQ's, None where that was not measured. `lead_ms` and `heard_ms` (by the steady clock of the
    machine's start `boot`): the estimate and when it was last confirmed; None without one.
    """

    known_ms: int
    wall_ms: int
    correction_ms: int
    skew_ms: int | None
    verdict: str
    hold_ms: int
    boot: str
    steady_ms: int
    lead_ms: int | None = None
    heard_ms: int | None = None


class Clock:
    """Judges one machine's wall clock, from one start of the daemon on. `past`: the last mark, of whichever start."""

    def __init__(self, boot: str, steady_ms: int, past: Mark | None, hold_ms: int) -> None:
        self._boot, self._began_ms, self._past, self._hold_ms = boot, steady_ms, past, hold_ms
        self._samples: deque[tuple[int, int]] = deque()
        self._bound: int | None = None
        self._lead: int | None = None
        self._heard_ms = 0
        if past is not None and past.boot == boot != "" and past.lead_ms is not None and past.heard_ms is not None:
            self._lead, self._heard_ms = past.lead_ms, past.heard_ms

    def heard(self, at_ms: int, steady_ms: int, *, live: bool) -> None:
        """A message came that HQ made at `at_ms`. `live`: just now, on a stream that has nothing to catch up with."""
        lead, known_ms = at_ms - steady_ms, self._known(steady_ms)
        if known_ms is None or known_ms < at_ms <= known_ms + self._hold_ms:
            self._bound = lead
        if self._lead is not None and 0 <= lead - self._lead <= SKEW_MS_MAX:
            self._lead, self._heard_ms = lead, steady_ms
        if not live:
            return
        if not self._sample(steady_ms, lead):
            return
        span_ms = self._samples[-1][0] - self._samples[0][0]
        if len(self._samples) >= SETTLED_SAMPLES and span_ms >= SETTLED_MS:
            leads = sorted(lead for _, lead in self._samples)
            usual = leads[len(leads) // 2] + SKEW_MS_MAX
            self._lead, self._heard_ms = max(lead for lead in leads if lead <= usual), steady_ms

    def read(self, steady_ms: int, wall_ms: int) -> Mark | None:
        """Judge the wall clock now; None while nothing is known of HQ's time."""
        if self._lead is not None:
            return self._compared(self._lead, steady_ms, wall_ms)
        known_ms = self._known(steady_ms)
        return None if known_ms is None else self._weighed(known_ms, steady_ms, wall_ms)

    def _sample(self, steady_ms: int, lead: int) -> bool:
        """Keep the best of each second; False when this one tells nothing new."""
        if self._samples and steady_ms - self._samples[-1][0] < SAMPLE_EVERY_MS:
            at_ms, last = self._samples[-1]
            if lead <= last:
                return False
            self._samples[-1] = (at_ms, lead)
        else:
            self._samples.append((steady_ms, lead))
        while steady_ms - self._samples[0][0] > WINDOW_MS:
            self._samples.popleft()
        return True

    def _known(self, steady_ms: int) -> int | None:
        """HQ's time is not earlier than this."""
        found = []
        if self._past is not None:
            found.append(self._past.known_ms + steady_ms - self._began_ms)
        if self._bound is not None:
            found.append(self._bound + steady_ms)
        return max(found, default=None)

    def _compared(self, lead: int, steady_ms: int, wall_ms: int) -> Mark:
        drift_ms = (steady_ms - self._heard_ms) // DRIFT_SHARE
        skew_ms = wall_ms - steady_ms - lead
        wrong = abs(skew_ms) > SKEW_MS_MAX + drift_ms
        return Mark(
            steady_ms + lead - drift_ms,
            wall_ms,
            -skew_ms if wrong else 0,
            skew_ms,
            CORRECTED if wrong else OK,
            self._hold_ms,
            self._boot,
            steady_ms,
            lead,
            self._heard_ms,
        )

    def _weighed(self, known_ms: int, steady_ms: int, wall_ms: int) -> Mark:
        """Without an estimate: is the wall clock plausible, corrected as before or as it is?"""
        past, skew_ms = self._past, None
        corrections = [0]
        if past is not None and past.correction_ms:
            corrections.insert(0, past.correction_ms)
        plausible = [c for c in corrections if -SKEW_MS_MAX <= wall_ms + c - known_ms <= self._hold_ms]
        if plausible:
            correction_ms = plausible[0]
            beyond = wall_ms + correction_ms - known_ms > SUSPECT_AFTER_MS
            doubtful = beyond or (past is not None and past.verdict == SUSPECT)
            verdict = CORRECTED if correction_ms else SUSPECT if doubtful else UNCONFIRMED
            known_ms = max(known_ms, wall_ms + correction_ms)
        else:
            verdict = BEHIND if wall_ms < known_ms else HELD
            correction_ms = known_ms - wall_ms
            skew_ms = wall_ms - known_ms if verdict == BEHIND else None
        return Mark(known_ms, wall_ms, correction_ms, skew_ms, verdict, self._hold_ms, self._boot, steady_ms)
