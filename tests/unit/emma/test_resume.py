"""A lesson that was interrupted goes on where it was: from Convex, or from what lies on this host."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from emma_agent.convex_local import ROOT
from emma_agent.lesson import LessonState
from emma_agent.logs import configure_logging
from emma_agent.records import (
    CorrectionRecord,
    ExerciseRecord,
    LessonFinishedRecord,
    SlideShownRecord,
    StepEnteredRecord,
    WordIntroducedRecord,
)
from emma_agent.resume import (
    RESUME_GRACE_S,
    LessonSoFar,
    Turn,
    conversation,
    from_journals,
    goes_on,
    parse_resumable,
)
from emma_agent.wire import ContextError
from livekit.plugins.convex import (
    AgentKey,
    MessageRecord,
    Outbox,
    Record,
    RunEndedRecord,
    SessionEndedRecord,
    SessionStartedRecord,
    TranscriptRecord,
)
from livekit.plugins.convex.journal import FORMAT, Header
from livekit.plugins.convex.limits import RECORD_VERSION
from livekit.plugins.convex.testing import FakeConvex
from tests.support.folded import Folded
from tests.support.wire import tutoring_context

KEY: Final = AgentKey.generate()
NOW: Final = 1_700_000_000.0
STUDENT: Final = {"student_id": "student_1", "lesson_id": "lesson_1"}
ANSWER: Final[dict[str, Any]] = {
    "sessionKey": "s1",
    "lastSeenAt": NOW * 1000,
    "over": False,
    "lessonId": "lesson_1",
    "step": "practice",
    "slide": 0.0,
    "messageCount": 40.0,
    "messages": [
        {
            "itemId": "item_1",
            "role": "assistant",
            "text": "How much is it?",
            "interrupted": True,
            "createdAt": NOW * 1000 - 2_000,
        },
        {
            "itemId": "item_2",
            "role": "user",
            "text": "It cost two euros.",
            "interrupted": False,
            "createdAt": NOW * 1000 - 1_000,
        },
    ],
    "summary": "They talked about prices.",
    "corrections": [
        {
            "correctionId": "c_1",
            "said": "it cost",
            "target": "it costs",
            "errorType": "agreement",
            "severity": "minor",
            "repaired": False,
            "createdAt": NOW * 1000,
        }
    ],
    "newWords": [{"word": "stall", "language": "en", "meaning": "puesto"}],
    "answers": [{"exerciseId": "e1", "score": 1.0, "answer": "two euros", "createdAt": NOW * 1000}],
    "finished": True,
}


def said(number: int, role: Any, text: str, **more: Any) -> MessageRecord:
    return MessageRecord(
        created_at=NOW + number,
        item_id=f"item_{number}",
        role=role,
        text=text,
        interrupted=False,
        **more,
    )


def started(session_key: str = "s1", lesson_id: str | None = "lesson_1") -> SessionStartedRecord:
    return SessionStartedRecord(
        created_at=NOW,
        session_key=session_key,
        room="room",
        job_id="job",
        agent_name="emma",
        lesson_id=lesson_id,
    )


class Run:
    """As `JournaledRun`, without a journal."""

    def __init__(self, *records: Record, session_key: str = "s1") -> None:
        self.run_id = "run"
        self.session_key = session_key
        self.started_at = NOW
        self.records = records


def found_in(*runs: Run, session_key: str | None = "s1") -> LessonSoFar | None:
    return from_journals(runs, session_key=session_key, lesson_id="lesson_1")  # type: ignore[arg-type]


def test_the_answer_of_convex_becomes_typed_values() -> None:
    found = parse_resumable(ANSWER)
    assert found is not None
    assert (found.session_key, found.last_seen_at, found.over) == ("s1", NOW, False)
    assert (found.step, found.slide, found.summary) == ("practice", 0, "They talked about prices.")
    assert found.messages[0] == Turn("item_1", "assistant", "How much is it?", NOW - 2, True)
    assert found.corrections == (
        CorrectionRecord(
            created_at=NOW,
            correction_id="c_1",
            said="it cost",
            target="it costs",
            error_type="agreement",
            severity="minor",
            repaired=False,
        ),
    )
    [word] = found.new_words
    assert (word.word, word.language, word.meaning, word.example) == ("stall", "en", "puesto", None)
    [answer] = found.answers
    assert answer == ExerciseRecord(created_at=NOW, exercise_id="e1", score=1.0, answer="two euros")
    assert found.finished
    assert parse_resumable(None) is None


def test_older_functions_tell_neither_answers_nor_whether_it_was_finished() -> None:
    older = {name: of for name, of in ANSWER.items() if name not in ("answers", "finished")}
    found = parse_resumable(older)
    assert found is not None
    assert (found.answers, found.finished) == ((), False)


@pytest.mark.parametrize(
    "changed", [{"sessionKey": 3}, {"corrections": [{"said": "Ana-María"}]}, {"messages": None}]
)
def test_another_shape_is_an_error_that_shows_no_words(changed: dict[str, Any]) -> None:
    with pytest.raises(ContextError) as caught:
        parse_resumable({**ANSWER, **changed})
    assert "Ana-María" not in str(caught.value)


def test_the_grace_is_that_of_convex() -> None:
    limits = (ROOT / "convex" / "limits.ts").read_text()
    [grace] = re.findall(r"resumeGraceMs: ([\d_ *]+),", limits)
    factors = [int(factor) for factor in grace.split("*")]
    assert math.prod(factors) == RESUME_GRACE_S * 1000


@pytest.mark.parametrize(
    ("changed", "fresh", "away_s", "expected"),
    [
        ({}, False, 60.0, True),
        ({}, False, RESUME_GRACE_S + 1, False),
        ({}, True, 60.0, False),
        ({"over": True}, False, 60.0, False),
        ({"messages": []}, False, 60.0, False),
    ],
    ids=["interrupted", "too late", "a fresh start is wanted", "over", "nothing was said"],
)
def test_what_goes_on(changed: dict[str, Any], fresh: bool, away_s: float, expected: bool) -> None:
    found = parse_resumable({**ANSWER, **changed})
    assert goes_on(found, fresh=fresh, now=NOW + away_s) is expected


def test_the_last_turns_are_verbatim_and_no_more_than_a_model_should_read() -> None:
    turns = tuple(Turn(f"i{n}", "user", f"turn {n}", NOW + n) for n in range(40))
    found = LessonSoFar("s1", NOW, False, messages=turns)
    texts = [message.text_content for message in conversation(found).messages()]
    assert texts == [f"turn {n}" for n in range(24, 40)]
    long = tuple(Turn(f"i{n}", "user", f"{n} " + "word " * 800, NOW + n) for n in range(9))
    kept = conversation(LessonSoFar("s1", NOW, False, messages=long)).messages()
    assert [message.id for message in kept] == ["i8"]


def test_journals_tell_where_a_lesson_was() -> None:
    correction = CorrectionRecord(
        created_at=NOW + 3,
        correction_id="c_1",
        said="it cost",
        target="it costs",
        error_type="agreement",
        severity="minor",
        repaired=False,
    )
    word = WordIntroducedRecord(created_at=NOW + 4, word="stall", language="en")
    answer = ExerciseRecord(created_at=NOW + 4, exercise_id="e1", score=1.0, answer="two euros")
    first = Run(
        started(),
        said(1, "assistant", "Hello!"),
        StepEnteredRecord(created_at=NOW + 2, step="presentation"),
        SlideShownRecord(created_at=NOW + 2, slide=0),
        TranscriptRecord(created_at=NOW + 3, text="It cost two."),
        said(3, "user", "It cost two."),
        correction,
        word,
        answer,
        RunEndedRecord(created_at=NOW + 500, reason="run_lost"),
    )
    second = Run(
        started(),
        SlideShownRecord(created_at=NOW + 6, slide=1),
        said(7, "assistant", "And this one?"),
        TranscriptRecord(created_at=NOW + 8, text="It is"),
        TranscriptRecord(created_at=NOW + 9, text="cheap."),
    )
    other = Run(started("s0"), said(90, "user", "Another lesson."), session_key="s0")
    found = found_in(other, first, second)
    assert found is not None
    assert (found.step, found.slide, found.over) == ("presentation", 1, False)
    assert [(turn.role, turn.text) for turn in found.messages] == [
        ("assistant", "Hello!"),
        ("user", "It cost two."),
        ("assistant", "And this one?"),
        # They became no message: the worker died while she thought about it.
        ("user", "It is"),
        ("user", "cheap."),
    ]
    assert found.last_seen_at == NOW + 9
    assert (found.corrections, found.new_words) == ((correction,), (word,))
    assert (found.answers, found.finished) == ((answer,), False)


def test_without_a_key_it_is_the_students_last_lesson_if_it_is_the_same() -> None:
    run = Run(started("s7"), said(1, "user", "Hi."), session_key="s7")
    found = found_in(Run(started()), run, session_key=None)
    assert found is not None
    assert found.session_key == "s7"
    assert found_in(Run(started(lesson_id="lesson_2")), session_key=None) is None
    assert found_in(session_key=None) is None
    assert found_in(Run(session_key="s9")) is None


END: Final = SessionEndedRecord(created_at=NOW + 9, reason="user_initiated")
FAREWELL: Final = StepEnteredRecord(created_at=NOW + 8, step="farewell")


@pytest.mark.parametrize(
    ("records", "over"),
    [
        ((FAREWELL, END), True),
        ((LessonFinishedRecord(created_at=NOW + 8), END), True),
        ((FAREWELL,), False),
        ((END,), False),
    ],
    ids=["in the farewell", "finished", "cut off in the farewell", "left in the middle"],
)
def test_an_end_is_intended_where_the_lesson_was_done(
    records: tuple[Record, ...], over: bool
) -> None:
    found = found_in(Run(started(), said(1, "user", "Hi."), *records))
    assert found is not None
    assert found.over is over
    # Whoever went on after that end made it none.
    again = found_in(Run(started(), *records), Run(started(), said(30, "user", "Hi again.")))
    assert again is not None
    assert again.over is False


# With Convex, and without


def metadata(**said: object) -> str:
    return json.dumps({**STUDENT, **said})


Open = Callable[..., LessonState]


@pytest.fixture
async def convex(convex: FakeConvex) -> FakeConvex:
    convex.on("students:tutoringContext", lambda args: tutoring_context())
    convex.on("sessions:resumable", lambda args: None)
    return convex


@pytest.fixture
async def open_lesson(convex: FakeConvex, tmp_path: Path) -> AsyncIterator[Open]:
    lessons: list[LessonState] = []

    def open_lesson(**said: object) -> LessonState:
        lesson = LessonState.open(metadata(**said), url=convex.url, key=KEY, outbox_dir=tmp_path)
        lessons.append(lesson)
        return lesson

    yield open_lesson
    for lesson in lessons:
        await lesson.aclose()


def leave_journal(directory: Path, url: str, *records: Record, session_key: str = "s1") -> None:
    """What a run of the student leaves whose process died."""
    header = Header(
        format=FORMAT,
        record_version=RECORD_VERSION,
        run_id="run_dead",
        session_key=session_key,
        subject="student:student_1",
        student_id="student_1",
        deployment=url,
        started_at_ms=time.time() * 1000,
        steady_at_ms=0.0,
    )
    outbox = Outbox.open(directory, header)
    for record in records:
        outbox.append(record)
    outbox.journal.close()


def journals(directory: Path) -> list[str]:
    return [path.name for path in directory.glob("*.journal")]


def just_now(**changes: Any) -> dict[str, Any]:
    return {**ANSWER, "lastSeenAt": time.time() * 1000 - 60_000, **changes}


async def test_an_interrupted_lesson_goes_on(convex: FakeConvex, open_lesson: Open) -> None:
    convex.on("sessions:resumable", lambda args: just_now())
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    [asked] = [call.args for call in convex.calls if call.function == "sessions:resumable"]
    assert asked == {"lessonId": "lesson_1", "sessionKey": "s1"}
    assert lesson.resumed is not None
    assert (lesson.session_key, lesson.step, lesson.slide) == ("s1", "practice", 0)
    assert lesson.last_seen_at == lesson.resumed.last_seen_at
    assert lesson.conversation is not None
    assert [m.text_content for m in lesson.conversation.messages()] == [
        "How much is it?",
        "It cost two euros.",
    ]
    assert list(lesson.corrections) == ["c_1"]


async def test_the_lesson_that_goes_on_is_not_the_last_one(
    convex: FakeConvex, open_lesson: Open
) -> None:
    last = {"startedAt": NOW * 1000, "messageCount": 4.0, "sessionKey": "s1"}
    convex.on("students:tutoringContext", lambda args: tutoring_context(lastSession=last))
    convex.on("sessions:resumable", lambda args: just_now())
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    assert lesson.context is not None
    assert lesson.context.last_session is None


async def test_a_fresh_start_remains_a_choice_and_is_still_that_session(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.on("sessions:resumable", lambda args: just_now())
    lesson = open_lesson(session_key="s1", fresh=True)
    await lesson.ready()
    assert (lesson.resumed, lesson.conversation) == (None, None)
    assert (lesson.session_key, lesson.step, lesson.corrections) == ("s1", "greeting", {})
    # So that Convex can tell whether it was too late for that.
    assert lesson.last_seen_at is not None


async def test_after_the_grace_the_session_is_another_one(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.on("sessions:resumable", lambda args: just_now(lastSeenAt=NOW * 1000 - 10**9))
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    assert (lesson.resumed, lesson.step) == (None, "greeting")
    assert lesson.last_seen_at == NOW - 10**6


async def test_the_key_is_the_one_that_the_session_has_now(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.on("sessions:resumable", lambda args: just_now(sessionKey="run_2"))
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    assert lesson.session_key == "run_2"


async def test_without_a_key_the_lesson_of_a_moment_ago_goes_on(
    convex: FakeConvex, open_lesson: Open
) -> None:
    convex.on("sessions:resumable", lambda args: just_now(sessionKey="s9"))
    lesson = open_lesson()
    await lesson.ready()
    [asked] = [call.args for call in convex.calls if call.function == "sessions:resumable"]
    assert asked == {"lessonId": "lesson_1"}
    assert (lesson.session_key, lesson.resumed is not None) == ("s9", True)


@pytest.mark.parametrize("said", [{"fresh": True}, {}], ids=["fresh", "over"])
async def test_without_a_key_a_lesson_that_does_not_go_on_is_left_alone(
    convex: FakeConvex, open_lesson: Open, said: dict[str, object]
) -> None:
    convex.on("sessions:resumable", lambda args: just_now(sessionKey="s9", over=not said))
    lesson = open_lesson(**said)
    await lesson.ready()
    assert lesson.session_key != "s9"
    assert (lesson.resumed, lesson.last_seen_at) == (None, None)


async def test_the_students_dead_journals_are_delivered_before_convex_is_asked(
    convex: FakeConvex, open_lesson: Open, tmp_path: Path
) -> None:
    folded = Folded(convex)
    told_first: list[int] = []

    def resumable(args: object) -> object:
        told_first.append(sum(map(len, folded.records.values())))
        return just_now()

    convex.on("sessions:resumable", resumable)
    leave_journal(tmp_path, convex.url, started(), said(1, "user", "Hi."))
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    # Two that the run had written, and the end that it could not write.
    assert told_first == [3]
    assert journals(tmp_path) == []


async def test_where_convex_is_away_the_journals_here_tell(
    convex: FakeConvex, open_lesson: Open, tmp_path: Path
) -> None:
    now = time.time()
    leave_journal(
        tmp_path,
        convex.url,
        started(),
        StepEnteredRecord(created_at=now - 60, step="practice"),
        MessageRecord(
            created_at=now - 59, item_id="i1", role="user", text="It cost two.", interrupted=False
        ),
    )
    await convex.stop()
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    assert lesson.degraded
    assert lesson.resumed is not None
    assert (lesson.step, lesson.session_key) == ("practice", "s1")
    assert [turn.text for turn in lesson.resumed.messages] == ["It cost two."]
    assert journals(tmp_path) == ["run_dead.journal"]


async def test_functions_that_are_older_than_the_worker_hold_no_lesson_up(
    convex: FakeConvex, open_lesson: Open, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging()

    def missing(args: object) -> object:
        raise RuntimeError("Could not find public function for 'sessions:resumable'")

    convex.on("sessions:resumable", missing)
    lesson = open_lesson(session_key="s1")
    await lesson.ready()
    assert (lesson.resumed, lesson.degraded) == (None, False)
    assert lesson.context is not None
    assert "lesson.look_back_failed" in [record.getMessage() for record in caplog.records]
