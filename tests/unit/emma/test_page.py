"""What the page sees of a lesson, and the slides that it turns; in a real room: tests/e2e/test_page.py."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from livekit import rtc

from emma_agent import ending
from emma_agent.lesson import LessonState
from emma_agent.logs import configure_logging
from emma_agent.page import TURN_SLIDE, Page, attributes_of
from emma_agent.records import SlideShownRecord, Step
from tests.support.lessons import known_student, lesson_of
from tests.support.talking import with_pen
from tests.support.wire import LESSON

SLIDES = [
    {"title": title, "text": f"About {title}.", "notes": f"Teach {title}."}
    for title in ("one", "two", "three")
]
KINDS = rtc.ParticipantKind
CODES = (400, 403, 404, 413, 429)


class Local:
    """Emma as a participant: keeps what is set and registered."""

    def __init__(self) -> None:
        self.set: list[dict[str, str]] = []
        self.methods: set[str] = set()
        self.fails = False
        self.changed = asyncio.Event()

    async def set_attributes(self, attributes: dict[str, str]) -> None:
        self.set.append(attributes)
        self.changed.set()
        if self.fails:
            raise RuntimeError("the room is away")

    def register_rpc_method(self, name: str, _handler: object) -> None:
        self.methods.add(name)

    def unregister_rpc_method(self, name: str) -> None:
        self.methods.discard(name)

    async def next(self) -> dict[str, str]:
        await self.changed.wait()
        self.changed.clear()
        return self.set[-1]


class Room:
    """A room with a student, a face, and Emma."""

    def __init__(self) -> None:
        self.local_participant = Local()
        self.remote_participants = {
            "ana": SimpleNamespace(kind=KINDS.PARTICIPANT_KIND_STANDARD),
            "face": SimpleNamespace(kind=KINDS.PARTICIPANT_KIND_AGENT),
        }
        self.connected = True

    def isconnected(self) -> bool:
        return self.connected


@pytest.fixture
def lesson() -> LessonState:
    return lesson_of(known_student(lesson={**LESSON, "slides": SLIDES}))


@pytest.fixture
def room() -> Room:
    return Room()


def call(page: Page, payload: str, *, caller: str = "ana") -> Any:
    data = rtc.RpcInvocationData("r1", caller, payload, 10.0, method=TURN_SLIDE)
    return json.loads(page.turn_slide(data))


def page_of(lesson: LessonState, room: Room, **options: Any) -> Page:
    return Page(lesson, room, **options)  # type: ignore[arg-type]


async def test_a_page_turns_the_slides(lesson: LessonState, room: Room) -> None:
    pen = with_pen(lesson)
    page = page_of(lesson, room)
    assert call(page, '{"to": "next"}') == {"slide": 1, "slides": 3, "title": "one"}
    assert call(page, '{"to": 3}') == {"slide": 3, "slides": 3, "title": "three"}
    assert call(page, '{"to": "previous"}')["slide"] == 2
    assert lesson.slide == 1
    assert [each.slide for each in pen.written if isinstance(each, SlideShownRecord)] == [0, 2, 1]


@pytest.mark.parametrize(
    ("payload", "code", "says"),
    [
        ("", 400, '"next", "previous" or a number from 1'),
        ("next", 400, '{"to": "next"}'),
        ("{", 400, '{"to": "next"}'),
        ("[" * 150, 400, '{"to": "next"}'),
        ('["next"]', 400, '{"to": "next"}'),
        ('{"to": "last"}', 400, '{"to": "next"}'),
        ('{"to": true}', 400, '{"to": "next"}'),
        ('{"to": 1.5}', 400, '{"to": "next"}'),
        ('{"to": null}', 400, '{"to": "next"}'),
        ('{"to": {}}', 400, '{"to": "next"}'),
        ('{"to": 0}', 404, "slides 1 to 3"),
        ('{"to": -1}', 404, "slides 1 to 3"),
        ('{"to": 4}', 404, "slides 1 to 3"),
        ('{"to": "previous"}', 404, "slides 1 to 3"),
        ('{"to": "next"}' + " " * 200, 413, "200 characters at most"),
    ],
)
async def test_a_call_that_cannot_be_answered_says_what_to_do(
    lesson: LessonState, room: Room, payload: str, code: int, says: str
) -> None:
    pen = with_pen(lesson)
    with pytest.raises(rtc.RpcError, match=r"\w") as refused:
        call(page_of(lesson, room), payload)
    assert refused.value.code == code
    assert says in refused.value.message
    assert (lesson.slide, pen.written) == (None, [])


async def test_without_slides_there_is_nothing_to_turn(room: Room) -> None:
    for context in (None, known_student(lesson={**LESSON, "slides": []})):
        with pytest.raises(rtc.RpcError, match="no slides") as refused:
            call(page_of(lesson_of(context), room), '{"to": "next"}')
        assert refused.value.code == 404


@pytest.mark.parametrize("caller", ["face", "nobody"])
async def test_no_agent_turns_slides(lesson: LessonState, room: Room, caller: str) -> None:
    with pytest.raises(rtc.RpcError, match="Only people") as refused:
        call(page_of(lesson, room), '{"to": "next"}', caller=caller)
    assert refused.value.code == 403


async def test_a_page_that_calls_too_often_is_told_when(lesson: LessonState, room: Room) -> None:
    """A page in a loop would fill the journal."""
    now = 100.0
    page = page_of(lesson, room, now=lambda: now)
    for number in range(10):
        call(page, json.dumps({"to": 1 + number % 3}))
    with pytest.raises(rtc.RpcError, match="10 times in 5 s") as refused:
        call(page, '{"to": 2}')
    assert refused.value.code == 429
    now = 105.0
    assert call(page, '{"to": 2}')["slide"] == 2


async def test_it_sees_what_changes_in_one_call_each(lesson: LessonState, room: Room) -> None:
    emma = room.local_participant
    following = asyncio.create_task(page_of(lesson, room).follow())
    assert await emma.next() == {
        "emma.lesson_id": LESSON["lessonId"],
        "emma.step": "greeting",
        "emma.slide": "",
        "emma.slides": "3",
    }
    assert emma.methods == {TURN_SLIDE}
    lesson.enter_step("presentation")
    assert (await emma.next())["emma.slide"] == "1"
    # What the page does not see is not sent.
    lesson.set_preference(speech_rate=0.8)
    lesson.show_slide(2)
    assert (await emma.next())["emma.slide"] == "3"
    assert [each["emma.step"] for each in emma.set] == ["greeting", "presentation", "presentation"]
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert emma.methods == set()


async def test_a_lesson_without_a_plan_shows_its_part_alone() -> None:
    assert attributes_of(lesson_of(None)) == {
        "emma.lesson_id": "",
        "emma.step": "greeting",
        "emma.slide": "",
        "emma.slides": "",
    }


def test_the_page_for_web_developers_says_what_there_is(lesson: LessonState) -> None:
    text = (Path(__file__).parents[3] / "docs" / "page.md").read_text(encoding="utf-8")
    assert f"method `{TURN_SLIDE}`" in text
    assert f'method: "{TURN_SLIDE}"' in text
    assert re.findall(r"^\| `(emma\.\w+)` \|", text, re.MULTILINE) == list(attributes_of(lesson))
    [steps] = re.findall(r"^\| `emma.step` \| its part: (.*) \|$", text, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", steps)) == get_args(Step)
    codes = re.findall(r"^\| (\d{3}) \|", text, re.MULTILINE)
    assert sorted(codes) == sorted({str(code) for code in CODES})
    for words in (
        f"`{ending.LESSON_OVER}`",
        f"{ending._ASKED_S:g} s after her last word",
        f"{ending._ANSWERED_S:g} s\nafter it",
        f"{ending._SILENT_S:g} s after it if not",
    ):
        assert words in text


async def test_a_room_that_fails_is_told_again_with_the_next_change(
    lesson: LessonState, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging()
    caplog.set_level(logging.INFO, logger="emma_agent")
    emma = room.local_participant
    emma.fails = True
    following = asyncio.create_task(page_of(lesson, room).follow())
    await emma.next()
    lesson.show_slide(0)
    await emma.next()
    emma.fails = False
    lesson.show_slide(1)
    assert (await emma.next())["emma.slide"] == "2"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == ["page.not_shown"]


async def test_a_job_without_a_room_has_no_page(lesson: LessonState, room: Room) -> None:
    room.connected = False
    await page_of(lesson, room).follow()
    assert room.local_participant.set == []
