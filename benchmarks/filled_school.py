"""convex-local with a school of a given size, and calls to it that tell what they cost.

For the benchmark and the test of what queries read:

    with FilledSchool.start(folder, messages=1_000) as school:
        answer = school.query("messages:list", {...}, caller="student")
        answer.usage.documents_read

One student has four fifths of the history, of which one session alone has a fifth; the others share
the rest. The functions are the project's own; its crons do not run, so that nothing changes while
one measures.
"""

from __future__ import annotations

import hmac
import http.client
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import jwt
from cryptography.hazmat.primitives import serialization

from emma_agent.convex_local import ROOT, ConvexLocal, copy_functions
from livekit.plugins.convex import AgentKey

Caller = Literal["agent", "student", "teacher", "guardian", "administrator"]
CALLERS: tuple[Caller, ...] = ("agent", "student", "teacher", "guardian", "administrator")

DAY_MS = 86_400_000
MESSAGES_PER_SESSION = 20
LESSONS = 24
COMPLETED = 11
"""Lessons of the course that the first student has behind them."""
LINKED = LESSONS + 2
"""Users who may see the first student."""
SHARE_OF_FIRST = 0.8
SHARE_IN_ONE_SESSION = 0.2
MAX_DAYS = 1_000
"""The history is no longer than this: more messages mean more lessons a day."""
_ROWS_PER_CALL = 2_500
_ROWS_PER_SESSION = 43
_TOKEN_LIFETIME_S = 3600
_ERASURE_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one call read, as convex-local counts it."""

    documents_read: int
    bytes_read: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call returned or threw, and what it cost."""

    value: Any
    error: str | None
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True)
class Names:
    """What is in the school, for the arguments of queries."""

    student: str
    student_ids: list[str]
    lesson: str
    course: str
    avatar: str
    user: str
    long_session: str
    session: str
    now_ms: int

    def day(self, before: int) -> str:
        """`YYYY-MM-DD`, so many days before the school's today (UTC)."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.now_ms / 1000 - before * 86_400))


class FilledSchool:
    """A running convex-local with rows in it; use it as a context manager."""

    def __init__(self, local: ConvexLocal, messages: int, names: Names | None = None) -> None:
        """Use `start`."""
        self.messages = messages
        self._local = local
        self._connection: http.client.HTTPConnection | None = None
        self._tokens: dict[Caller, str] = {}
        self._names = names

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        messages: int,
        faults: bool = False,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Self:
        """Fill a database in `folder` and start anew on it, so that all sizes begin alike.

        Args:
            folder: an empty directory of this school's own.
            messages: at least 1,000, so that no page and no bounded list is shorter than it may be.
            faults: let `fail` make calls go wrong.
            on_progress: gets the number of messages written so far.
        """
        project = _project(folder)
        key = AgentKey.generate()

        def run() -> ConvexLocal:
            return ConvexLocal.start(
                project=project,
                db=folder / "db.sqlite3",
                agent_key=key,
                env={"ERASURE_KEY": _ERASURE_KEY},
                faults=faults,
            )

        with run() as local:
            school = cls(local, messages)
            school._fill(on_progress)
            school.close_connection()
        local = run()
        local.wait_ready()
        return cls(local, messages, school.names)

    @property
    def url(self) -> str:
        return self._local.url

    @property
    def agent_key(self) -> AgentKey:
        """What the deployment trusts."""
        return self._local.agent_key

    def fail(self, **fault: Any) -> None:
        """Let calls go wrong in this way from now on; without one, in none."""
        headers = {
            "Authorization": f"Convex {self._local.admin_key}",
            "Content-Type": "application/json",
        }
        for method in ("DELETE", "POST") if fault else ("DELETE",):
            connection = self._open()
            body = json.dumps(fault) if method == "POST" else None
            connection.request(method, "/_local/faults", body, headers)
            reply = connection.getresponse()
            reply.read()
            if reply.status >= 300:
                raise RuntimeError(f"/_local/faults was answered {reply.status}")

    @property
    def names(self) -> Names:
        assert self._names is not None
        return self._names

    def query(self, function: str, args: Mapping[str, Any], *, caller: Caller) -> Answer:
        """Call a public query as `caller`, about the student with the most history."""
        return self._call("query", function, args, f"Bearer {self._token(caller)}")

    def ping(self) -> float:
        """Seconds that a request takes for which nothing is read: what the machine itself costs."""
        started = time.perf_counter()
        self._open().request("GET", "/version")
        self._open().getresponse().read()
        return time.perf_counter() - started

    def close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        self.close_connection()
        self._local.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _call(
        self, kind: Literal["query", "mutation"], function: str, args: Any, authorization: str
    ) -> Answer:
        connection = self._open()
        body = json.dumps({"path": function, "args": args, "format": "json"}).encode()
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        started = time.perf_counter()
        connection.request("POST", f"/api/{kind}", body, headers)
        response = connection.getresponse()
        text = response.read()
        seconds = time.perf_counter() - started
        answer = json.loads(text)
        if response.status != 200:
            raise RuntimeError(f"{function}: {response.status} {answer}")
        counted = json.loads(response.headers["Convex-Local-Usage"])
        usage = Usage(counted["documentsRead"], counted["bytesRead"])
        error = answer.get("errorMessage") if answer["status"] == "error" else None
        return Answer(answer.get("value"), error, usage, seconds)

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is None:
            host, _, port = self._local.url.removeprefix("http://").partition(":")
            self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        return self._connection

    def _fill_with(self, function: str, args: Mapping[str, Any]) -> Any:
        answer = self._call("mutation", f"fill:{function}", args, f"Convex {self._local.admin_key}")
        if answer.error is not None:
            raise RuntimeError(f"fill:{function}: {answer.error}")
        return answer.value

    def _fill(self, on_progress: Callable[[int], None]) -> None:
        in_one = round(self.messages * SHARE_IN_ONE_SESSION)
        held = (self.messages - in_one) // MESSAGES_PER_SESSION
        of_first = round(held * SHARE_OF_FIRST)
        # The hour, as clients ask; whole days are counted back from it.
        now_ms = int(time.time() // 3600 * 3_600_000)
        made = self._fill_with(
            "school",
            {
                "now": now_ms,
                "students": max(LESSONS, self.messages // 200),
                "lessons": LESSONS,
                "completed": COMPLETED,
                **{who: f"{self._local.agent_key.issuer}|{who}" for who in CALLERS[2:]},
            },
        )
        first, *others = made["students"]
        digest = hmac.digest(_ERASURE_KEY.encode(), others[0].encode(), "sha256")
        self._fill_with("erasure", {"studentHash": digest.hex(), "now": now_ms})
        self._names = Names(
            student=first,
            student_ids=made["students"],
            lesson=made["lessons"][0],
            course=made["courseId"],
            avatar=made["avatarId"],
            user=made["userId"],
            long_session="the-long-session",
            session="first-0",
            now_ms=now_ms,
        )
        gap_ms = min(DAY_MS, MAX_DAYS * DAY_MS // of_first)
        days = of_first * gap_ms // DAY_MS
        step = _ROWS_PER_CALL // _ROWS_PER_SESSION
        history = {
            "now": now_ms,
            "gapMs": gap_ms,
            "messages": MESSAGES_PER_SESSION,
            "lessonIds": made["lessons"],
        }
        written = 0
        for begin in range(0, in_one, _ROWS_PER_CALL):
            end = min(in_one, begin + _ROWS_PER_CALL)
            self._fill_with(
                "longSession",
                {
                    "studentId": first,
                    "lessonId": made["lessons"][0],
                    "key": self._names.long_session,
                    "startedAt": now_ms - (days + 2) * DAY_MS,
                    "messages": in_one,
                    "from": begin,
                    "to": end,
                },
            )
            written += end - begin
            on_progress(written)
        for index, student in enumerate(made["students"]):
            share = of_first if index == 0 else (held - of_first) // len(others)
            name = "first" if index == 0 else f"other{index}"
            for begin in range(0, share, step):
                end = min(share, begin + step)
                own = {"studentId": student, "name": name, "from": begin, "to": end}
                self._fill_with("sessions", {**history, **own})
                written += (end - begin) * MESSAGES_PER_SESSION
                on_progress(written)
        for begin in range(1, days, 300):
            some = {"from": begin, "to": min(days, begin + 300), "now": now_ms, "studentId": first}
            self._fill_with("days", {**some, "lessonIds": made["lessons"][:4]})

    def _token(self, caller: Caller) -> str:
        """A token as the agent, the school's sign-in or its identity provider makes it."""
        if caller not in self._tokens:
            student = {"role": caller, "student_id": self.names.student}
            is_user = caller not in ("agent", "student")
            key = self._local.agent_key
            self._tokens[caller] = jwt.encode(
                {
                    "iss": key.issuer,
                    "aud": "convex",
                    "sub": caller if is_user else f"student:{self.names.student}",
                    "iat": int(time.time()),
                    "exp": int(time.time()) + _TOKEN_LIFETIME_S,
                    **({} if is_user else student),
                },
                serialization.load_pem_private_key(key.pem().encode(), None),  # type: ignore[arg-type]
                algorithm="ES256",
                headers={"kid": key.key_id},
            )
        return self._tokens[caller]


def _project(folder: Path) -> Path:
    """The project's functions beside the ones that fill, without crons."""
    copy_functions(folder)
    (folder / "convex" / "crons.ts").unlink()
    shutil.copy(ROOT / "benchmarks" / "fill.ts", folder / "convex")
    return folder
