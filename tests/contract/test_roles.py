"""Who may call what: every public function of convex/, as every kind of caller, with real tokens.

The functions are read from the code. A new one needs a row in `ROWS`: its arguments, and where it
answers somebody otherwise than its builder lets expect, what. `pytest -s` prints the whole table.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import pytest

from emma_agent.convex_local import ROOT, ConvexLocal, find_node
from tests.support.school import (
    LEARNT,
    NEW_AVATAR,
    NEW_LESSON,
    NEW_STUDENT,
    REFUSED,
    SLIDES,
    WORD,
    Caller,
    School,
    Staff,
    Wire,
)

CALLERS: Final[tuple[Caller, ...]] = get_args(Caller)

Answers = Mapping[Caller, str]
Args = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """A function's arguments, and the answers that its builder alone does not explain.

    Attributes:
        args: made anew for each caller who is answered, so that none takes it from the next. A
            function about a student gets `studentId` beside.
        but: what these callers are answered instead.
    """

    args: Callable[[School], Args] = field(default=lambda school: {})
    but: Answers = field(default_factory=dict)


def only(*callers: Caller) -> Answers:
    """These are answered; others are forbidden to call, or not believed."""
    answers: dict[Caller, str] = dict.fromkeys(CALLERS, "forbidden")
    answers |= dict.fromkeys(callers, "ok")
    answers["nobody"] = "unauthenticated"
    untrue: tuple[Caller, ...] = (
        "expired token",
        "forged token",
        "wrong audience",
        "agent of another issuer",
    )
    return answers | dict.fromkeys(untrue, REFUSED)


AGENTS: Final = only("agent", "other student's agent", "guest's agent")
STUDENTS: Final = only("student", "other student")
SEEING: Final = only("agent", "student", "teacher", "guardian", "administrator")
TEACHERS: Final = only("teacher", "other teacher", "unlinked teacher", "administrator")
ADMINISTRATORS: Final = only("administrator")
USERS: Final = only("teacher", "other teacher", "unlinked teacher", "guardian", "administrator")

BUILDERS: Final[Mapping[str, Answers]] = {
    "agentQuery": AGENTS,
    "agentMutation": AGENTS,
    "studentQuery": SEEING,
    "studentMutation": STUDENTS,
    "teacherQuery": TEACHERS,
    "teacherMutation": TEACHERS,
    "adminQuery": ADMINISTRATORS,
    "adminMutation": ADMINISTRATORS,
    "userQuery": USERS,
    "userMutation": USERS,
    "callerMutation": {
        **only(*CALLERS),
        "removed teacher": "forbidden",
        "stranger": "forbidden",
    },
    "signedInMutation": only("removed teacher", "stranger"),
}

_NOT_THEIR_RUN: Final[Answers] = {
    "other student's agent": "forbidden",
    "guest's agent": "forbidden",
}
_NOT_THEIR_STUDENT: Final[Answers] = {
    "other teacher": "forbidden",
    "unlinked teacher": "forbidden",
}
_GUARDIAN_ALONE: Final[Answers] = {
    "teacher": "forbidden",
    "administrator": "forbidden",
    **_NOT_THEIR_STUDENT,
}
_A_USER_ALREADY: Final[Answers] = {
    "teacher": "already_exists",
    "other teacher": "already_exists",
    "unlinked teacher": "already_exists",
    "guardian": "already_exists",
    "administrator": "already_exists",
}

_NOW: Final = 1_793_610_000_000
_PREFERENCES: Final = {
    "speechRate": 1,
    "nativeLanguageHelp": True,
    "correctionStyle": "gentle",
}


def paged(school: School) -> Args:
    return {"paginationOpts": {"numItems": 5, "cursor": None}}


def of_session(school: School) -> Args:
    return {"sessionKey": school.session_key}


def of_lesson(school: School) -> Args:
    return {"lessonId": school.lesson_id}


def of_new_lesson(school: School) -> Args:
    return {"lessonId": school.new_lesson()}


def of_new_avatar(school: School) -> Args:
    return {"avatarId": school.new_avatar()}


def of_student(school: School) -> Args:
    return {"studentId": school.student_id}


def of_consent(school: School) -> Args:
    school.do("guardian", "users:recordConsent", **of_student(school), textVersion="2026-09")
    return of_student(school)


def new_link(school: School) -> Args:
    return {"userId": school.invite()[0], "studentId": school.student_id}


def in_days(school: School) -> Args:
    return {"from": LEARNT, "to": LEARNT}


ROWS: Final[Mapping[str, Row]] = {
    # Lessons held
    "sessions:record": Row(
        lambda s: {"version": 1, "runId": s.run_id, "records": [s.message(s.next_seq)]},
        _NOT_THEIR_RUN,
    ),
    "sessions:replace": Row(
        lambda s: {
            "version": 1,
            "runId": s.run_id,
            "seq": s.set_aside_seq,
            "record": s.message(s.set_aside_seq),
        },
        _NOT_THEIR_RUN,
    ),
    "sessions:recordVersions": Row(),
    "sessions:plan": Row(of_lesson),
    "sessions:resumable": Row(of_session),
    "sessions:get": Row(of_session),
    "sessions:summary": Row(of_session),
    "sessions:list": Row(paged),
    "messages:list": Row(lambda s: {**of_session(s), **paged(s)}),
    # Students
    "students:tutoringContext": Row(of_lesson, {"guest's agent": "student_unknown"}),
    "students:profile": Row(lambda s: {"today": LEARNT}),
    "students:mine": Row(paged),
    "students:create": Row(lambda s: NEW_STUDENT),
    "students:update": Row(
        lambda s: {**of_student(s), "changes": {"level": "B2"}}, _NOT_THEIR_STUDENT
    ),
    "students:setPreferences": Row(lambda s: {"preferences": _PREFERENCES}),
    "students:erase": Row(of_student),
    "students:erasure": Row(of_student),
    "students:exportData": Row(
        lambda s: {"cursor": None}, {"agent": "forbidden", "teacher": "forbidden"}
    ),
    # People
    "users:invite": Row(
        lambda s: {"name": "Bo", "email": f"{s.unique()}@school.invalid", "role": "guardian"}
    ),
    "users:accept": Row(lambda s: {"code": s.invite()[1]}, _A_USER_ALREADY),
    "users:me": Row(),
    "users:list": Row(paged),
    "users:remove": Row(lambda s: {"userId": s.invite()[0]}),
    "users:link": Row(new_link),
    "users:unlink": Row(new_link),
    "users:accessTo": Row(of_student),
    "users:recordConsent": Row(
        lambda s: {**of_student(s), "textVersion": "2026-09"}, _GUARDIAN_ALONE
    ),
    "users:withdrawConsent": Row(of_consent, _GUARDIAN_ALONE),
    # What is taught
    "lessons:create": Row(lambda s: NEW_LESSON),
    "lessons:update": Row(lambda s: {**of_lesson(s), "changes": {"title": "Bread"}}),
    "lessons:remove": Row(of_new_lesson),
    "lessons:publish": Row(of_lesson),
    "lessons:unpublish": Row(of_lesson),
    "lessons:get": Row(of_lesson),
    "lessons:list": Row(paged),
    "lessons:order": Row(lambda s: {"courseId": s.course_id, "lessonIds": [s.lesson_id]}),
    "lessons:published": Row(),
    "lessons:next": Row(),
    "lessons:createCourse": Row(
        lambda s: {
            "slug": s.unique(),
            "title": "Food",
            "language": "en",
            "level": "A2",
            "published": False,
        }
    ),
    "lessons:updateCourse": Row(
        lambda s: {"courseId": s.course_id, "changes": {"title": "Drinks"}}
    ),
    "lessons:removeCourse": Row(lambda s: {"courseId": s.new_course(), "withLessons": True}),
    "lessons:listCourses": Row(paged),
    "presentations:get": Row(of_lesson),
    "presentations:create": Row(
        lambda s: {"lessonId": s.new_lesson(slides=False), "title": "Market", "slides": SLIDES}
    ),
    "presentations:update": Row(lambda s: {**of_lesson(s), "title": "Bakery"}),
    "presentations:setSlides": Row(lambda s: {**of_lesson(s), "slides": SLIDES}),
    "presentations:moveSlide": Row(lambda s: {**of_lesson(s), "from": 0, "to": 1}),
    "presentations:current": Row(of_session),
    "avatars:create": Row(lambda s: {**NEW_AVATAR, "slug": s.unique()}),
    "avatars:update": Row(lambda s: {"avatarId": s.avatar_id, "changes": {"name": "Em"}}),
    "avatars:remove": Row(of_new_avatar),
    "avatars:publish": Row(of_new_avatar),
    "avatars:unpublish": Row(of_new_avatar),
    "avatars:list": Row(paged),
    # What is learnt
    "progress:list": Row(paged),
    "progress:ofLesson": Row(of_lesson),
    "progress:corrections": Row(paged),
    "progress:recurringErrors": Row(lambda s: {"now": _NOW}),
    "progress:overcomeErrors": Row(),
    "progress:exerciseResults": Row(paged),
    "vocabulary:due": Row(lambda s: {"now": _NOW}),
    "vocabulary:byState": Row(lambda s: {"state": "new", **paged(s)}),
    "vocabulary:masteredByDay": Row(in_days),
    "vocabulary:review": Row(
        lambda s: {"word": WORD, "language": "en", "rating": 3, "reviewId": s.unique()},
        {"other student": "not_found"},
    ),
    # The school's numbers
    "analytics:track": Row(
        lambda s: {
            "events": [
                {
                    "eventType": "page_opened",
                    "createdAt": _NOW,
                    "eventData": {"page": "/lesson"},
                }
            ]
        }
    ),
    "analytics:days": Row(in_days),
    "analytics:latency": Row(in_days),
    "analytics:events": Row(
        lambda s: {"eventType": "page_opened", "from": _NOW, "to": _NOW + 1, **paged(s)}
    ),
}


@dataclass(frozen=True)
class Function:
    kind: str
    builder: str


@pytest.fixture(scope="module")
def functions() -> Mapping[str, Function]:
    """The public functions, by path, as convex-local finds them in the code."""
    script = ROOT / "scripts" / "print-functions.ts"
    done = subprocess.run(
        [find_node(), script], capture_output=True, text=True, check=True, timeout=60
    )
    return {
        found["path"]: Function(found["type"], found["builder"])
        for found in json.loads(done.stdout)["functions"]
        if found["visibility"] == "public"
    }


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with ConvexLocal.start(env={"ERASURE_KEY": "0" * 64}) as local:
        wire = Wire(local.url, key=local.agent_key, admin_key=local.admin_key)
        yield wire
        wire.close()


@pytest.fixture(scope="module")
def table(wire: Wire, functions: Mapping[str, Function]) -> Mapping[str, Answers]:
    """What everybody is answered, by function; printed too."""
    staff = Staff(wire)
    answers = {
        name: answers_of(name, function, School(wire, staff))
        for name, function in functions.items()
        if name in ROWS
    }
    sys.stdout.write(drawn(answers))
    return answers


def answers_of(name: str, function: Function, school: School) -> Answers:
    row = ROWS[name]
    wanted = expected(row, function)
    calling = [caller for caller in CALLERS if wanted[caller] == "ok"]
    refused = [caller for caller in CALLERS if caller not in calling]
    own = {caller: {**about(function, school), **row.args(school)} for caller in calling}
    # Those who are refused leave what the call is about as it is.
    shared = {**about(function, school), **row.args(school)}
    school.send_away()
    # They come first, so that nothing that others do can hide a mistake.
    answers = {
        caller: school.answer(caller, name, own.get(caller, shared), kind=function.kind)
        for caller in (*refused, *calling)
    }
    return {caller: answers[caller] for caller in CALLERS}


def about(function: Function, school: School) -> Args:
    return of_student(school) if function.builder == "studentQuery" else {}


def expected(row: Row, function: Function) -> Answers:
    return {**BUILDERS[function.builder], **row.but}


def drawn(table: Mapping[str, Answers]) -> str:
    """The table as text: a column per caller, numbered."""
    short = {"forbidden": "-", "unauthenticated": "none", "already_exists": "exists"}
    short |= {"student_unknown": "unknown", "not_found": "absent"}
    numbers = "".join(f"{number:>8}" for number in range(1, len(CALLERS) + 1))
    lines = [
        "",
        *(f"{number:>3}  {caller}" for number, caller in enumerate(CALLERS, 1)),
        f"ok: answered, 401: not believed, {', '.join(f'{v}: {k}' for k, v in short.items())}",
        "",
        f"{'':26}{numbers}",
    ]
    for name, answers in table.items():
        cells = "".join(f"{short.get(answer, answer):>8}" for answer in answers.values())
        lines.append(f"{name:26}{cells}")
    return "\n".join([*lines, ""])


def test_every_public_function_has_a_row(functions: Mapping[str, Function]) -> None:
    assert sorted(functions) == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_answers(
    name: str, table: Mapping[str, Answers], functions: Mapping[str, Function]
) -> None:
    assert table[name] == expected(ROWS[name], functions[name])


def test_the_deployment_believes_the_tokens_that_the_table_is_made_with(wire: Wire) -> None:
    """The same claims, unexpired and rightly signed, are answered: nothing else is wrong in them."""
    subject = "student:k"
    claims = {"role": "agent", "student_id": "k"}
    asked: dict[str, Any] = {"function": "sessions:recordVersions", "args": {}, "kind": "query"}

    believed = wire.token(subject, **claims)
    soon = wire.token(subject, **claims, exp=int(time.time()) + 60)
    two = wire.token(subject, **claims, aud=["somebody-else", "convex"])

    for token in (believed, soon, two):
        assert wire.answer(**asked, authorization=token) == ("ok", [1])
