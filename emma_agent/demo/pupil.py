"""What the student of the short lesson says: an answer to what Emma says, by one rule at a time.

Whisper tiny.en hears each of these sentences without a fault, the one with the mistake too: it
repairs most mistakes of learners, and this one it leaves as it is. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["GOODBYE", "MISTAKE", "REPAIRED", "Pupil"]

MISTAKE: Final = "How many money do you have?"
REPAIRED: Final = "How much money do you have?"
GOODBYE: Final = "Goodbye Emma, see you next time."

# The first that fits what Emma said last. Where several answers stand, each is given once, and the
# last of them from then on.
_ANSWERS: Final[tuple[tuple[str, Sequence[str]], ...]] = (
    (r"goodbye", [GOODBYE]),
    (r"how are you|how is your day|how was your", ["Today is a good day."]),
    (r"barato|with cheap|is cheap", ["I think it is cheap."]),
    (r"did you like", ["Yes, I liked it very much."]),
    (r"how much money", [MISTAKE, REPAIRED]),
    (r"have a ticket", ["Can I have a ticket, please?"]),
    (r"two apples", ["Can I have two apples, please?"]),
)
_OTHERWISE: Final = "Yes, I like it."


@dataclass(slots=True)
class Pupil:
    """Remembers what was said already."""

    _given: dict[str, int] = field(default_factory=dict)

    def answer(self, heard: str) -> str:
        """What the student says to that; her last sentence asks, what comes before it may quote."""
        last = re.split(r"(?<=[.!?]) ", heard.strip())[-1]
        for text in (last, heard):
            for rule, answers in _ANSWERS:
                if re.search(rule, text, re.IGNORECASE):
                    given = self._given.get(rule, 0)
                    self._given[rule] = given + 1
                    return answers[min(given, len(answers) - 1)]
        return _OTHERWISE
