"""A school in a deployment, everybody in it with a real token, and calls over plain HTTP.

No client of ours is in between: what is asked and answered is what stands here.
"""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

from livekit.plugins import convex

Caller = Literal[
    "nobody",
    "expired token",
    "forged token",
    "wrong audience",
    "agent of another issuer",
    "agent",
    "student",
    "other student",
    "other student's agent",
    "guest's agent",
    "teacher",
    "other teacher",
    "unlinked teacher",
    "removed teacher",
    "guardian",
    "administrator",
    "stranger",
]

REFUSED: Final = "401"
"""What is answered to a token that is not believed, before any function runs."""

LEARNT: Final = "2026-11-02"
_LEARNT_MS: Final = 1_793_610_000_000.0  # that day, 09:00 UTC
_LIFETIME_S: Final = 600


class CallFailedError(AssertionError):
    """A call that the set-up of a test depends on was refused."""


class Wire:
    """One deployment, called with any token or none."""

    def __init__(self, url: str, *, key: convex.AgentKey, admin_key: str) -> None:
        self.key = key
        self._admin_key = admin_key
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

    def close(self) -> None:
        self._connection.close()

    def answer(
        self, function: str, args: Mapping[str, Any], *, authorization: str | None, kind: str
    ) -> tuple[str, Any]:
        """What comes back: `ok` and the value, or the error's code and null.

        Args:
            kind: `query`, `mutation` or `action`.
        """
        headers = {"Content-Type": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        body = json.dumps({"path": function, "args": args, "format": "json"})
        self._connection.request("POST", f"/api/{kind}", body, headers)
        response = self._connection.getresponse()
        reply = json.loads(response.read())
        if response.status == 401:
            return REFUSED, None
        if response.status != 200:
            return f"HTTP {response.status}: {reply}", None
        if reply["status"] == "success":
            return "ok", reply["value"]
        data = reply.get("errorData")
        if isinstance(data, dict) and isinstance(data.get("code"), str):
            return data["code"], None
        return f"error: {reply['errorMessage']}", None

    def as_operator(self, function: str, args: Mapping[str, Any]) -> Any:
        """Call a mutation, also an internal one, with the deployment's admin key."""
        return self.value(function, args, authorization=f"Convex {self._admin_key}")

    def value(
        self,
        function: str,
        args: Mapping[str, Any],
        *,
        authorization: str | None,
        kind: str = "mutation",
    ) -> Any:
        """The value of a call that must succeed."""
        code, value = self.answer(function, args, authorization=authorization, kind=kind)
        if code != "ok":
            raise CallFailedError(f"{function} was answered {code}")
        return value

    def token(self, subject: str, **claims: object) -> str:
        """A token of the trusted issuer; claims given here replace those that it would have."""
        return self.sign(self.key, subject, **claims)

    @staticmethod
    def sign(key: convex.AgentKey, subject: str, **claims: object) -> str:
        now = int(time.time())
        usual = {"iss": key.issuer, "aud": "convex", "sub": subject, "iat": now}
        return f"Bearer {key.sign({**usual, 'exp': now + _LIFETIME_S, **claims})}"


class Staff:
    """The users who stay as they are whatever a test does: made once for a deployment."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.ids: dict[Caller, str] = {}
        self.tokens: dict[Caller, str] = {"administrator": wire.token("root")}
        person = {"name": "Root", "email": "root@school.invalid"}
        invited = wire.as_operator("users:addAdministrator", person)
        code = invited["invitationCode"]
        wire.value("users:accept", {"code": code}, authorization=self.tokens["administrator"])
        for caller in ("teacher", "other teacher", "unlinked teacher"):
            self._let_in(caller, "teacher")
        self._let_in("guardian", "guardian")

    def _let_in(self, caller: Caller, role: str) -> None:
        self.ids[caller], code = self.invite(caller.replace(" ", "-"), role)
        self.tokens[caller] = self._wire.token(caller)
        self._wire.value("users:accept", {"code": code}, authorization=self.tokens[caller])

    def invite(self, name: str, role: str = "teacher") -> tuple[str, str]:
        """A user who has not come yet, and the code for them."""
        said = {"name": name, "email": f"{name}@school.invalid", "role": role}
        token = self.tokens["administrator"]
        invited = self._wire.value("users:invite", said, authorization=token)
        return invited["userId"], invited["invitationCode"]


class School:
    """Two students, those who may see the first, and those who may not (any more).

    What a test changes of it concerns this school alone: make one for each test.

    Attributes:
        next_seq: the `seq` that follows in the run of the student's lesson.
        set_aside_seq: that of a record of it that was set aside.
    """

    _numbers = itertools.count(1)

    def __init__(self, wire: Wire, staff: Staff) -> None:
        self._wire = wire
        self._staff = staff
        self._name = f"school-{next(self._numbers)}"
        self._tokens: dict[Caller, str | None] = {**staff.tokens}
        self.student_id = self.new_student()
        self.other_student_id = self.new_student()
        self._tokens |= self._tokens_of_no_user()
        self._removed_id, code = self.invite()
        self._tokens["removed teacher"] = wire.token(f"{self._name}-removed")
        self.do("removed teacher", "users:accept", code=code)
        for user_id in (self._removed_id, *staff.ids.values()):
            is_other = user_id == staff.ids["other teacher"]
            student_id = self.other_student_id if is_other else self.student_id
            self.do("administrator", "users:link", userId=user_id, studentId=student_id)
        self.lesson_id = self.new_lesson()
        self.session_key = self.run_id = f"{self._name}-run"
        self.next_seq = self._hold_a_lesson()
        self.set_aside_seq = self.next_seq - 1

    # -------------------------------------------------------------------------------------------
    # Calls

    def answer(self, caller: Caller, function: str, args: Mapping[str, Any], *, kind: str) -> str:
        """`ok`, or the code of the refusal."""
        authorization = self._tokens[caller]
        return self._wire.answer(function, args, authorization=authorization, kind=kind)[0]

    def ask(self, caller: Caller, function: str, **args: Any) -> Any:
        """The value of a query that must be answered."""
        return self._call(caller, function, args, "query")

    def do(self, caller: Caller, function: str, **args: Any) -> Any:
        """The value of a mutation that must succeed."""
        return self._call(caller, function, args, "mutation")

    def _call(self, caller: Caller, function: str, args: Mapping[str, Any], kind: str) -> Any:
        return self._wire.value(function, args, authorization=self._tokens[caller], kind=kind)

    # -------------------------------------------------------------------------------------------
    # People

    def _tokens_of_no_user(self) -> dict[Caller, str | None]:
        wire = self._wire
        agent = {"role": "agent", "student_id": self.student_id}
        subject = f"student:{self.student_id}"
        other = f"student:{self.other_student_id}"
        forger = convex.AgentKey.generate(issuer=wire.key.issuer)
        # The key's name is taken from the real one: the signature alone is wrong.
        forger.key_id = wire.key.key_id
        return {
            "nobody": None,
            "expired token": wire.token(subject, **agent, exp=int(time.time()) - 60),
            "forged token": wire.sign(forger, subject, **agent),
            "wrong audience": wire.token(subject, **agent, aud="somebody-else"),
            "agent of another issuer": wire.token(subject, **agent, iss="https://evil.invalid"),
            "agent": wire.token(subject, **agent),
            "student": wire.token(subject, role="student", student_id=self.student_id),
            "other student": wire.token(other, role="student", student_id=self.other_student_id),
            "other student's agent": wire.token(
                other, role="agent", student_id=self.other_student_id
            ),
            "guest's agent": wire.token(f"guest:{self._name}", role="agent"),
            "stranger": wire.token(f"{self._name}-stranger"),
        }

    def send_away(self) -> None:
        """Unlink one teacher and remove another, who until now could see the student."""
        for user in ("unlinked teacher", "removed teacher"):
            self.ask(user, "students:profile", studentId=self.student_id, today=LEARNT)
        link = {"userId": self._staff.ids["unlinked teacher"], "studentId": self.student_id}
        self.do("administrator", "users:unlink", **link)
        self.do("administrator", "users:remove", userId=self._removed_id)

    def invite(self) -> tuple[str, str]:
        """A teacher who has not come yet, and the code for them."""
        return self._staff.invite(self.unique())

    def new_student(self) -> str:
        student_id = self.do("administrator", "students:create", **NEW_STUDENT)
        assert isinstance(student_id, str)
        return student_id

    # -------------------------------------------------------------------------------------------
    # What is taught

    def unique(self) -> str:
        """A name that nothing has yet."""
        return f"{self._name}-{next(self._numbers)}"

    @cached_property
    def course_id(self) -> str:
        """The course that the lesson is in, once this was asked."""
        course_id = self.new_course()
        changes = {"courseId": course_id}
        self.do("administrator", "lessons:update", lessonId=self.lesson_id, changes=changes)
        return course_id

    @cached_property
    def avatar_id(self) -> str:
        return self.new_avatar()

    def new_course(self) -> str:
        course = {"slug": self.unique(), "title": "Food", "language": "en", "level": "A2"}
        made = self.do("administrator", "lessons:createCourse", **course, published=True)
        return str(made["courseId"])

    def new_avatar(self) -> str:
        made = self.do("administrator", "avatars:create", **NEW_AVATAR, slug=self.unique())
        return str(made["avatarId"])

    def new_lesson(self, *, slides: bool = True, **said: str) -> str:
        made = self.do("administrator", "lessons:create", **NEW_LESSON, **said)
        if slides:
            self.do(
                "administrator",
                "presentations:create",
                lessonId=made["lessonId"],
                title="Market",
                slides=SLIDES,
            )
        return str(made["lessonId"])

    def _hold_a_lesson(self) -> int:
        """The student's first lesson, with a record of each kind; returns the `seq` after it."""
        start = {"sessionKey": self.session_key, "room": "r", "jobId": "j", "agentName": "emma"}
        text = {"itemId": "i1", "role": "user", "text": "I have hungry", "interrupted": False}
        error = {"said": "have hungry", "target": "am hungry", "errorType": "verb_form"}
        records: list[dict[str, Any]] = [
            {"kind": "sessionStarted", **start, "lessonId": self.lesson_id},
            {"kind": "message", **text},
            {"kind": "correction", "correctionId": "c1", "itemId": "i1", **CORRECTION, **error},
            {"kind": "wordIntroduced", "word": WORD, "language": "en"},
            {"kind": "exerciseResult", "exerciseId": "e1", "score": 1, "answer": "an apple"},
            {"kind": "slideShown", "slide": 0},
            {"kind": "setAside", "code": "text_too_long", "field": "text", "ofKind": "message"},
        ]
        for seq, record in enumerate(records):
            record |= {"seq": seq, "createdAt": _LEARNT_MS + 1_000 * seq}
        self.do("agent", "sessions:record", version=1, runId=self.run_id, records=records)
        return len(records)

    def message(self, seq: int) -> dict[str, Any]:
        """A record of the run."""
        said = {"role": "user", "text": "Yes, please.", "interrupted": False}
        return {
            "kind": "message",
            "seq": seq,
            "createdAt": _LEARNT_MS + 1_000 * seq,
            "itemId": f"i{seq}",
            **said,
        }


WORD: Final = "apple"
CORRECTION: Final = {"severity": "minor", "repaired": False}
SLIDES: Final = [{"title": "Fruit", "text": "An apple"}, {"title": "Bread", "text": "A loaf"}]
NEW_STUDENT: Final = {
    "name": "Aya",
    "level": "B1",
    "nativeLanguage": "ja",
    "targetLanguage": "en",
    "timeZone": "Asia/Tokyo",
    "goals": [],
    "interests": [],
}
NEW_AVATAR: Final = {
    "name": "Emma",
    "persona": "You are Emma.",
    "voice": "alloy",
    "language": "en",
    "teachingStyle": "patient",
}
NEW_LESSON: Final = {
    "title": "At the market",
    "level": "A2",
    "language": "en",
    "kind": "guided",
    "objectives": ["Ask for food"],
    "targetWords": [WORD],
}
