"""The script leads through a lesson: in Emma's own session, with her tools and instructions, in text."""

from __future__ import annotations

from typing import Any

import pytest
from livekit.agents import AgentSession, RunResult, llm
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions

from emma_agent.demo.script import Say, reply_to
from emma_agent.lesson import LessonState
from emma_agent.records import CorrectionRecord, WordReviewedRecord
from emma_agent.resume import LessonSoFar
from tests.support.lessons import in_lesson, known_student, lesson_of
from tests.support.scripted_llm import ScriptedLLM, call
from tests.support.talking import with_pen

LESSON: dict[str, Any] = {
    "lessonId": "lesson_1",
    "title": "Paying",
    "level": "A2",
    "language": "en",
    "kind": "guided",
    "objectives": ["Talk about money"],
    "targetWords": ["money", "bag"],
    "slides": [
        {"title": "Money", "text": "How much money do you have?\nI have ten euros."},
        {"title": "A bag", "text": "Can I have a bag, please?\nYes, of course."},
    ],
    "exercises": [
        {
            "exerciseId": "two-apples",
            "kind": "say",
            "prompt": "Ask me for two apples, politely.",
            "answers": ["Can I have two apples, please?"],
        }
    ],
}
GENTLE: dict[str, Any] = {
    "speechRate": 1.0,
    "nativeLanguageHelp": True,
    "correctionStyle": "gentle",
}
LAST: dict[str, Any] = {
    "startedAt": 1_700_000_000_000.0,
    "lessonTitle": "In a café",
    "messageCount": 2.0,
    "summary": "Ana asked for the bill. Mixes much and many.",
}
DUE: list[dict[str, Any]] = [{"word": "cheap", "language": "en", "meaning": "barato"}]


class TheScript(ScriptedLLM):
    """The script as a language model: it is given what OpenAI would be."""

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        **more: Any,
    ) -> llm.LLMStream:
        messages, _ = chat_ctx.to_provider_format("openai")
        reply = reply_to(messages, tools=[tool.id for tool in tools or ()])
        self._answers = [
            reply.text if isinstance(reply, Say) else call(reply.name, reply.arguments)
        ]
        return super().chat(chat_ctx=chat_ctx, tools=tools, conn_options=conn_options, **more)


def short_lesson(**changes: Any) -> LessonState:
    context: dict[str, Any] = {
        "lesson": LESSON,
        "preferences": GENTLE,
        "lastSession": LAST,
        "wordsDue": DUE,
        "recurringErrors": [],
    }
    return lesson_of(known_student(**{**context, **changes}))


async def say(session: AgentSession[LessonState], text: str) -> tuple[list[str], str]:
    """The tools that she calls, and what she says at last."""
    result: RunResult[None] = await session.run(user_input=text)
    called, said = [], ""
    for event in result.events:
        if isinstance(event.item, llm.FunctionCall):
            called.append(event.item.name)
        elif isinstance(event.item, llm.ChatMessage):
            said = event.item.text_content or ""
    return called, said


def greeting_of(session: AgentSession[LessonState]) -> str:
    return session.history.messages()[0].text_content or ""


async def test_it_leads_through_a_whole_lesson() -> None:
    lesson = short_lesson()
    async with in_lesson(lesson, TheScript()) as session:
        greeting = greeting_of(session)
        heard = [
            await say(session, text)
            for text in (
                "I am fine.",
                "I think it is cheap.",
                "How many money do you have?",
                "How much money do you have?",
                "Can I have a bag, please?",
                "Can I have two apples please?",
                "Yes, I liked it very much.",
                "Goodbye, Emma.",
            )
        ]

    assert "script" in greeting
    assert "Last time we did In a café. My notes say: Ana asked for the bill." in greeting
    assert [tools for tools, _ in heard] == [
        ["next_step"],
        ["rate_word", "next_step", "introduce_word"],
        ["note_correction"],
        ["mark_repaired", "next_slide", "introduce_word"],
        ["next_step"],
        ["record_answer", "next_step"],
        ["finish_lesson", "next_step"],
        ["end_lesson"],
    ]
    said = [text for _, text in heard]
    assert "barato" in said[0]
    assert "cheap" not in said[0].lower()
    assert "How much money do you have?" in said[1]
    assert said[2].startswith("I heard: How many money do you have. We say: How much money")
    assert "Can I have a bag, please?" in said[3]
    assert "two apples" in said[4]
    assert "How much money do you have" in said[5]
    assert "bag" in said[6]
    assert "Goodbye" in said[6]
    assert "Goodbye" in said[7]
    assert (lesson.step, lesson.slide, lesson.finished) == ("farewell", 1, True)
    (noted,) = lesson.corrections.values()
    assert (noted.error_type, noted.repaired) == ("word_choice", True)
    assert [answer.score for answer in lesson.answers] == [1.0]


async def test_a_word_that_is_not_remembered_is_told_and_rated_so() -> None:
    lesson = short_lesson(wordsDue=[*DUE, {"word": "loaf", "language": "en"}])
    pen = with_pen(lesson)
    async with in_lesson(lesson, TheScript()) as session:
        await say(session, "I am fine.")
        assert await say(session, "I do not know.") == (
            [],
            "It is cheap. Please make a sentence with cheap.",
        )
        tools, asked = await say(session, "No idea.")
        assert (tools, asked) == (["rate_word"], "Good. Please make a sentence with loaf.")
        tools, _ = await say(session, "I buy a loaf.")
    assert tools[:2] == ["rate_word", "next_step"]
    ratings = [each.rating for each in pen.written if isinstance(each, WordReviewedRecord)]
    assert ratings == [1, 2]


async def test_a_lesson_goes_on_where_it_was_interrupted() -> None:
    """Nothing of the talk is left; the correction was noted by another worker."""
    lesson = short_lesson()
    noted = CorrectionRecord(
        created_at=1_700_000_000.0,
        correction_id="c_1",
        said="How many money do you have?",
        target="How much money do you have?",
        error_type="word_choice",
        severity="minor",
        repaired=False,
    )
    lesson.resumed = LessonSoFar(
        session_key="s1",
        last_seen_at=1_700_000_000.0,
        over=False,
        step="presentation",
        slide=0,
        corrections=(noted,),
    )
    lesson.resume_at(lesson.resumed)
    async with in_lesson(lesson, TheScript()) as session:
        greeting = greeting_of(session)
        tools, _ = await say(session, "How much money do you have?")
    assert greeting == (
        "We were interrupted in the presentation. Let us go on. "
        "Please say: How much money do you have?"
    )
    assert tools[:3] == ["get_progress", "mark_repaired", "next_slide"]
    assert all(noted.repaired for noted in lesson.corrections.values())


async def test_what_is_to_be_corrected_at_the_end_is_said_right_there() -> None:
    lesson = short_lesson(preferences={**GENTLE, "correctionStyle": "at_the_end"}, wordsDue=[])
    async with in_lesson(lesson, TheScript()) as session:
        await say(session, "I am fine.")
        tools, said = await say(session, "How many money do you have?")
        assert tools == ["note_correction", "next_slide", "introduce_word"]
        assert "I heard" not in said
        await say(session, "Can I have a bag, please?")
        await say(session, "Two apples, please.")
        tools, _ = await say(session, "How much money do you have?")
    assert tools == ["mark_repaired", "finish_lesson", "next_step"]


@pytest.mark.parametrize(
    "said",
    [
        "I would like to talk about football.",
        "What?",
        "...",
        "Please tell me what you know about me.",
    ],
)
async def test_whatever_a_person_says_it_goes_on(said: str) -> None:
    lesson = short_lesson()
    async with in_lesson(lesson, TheScript()) as session:
        for _ in range(14):
            _, answer = await say(session, said)
            assert answer, lesson.step
    if "about me" not in said:
        assert lesson.step == "farewell"


async def test_a_guest_talks_freely_until_they_say_goodbye() -> None:
    lesson = lesson_of(None)
    async with in_lesson(lesson, TheScript()) as session:
        assert "script" in greeting_of(session)
        assert (await say(session, "I played chess."))[0] == ["next_step"]
        assert (await say(session, "I like my job."))[1].startswith("That is interesting.")
        assert (await say(session, "I must go, goodbye."))[0] == ["next_step"]
    assert lesson.step == "feedback"
