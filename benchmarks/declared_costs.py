"""What each public query may read: the rows that its answer is built from.

One table for the benchmark, for the test that holds the queries to it, and for the costs in
docs/data-model.md. A public query without an entry fails all three.

The rows are those read for the arguments given here, in a school of benchmarks/filled_school.py,
where no page and no list is shorter than it may be. `ALLOWANCE` more may be read to find out who is
calling and whether they may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from benchmarks.filled_school import COMPLETED, DAY_MS, LESSONS, LINKED, Caller, Names

ALLOWANCE: Final = 4
"""Documents beyond the declared rows: the caller's own row, the link to the student."""

Symbol = Literal["page", "days", "course", "begun", "people"]
Rows = int | Symbol | tuple[Symbol, int]
"""A number, a number that depends on the answer, or that and some more."""

SIZES: Final[dict[Symbol, int]] = {
    "page": 8,
    "days": 28,
    "course": LESSONS,
    "begun": COMPLETED + 1,
    "people": LINKED,
}
"""How many of them there are here; docs/data-model.md says what bounds each."""

ROLES: Final[dict[str, tuple[Caller, ...]]] = {
    "agentQuery": ("agent",),
    "studentQuery": ("student", "agent", "teacher", "guardian", "administrator"),
    "teacherQuery": ("teacher", "administrator"),
    "adminQuery": ("administrator",),
    "userQuery": ("teacher", "guardian", "administrator"),
}
"""Who may call what a builder of convex/functions.ts makes; the first is who mostly does."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One public query.

    Attributes:
        rows: by table, how many rows the answer is built from.
        args: the arguments with which that many are read.
        callers: where not all of the builder's may call; the first is who mostly does.
    """

    rows: Mapping[str, Rows]
    args: Callable[[Names], dict[str, Any]] = lambda _: {}
    callers: tuple[Caller, ...] | None = None

    @property
    def declared(self) -> int:
        """The number of rows."""
        return sum(number(rows) for rows in self.rows.values())

    def as_text(self) -> str:
        """As docs/data-model.md says it."""
        return ", ".join(f"{_text(rows)} `{table}`" for table, rows in self.rows.items()) or "none"

    def args_for(self, names: Names, caller: Caller, builder: str) -> dict[str, Any]:
        """As `caller` passes them: users say which student a call is about."""
        says = builder == "studentQuery" and caller not in ("student", "agent")
        return {**self.args(names), **({"studentId": names.student} if says else {})}

    def callers_of(self, builder: str) -> tuple[Caller, ...]:
        """Who may call it."""
        return self.callers or ROLES[builder]


def number(rows: Rows) -> int:
    """So many here."""
    match rows:
        case int():
            return rows
        case (symbol, more):
            return SIZES[symbol] + more
        case symbol:
            return SIZES[symbol]


def _text(rows: Rows) -> str:
    match rows:
        case int():
            return str(rows)
        case (symbol, more):
            return f"({symbol} + {more}) \N{MULTIPLICATION SIGN}"
        case symbol:
            return f"{symbol} \N{MULTIPLICATION SIGN}"


def page(**args: Any) -> Callable[[Names], dict[str, Any]]:
    """The first page of a list."""
    options = {"numItems": SIZES["page"], "cursor": None}
    return lambda _: {**args, "paginationOpts": options}


def _range(names: Names) -> dict[str, Any]:
    """As many days as `SIZES` says, up to yesterday."""
    return {"from": names.day(SIZES["days"]), "to": names.day(1)}


COSTS: Final[dict[str, Cost]] = {
    "analytics:days": Cost({"schoolDays": "days"}, _range),
    "analytics:events": Cost(
        {"analyticsEvents": "page"},
        lambda names: {
            "eventType": "tool_call",
            "from": names.now_ms - 30 * DAY_MS,
            "to": names.now_ms,
            **page()(names),
        },
    ),
    "analytics:latency": Cost(
        {"schoolDays": "days"}, lambda names: {**_range(names), "lessonId": names.lesson}
    ),
    "avatars:list": Cost({"avatars": "page"}, page()),
    "lessons:get": Cost({"lessons": 1}, lambda names: {"lessonId": names.lesson}),
    "lessons:list": Cost(
        {"lessons": "page"}, lambda names: {"courseId": names.course, **page()(names)}
    ),
    "lessons:listCourses": Cost({"courses": "page"}, page()),
    "lessons:next": Cost({"students": 1, "courses": 1, "lessons": "begun", "progress": "begun"}),
    "lessons:published": Cost({"students": 1, "courses": 1, "lessons": "course"}),
    "messages:list": Cost(
        {"sessions": 1, "messages": "page"},
        lambda names: {"sessionKey": names.long_session, **page()(names)},
    ),
    "presentations:current": Cost(
        {"sessions": 1, "sessionLive": 1, "lessons": 1, "slideSets": 1},
        lambda names: {"sessionKey": names.session},
    ),
    "presentations:get": Cost(
        {"lessons": 1, "slideSets": 1}, lambda names: {"lessonId": names.lesson}
    ),
    "progress:corrections": Cost({"corrections": "page"}, page()),
    "progress:exerciseResults": Cost({"exerciseResults": "page"}, page()),
    "progress:list": Cost({"progress": "page"}, page()),
    "progress:ofLesson": Cost({"progress": 1}, lambda names: {"lessonId": names.lesson}),
    # Four types still occur, one row each; of four that were overcome, twenty.
    "progress:overcomeErrors": Cost({"sessions": 6, "corrections": 84}),
    "progress:recurringErrors": Cost({"corrections": 200}, lambda names: {"now": names.now_ms}),
    "sessions:get": Cost(
        {"sessions": 1, "sessionLive": 1}, lambda names: {"sessionKey": names.session}
    ),
    "sessions:list": Cost({"sessions": "page"}, page()),
    "sessions:plan": Cost(
        {"students": 1, "courses": 1, "lessons": 2, "slideSets": 1, "avatars": 1},
        lambda names: {"lessonId": names.lesson},
    ),
    "sessions:recordVersions": Cost({}),
    "sessions:resumable": Cost(
        {
            "sessions": 1,
            "sessionLive": 1,
            "sessionSummaries": 1,
            "messages": 24,
            "corrections": 50,
            "vocabulary": 40,
            "exerciseResults": 32,
        },
        lambda names: {"sessionKey": names.long_session, "now": names.now_ms},
    ),
    "sessions:summary": Cost(
        {"sessions": 1, "sessionSummaries": 1}, lambda names: {"sessionKey": names.session}
    ),
    "students:erasure": Cost({"erasures": 1}, lambda names: {"studentId": names.student_ids[1]}),
    # From where the messages begin: of the tables before there are fewer rows than a page has.
    "students:exportData": Cost(
        {"students": 1, "messages": 100},
        lambda _: {"cursor": "8:"},
        callers=("student", "guardian", "administrator"),
    ),
    "students:mine": Cost({"studentAccess": "page", "students": "page"}, page()),
    "students:profile": Cost({"students": 1}, lambda names: {"today": names.day(0)}),
    "students:tutoringContext": Cost(
        {
            "students": 1,
            "courses": 1,
            "lessons": 3,
            "slideSets": 1,
            "avatars": 1,
            "vocabulary": 20,
            "corrections": 200,
            "progress": "begun",
            "sessions": 2,
            "sessionLive": 1,
            "sessionSummaries": 1,
        },
        lambda names: {"lessonId": names.lesson, "now": names.now_ms},
    ),
    "users:accessTo": Cost(
        {"studentAccess": "people", "users": "people"},
        lambda names: {"studentId": names.student},
    ),
    "users:list": Cost({"users": "page"}, page()),
    "users:me": Cost({"users": 1}),
    "vocabulary:byState": Cost({"vocabulary": "page"}, page(state="mastered")),
    "vocabulary:due": Cost({"vocabulary": 50}, lambda names: {"now": names.now_ms}),
    "vocabulary:masteredByDay": Cost({"dailyStats": ("days", 1)}, _range),
}
