"""How long a text is for a language model, and how it is made shorter. Pure."""

from __future__ import annotations

import math

__all__ = ["clipped", "on_one_line", "tokens_in"]


def tokens_in(text: str) -> int:
    """How many tokens `text` takes, estimated: a quarter of its ASCII characters, and all others.

    There is no vocabulary on the machine to count with. Measured with o200k: English prose takes
    0.9 of it, Japanese and German 0.7, Arabic 0.3; runs of digits or symbols up to twice as many.
    """
    # Not one by one: instructions are counted between what a student says and Emma's answer.
    ascii_characters = len(text.encode("ascii", errors="ignore"))
    return math.ceil(ascii_characters / 4 + (len(text) - ascii_characters))


def clipped(text: str, most: int) -> str:
    """At most `most` characters of it."""
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def on_one_line(text: str, most: int) -> str:
    """The same, without line breaks, and with single blanks."""
    return clipped(" ".join(text[: 8 * most].split()), most)
