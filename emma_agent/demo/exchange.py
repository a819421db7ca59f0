"""What the student said and heard."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Exchange", "Heard", "Said"]


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence of the student; Unix seconds of its first and last sound."""

    text: str
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer of Emma as it reached the student; Unix seconds of its first and last sound."""

    text: str
    started_at: float
    ended_at: float


Exchange = Said | Heard
