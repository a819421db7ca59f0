"""Rows of a student as statements of xAPI 1.0.3, for a learning record store.

Statements are made of what a lesson left for good: each committed message, each answer to an
exercise, each lesson that was finished. A statement has the same id whenever it is made, so that a
store which has it already takes it no second time.

Source: https://github.com/adlnet/xAPI-Spec, version 1.0.3.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

__all__ = ["EXTENSION", "VERSION", "Statements"]

VERSION: Final = "1.0.3"
EXTENSION: Final = "https://emma.invalid/xapi/extensions/"
"""In front of the names of extensions, which have to be IRIs."""

_VERBS: Final = "http://adlnet.gov/expapi/verbs/"
_ACTIVITIES: Final = "http://adlnet.gov/expapi/activities/"
_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_URL, "https://emma.invalid/xapi")

Statement = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Session:
    key: str
    lesson_id: str | None


class Statements:
    """Makes statements of rows that come in the export's order: sessions before what is in them.

    Args:
        deployment: URL of the deployment, in which the student's id means this student.
    """

    def __init__(self, student_id: str, deployment: str) -> None:
        self._student_id = student_id
        self._deployment = deployment
        self._sessions: dict[str, _Session] = {}

    def of(self, table: str, row: Mapping[str, Any]) -> Iterator[Statement]:
        """The statements of one row: none where it tells nothing that somebody did.

        Nor of a session that began while its student was being exported: the next export has it.
        """
        session = self._sessions.get(row.get("sessionId", ""))
        match table:
            case "sessions":
                session = _Session(row["sessionKey"], row.get("lessonId"))
                self._sessions[row["_id"]] = session
                if "completedAt" in row:
                    yield self._completed(session, row)
            case "messages" if session is not None and not row["provisional"]:
                yield self._said(session, row)
            case "exerciseResults" if session is not None:
                yield self._answered(session, row)
            case _:
                pass

    def _said(self, session: _Session, row: Mapping[str, Any]) -> Statement:
        by_student = row["role"] == "user"
        statement = self._statement(
            session,
            _id(session.key, row["itemId"]),
            actor=self._account(self._student_id if by_student else "emma"),
            verb="commented",
            activity=self._session_activity(session),
            at_ms=row["createdAt"],
            extensions={"item-id": row["itemId"], "interrupted": row["interrupted"]},
        )
        statement["result"] = {"response": row["text"]}
        if "language" in row:
            statement["context"]["language"] = row["language"]
        return statement

    def _answered(self, session: _Session, row: Mapping[str, Any]) -> Statement:
        exercise = quote(row["exerciseId"], safe="")
        lesson = self._lesson_activity(session)
        statement = self._statement(
            session,
            _id(session.key, row["runId"], str(row["seq"])),
            actor=self._account(self._student_id),
            verb="answered",
            activity=_activity(f"{lesson['id']}/exercises/{exercise}", "question"),
            at_ms=row["createdAt"],
            extensions={"exercise-id": row["exerciseId"]},
        )
        statement["result"] = {"response": row["answer"], "score": {"scaled": row["score"]}}
        return statement

    def _completed(self, session: _Session, row: Mapping[str, Any]) -> Statement:
        statement = self._statement(
            session,
            _id(session.key, "completed"),
            actor=self._account(self._student_id),
            verb="completed",
            activity=self._lesson_activity(session),
            at_ms=row["completedAt"],
            extensions={},
        )
        statement["result"] = {"completion": True}
        return statement

    def _statement(
        self,
        session: _Session,
        statement_id: str,
        *,
        actor: dict[str, Any],
        verb: str,
        activity: dict[str, Any],
        at_ms: float,
        extensions: Mapping[str, Any],
    ) -> Statement:
        named = {"session-key": session.key, **extensions}
        return {
            "id": statement_id,
            "actor": actor,
            "verb": {"id": f"{_VERBS}{verb}", "display": {"en": verb}},
            "object": activity,
            "context": {
                "registration": _id(session.key),
                "instructor": self._account("emma"),
                "platform": "Emma",
                "contextActivities": {"parent": [self._lesson_activity(session)]},
                "extensions": {f"{EXTENSION}{name}": value for name, value in named.items()},
            },
            "timestamp": _instant(at_ms),
            "version": VERSION,
        }

    def _account(self, name: str) -> dict[str, Any]:
        """By an account and never by name: a store may be read by people who need none."""
        return {
            "objectType": "Agent",
            "account": {"homePage": self._deployment, "name": name},
        }

    def _session_activity(self, session: _Session) -> dict[str, Any]:
        key = quote(session.key, safe="")
        return _activity(f"{self._deployment}/sessions/{key}", "meeting")

    def _lesson_activity(self, session: _Session) -> dict[str, Any]:
        """The session itself where it was held without a lesson."""
        if session.lesson_id is None:
            return self._session_activity(session)
        return _activity(f"{self._deployment}/lessons/{session.lesson_id}", "lesson")


def _activity(iri: str, kind: str) -> dict[str, Any]:
    return {
        "objectType": "Activity",
        "id": iri,
        "definition": {"type": f"{_ACTIVITIES}{kind}"},
    }


def _id(*parts: str) -> str:
    # A key may hold any character, so that only lengths keep the parts apart.
    return str(uuid.uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts)))


def _instant(at_ms: float) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
