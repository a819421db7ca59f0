"""Tools for words: new ones, and how well those that are due were remembered.

A rating is about one attempt to remember one word that this student has met. What follows from it,
and when a word counts as mastered, Convex alone decides (FSRS).
"""

from __future__ import annotations

from typing import Final, Literal

from livekit.agents import RunContext, ToolError, function_tool

from emma_agent.lesson import LessonState
from emma_agent.prompt import by_use
from emma_agent.records import Rating
from emma_agent.teaching import MAX_NEW_WORDS, same_words
from emma_agent.tools.answers import as_json, checked

__all__ = ["TOOLS", "introduce_word", "rate_word"]

_RATINGS: Final[dict[str, Rating]] = {"again": 1, "hard": 2, "good": 3, "easy": 4}
_WORD: Final = 80


@function_tool
async def introduce_word(
    context: RunContext[LessonState],
    word: str,
    meaning: str | None = None,
    example: str | None = None,
) -> str:
    """Keep a word or short phrase that the student meets now, so that it comes back later.

    Args:
        word: As in a dictionary.
        meaning: In the student's own language, a few words.
        example: A short sentence with the word.
    """
    lesson = context.userdata
    word = _checked_word(word)
    if any(same_words(due.word) == same_words(word) for due in lesson.words_due):
        raise ToolError(
            f"The student has met {word!r} before and it is due: ask for it, then call rate_word."
        )
    known = lesson.knows_word(word)
    if not known and len(lesson.new_words) >= MAX_NEW_WORDS:
        raise ToolError("Enough new words for one lesson; practise those that were introduced.")
    met = lesson.introduce_word(
        word,
        meaning=checked("meaning", meaning) if meaning else None,
        example=checked("example", example) if example else None,
    )
    return as_json(word=met.word, already_introduced=known or None, new_today=len(lesson.new_words))


@function_tool
async def rate_word(
    context: RunContext[LessonState],
    word: str,
    rating: Literal["again", "hard", "good", "easy"],
) -> str:
    """Keep how well the student just remembered a word, after they tried to use it.

    Args:
        word: One that is due, or that was introduced in this lesson.
        rating: again if they did not know it; hard with help or long thought; good; easy at once.
    """
    lesson = context.userdata
    word = _checked_word(word)
    if not lesson.knows_word(word):
        due = [each.word for each in by_use(lesson.words_due, lesson.lesson)[:5]]
        raise ToolError(
            f"{word!r} is not due and was not introduced in this lesson, so it cannot be rated; "
            + (f"due are: {', '.join(due)}." if due else "call introduce_word first.")
        )
    if wait_s := lesson.rateable_in_s(word):
        raise ToolError(
            f"{word!r} was rated just now; it can be rated again in {int(wait_s // 60) + 1} minutes. "
            "Go on with another word."
        )
    review = lesson.rate_word(word, _RATINGS[rating])
    left = by_use(lesson.words_due, lesson.lesson)
    return as_json(
        rated=review.word,
        rating=rating,
        words_still_due=len(left),
        next_word=left[0].word if left else None,
    )


TOOLS: Final = (introduce_word, rate_word)


def _checked_word(word: str) -> str:
    word = checked("word", word, most=_WORD)
    if not same_words(word):
        raise ToolError("word has no letters; call the tool again with a word.")
    return word
