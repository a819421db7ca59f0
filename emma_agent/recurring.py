"""What a student keeps getting wrong, and what one more lesson adds to it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from emma_agent.context import ErrorExample, RecurringError
from emma_agent.records import CorrectionRecord

__all__ = ["weightiest", "with_corrections"]

_EXAMPLES: Final = 3


def with_corrections(
    known: tuple[RecurringError, ...], corrections: tuple[CorrectionRecord, ...]
) -> tuple[RecurringError, ...]:
    """What keeps coming back, with the corrections of one more lesson counted in.

    Their order stays. A type of error that was not among them joins with its second correction.
    """
    now = Counter[str](correction.error_type for correction in corrections)
    counted = [_counted(error, corrections) if now[error.error_type] else error for error in known]
    before = {error.error_type for error in known}
    for error_type, count in now.most_common():
        if error_type not in before and count > 1:
            none = RecurringError(
                error_type=error_type, count=0, sessions=0, repaired=0, last_seen_at=0.0
            )
            counted.append(_counted(none, corrections))
    return tuple(counted)


def weightiest(corrections: Iterable[CorrectionRecord]) -> list[CorrectionRecord]:
    """Not yet said right before repaired, what hurts most first."""
    severities = ("major", "moderate", "minor")
    return sorted(corrections, key=lambda each: (each.repaired, severities.index(each.severity)))


def _counted(error: RecurringError, corrections: tuple[CorrectionRecord, ...]) -> RecurringError:
    ours = [noted for noted in corrections if noted.error_type == error.error_type]
    examples = [ErrorExample(said=noted.said, target=noted.target) for noted in reversed(ours)]
    return replace(
        error,
        count=error.count + len(ours),
        sessions=error.sessions + 1,
        repaired=error.repaired + sum(noted.repaired for noted in ours),
        last_seen_at=max(error.last_seen_at, *(noted.created_at for noted in ours)),
        examples=(*examples, *error.examples)[:_EXAMPLES],
    )
