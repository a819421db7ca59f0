"""What `students:tutoringContext` and `sessions:plan` answer, as it comes over the wire."""

from __future__ import annotations

from typing import Any, Final

PREFERENCES: Final[dict[str, Any]] = {
    "speechRate": 0.9,
    "nativeLanguageHelp": False,
    "correctionStyle": "every_error",
}
LESSON: Final[dict[str, Any]] = {
    "lessonId": "lesson_1",
    "title": "At the market",
    "level": "A2",
    "language": "en-GB",
    "kind": "guided",
    "objectives": ["ask for a price"],
    "targetWords": ["cheap", "receipt"],
    "slides": [{"title": "Prices", "text": "How much is it?"}],
}
STUDENT: Final[dict[str, Any]] = {
    "studentId": "student_1",
    "name": "Ana",
    "level": "A2",
    "nativeLanguage": "es",
    "targetLanguage": "en",
    "timeZone": "Europe/Madrid",
    "goals": ["pass B2", "speak at work"],
    "interests": ["cooking"],
}


def tutoring_context(**changes: Any) -> dict[str, Any]:
    """A student with a lesson and a history; `changes` replace whole fields."""
    return {
        "student": STUDENT,
        "preferences": PREFERENCES,
        "lesson": LESSON,
        "progress": {
            "lessonsCompleted": 3.0,
            "thisLesson": {
                "status": "started",
                "timesStudied": 1.0,
                "lastStudiedAt": 1_700_000_000_500.0,
            },
        },
        "lastSession": {
            "startedAt": 1_700_000_000_000.0,
            "lessonTitle": "Family",
            "messageCount": 14.0,
        },
        "wordsDue": [
            {"word": "receipt", "language": "en", "meaning": "recibo", "example": "Keep it."},
            {"word": "loaf", "language": "en"},
        ],
        "recurringErrors": [
            {
                "errorType": "tense",
                "count": 4.0,
                "sessions": 2.0,
                "repaired": 1.0,
                "lastSeenAt": 1_700_000_000_500.0,
                "examples": [{"said": "I goed", "target": "I went"}],
            }
        ],
        **changes,
    }


def plan(**changes: Any) -> dict[str, Any]:
    """The plan of that lesson."""
    return {"preferences": PREFERENCES, "lesson": LESSON, **changes}
