"""What the scripted model answers when it is asked for the summary of a lesson.

As everything of the script, from what lies before it: the facts in the request (`summary_writer.py`)
and the sentences that Emma has for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from emma_agent.summary_phrases import PHRASES

__all__ = ["summary_of"]

_SHOWN: Final = 3


def summary_of(request: str) -> str:
    """Both texts, as JSON; whatever the request holds, never raise."""
    try:
        data = json.loads(request)
    except ValueError:
        data = None
    facts: Mapping[str, Any] = data if isinstance(data, dict) else {}
    language = str(facts.get("student_language") or "en")
    phrases = PHRASES.get(language.partition("-")[0], PHRASES["en"])
    words = [str(word) for word in _list(facts, "new_words")[:_SHOWN]]
    mistakes = [each for each in _list(facts, "mistakes") if isinstance(each, dict)][:_SHOWN]
    lesson = facts.get("lesson")
    title = lesson.get("title") if isinstance(lesson, dict) else None
    student = [phrases.lesson.format(title=title) if title else phrases.talk]
    teacher = [f"Written by the script. The lesson came to the {facts.get('came_to', 'end')}."]
    if words:
        student.append(phrases.new_words.format(words=phrases.comma.join(words)))
        teacher.append(f"New words: {', '.join(words)}.")
    if mistakes:
        shown = [
            phrases.correction.format(said=each.get("said"), target=each.get("right"))
            for each in mistakes
        ]
        student.append(phrases.remember.format(corrections=phrases.comma.join(shown)))
        noted = [f"{each.get('said')} for {each.get('right')}" for each in mistakes]
        teacher.append(f"Mistakes: {'; '.join(noted)}.")
    student.append(phrases.finished if facts.get("aims_reached") else phrases.unfinished)
    texts = {"student": phrases.joint.join(student), "teacher": " ".join(teacher)}
    return json.dumps(texts, ensure_ascii=False)


def _list(facts: Mapping[str, Any], name: str) -> list[Any]:
    value = facts.get(name)
    return value if isinstance(value, list) else []
