"""Time that does not jump while a run lasts."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite

# What LiveKit's own stamps and a slewing clock may differ by without anything being wrong.
TOLERANCE_S = 2.0
# An item is stamped when its turn begins and announced when it was played to the end.
MAX_AGE_S = 900.0


def steady_time() -> float:
    """Seconds that never go back and go on while the machine sleeps, where the system can."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class RunClock:
    """Unix seconds as they were when the run began, plus the time that has passed since.

    A wall clock that is set while a lesson runs would tear its messages apart, since readers sort
    by `created_at`; so instants of one run are kept on one base.
    """

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_time,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self.started_at = wall()
        self.steady_at = steady()

    def now(self) -> float:
        """Unix seconds on the run's own base."""
        return self.started_at + (self._steady() - self.steady_at)

    def place(self, instant: float) -> float:
        """The instant on the run's base: as it is, unless the wall clock has jumped.

        After a jump it is not known whether LiveKit stamped the instant before or after it; the
        reading that makes it the younger is taken, and one that fits neither becomes now.
        """
        now = self.now()
        if not isfinite(instant):
            return now  # a stamp that is none costs no sentence
        skew = self._wall() - now
        if abs(skew) <= TOLERANCE_S:
            return instant
        if_before, if_after = now - instant, now + skew - instant
        ages = [age for age in (if_after, if_before) if -TOLERANCE_S <= age <= MAX_AGE_S]
        return now - max(0.0, min(ages)) if ages else now
