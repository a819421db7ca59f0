"""Pairs of measurements, and how much one side takes more than the other. Pure.

The bound is a percentile bootstrap: the pairs are drawn anew, with replacement, and the mean of their
differences is taken, 10,000 times; 95 of 100 of these means lie below it. No shape of the distribution
is assumed, which has a long tail on any machine that does something else too.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

__all__ = ["Pair", "Paired", "Spread", "paired"]

_RESAMPLES = 10_000
_SEED = 20
_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds, of each side, and the difference of the processor time that they took."""

    emma_s: float
    bare_s: float
    cpu_s: float

    @property
    def difference_s(self) -> float:
        return self.emma_s - self.bare_s


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        ordered = sorted(seconds)
        return cls(1e3 * statistics.median(ordered), 1e3 * _quantile(ordered, 0.95))


@dataclass(frozen=True, slots=True)
class Paired:
    """What pairs say: each side alone, and Emma's share of it.

    Attributes:
        mean_ms: of the difference.
        upper_ms: with a confidence of 95 % the mean lies below it.
        cpu_ms: mean of the difference in processor time, which a busy machine does not change much.
    """

    pairs: int
    emma: Spread
    bare: Spread
    difference: Spread
    mean_ms: float
    upper_ms: float
    cpu_ms: float


def paired(pairs: Sequence[Pair]) -> Paired:
    """Medians, 95th percentiles, and the mean difference with its bound."""
    differences = [pair.difference_s for pair in pairs]
    return Paired(
        pairs=len(pairs),
        emma=Spread.of([pair.emma_s for pair in pairs]),
        bare=Spread.of([pair.bare_s for pair in pairs]),
        difference=Spread.of(differences),
        mean_ms=1e3 * statistics.fmean(differences),
        upper_ms=1e3 * _upper_bound(differences),
        cpu_ms=1e3 * statistics.fmean(pair.cpu_s for pair in pairs),
    )


def _upper_bound(differences: Sequence[float]) -> float:
    chance = random.Random(_SEED)
    count = len(differences)
    means = sorted(
        statistics.fmean(chance.choices(differences, k=count)) for _ in range(_RESAMPLES)
    )
    return _quantile(means, _CONFIDENCE)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
