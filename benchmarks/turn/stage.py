"""Where both sides run: a school in convex-local, settings of a worker, and a place for journals."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.filled_school import FilledSchool
from emma_agent.settings import get_settings

__all__ = ["SLOW_MS", "Stage"]

SLOW_MS = 300
_MESSAGES = 1_000
_OURS = ("LIVEKIT_", "CONVEX_", "NEXT_PUBLIC_CONVEX_", "OPENAI_", "EMMA_")


@dataclass(frozen=True, slots=True)
class Stage:
    """`set_up` makes it."""

    school: FilledSchool
    outbox: Path

    @classmethod
    @contextmanager
    def set_up(cls) -> Iterator[Stage]:
        """Begin; the environment of this process is a worker's until the end."""
        with tempfile.TemporaryDirectory(prefix="emma-bench-turn-") as name:
            folder = Path(name)
            (folder / "school").mkdir()
            with FilledSchool.start(folder / "school", messages=_MESSAGES, faults=True) as school:
                before = dict(os.environ)
                for variable in list(os.environ):
                    if variable.startswith(_OURS):
                        del os.environ[variable]
                os.environ |= {
                    "CONVEX_URL": school.url,
                    "CONVEX_AGENT_KEY": school.agent_key.pem(),
                    "EMMA_OUTBOX_DIR": str(folder / "outbox"),
                    "EMMA_SPEECH": "offline",
                    "EMMA_TURN_DETECTION": "vad",
                }
                get_settings.cache_clear()
                # The first call of a function is its slowest, and no lesson's.
                lesson = {"lessonId": school.names.lesson}
                for function in ("students:tutoringContext", "sessions:resumable"):
                    school.query(function, lesson, caller="agent")
                try:
                    yield cls(school, folder / "outbox")
                finally:
                    os.environ.clear()
                    os.environ |= before
                    get_settings.cache_clear()

    def metadata(self, session_key: str) -> str:
        """Of a job that holds a lesson of the school's first student."""
        names = self.school.names
        return json.dumps(
            {
                "student_id": names.student,
                "lesson_id": names.lesson,
                "session_key": session_key,
            }
        )

    def slow(self, delay_ms: int) -> None:
        """Let every answer of Convex come so much later from now on; 0: as soon as it can."""
        self.school.fail(**({"kind": "delay", "delayMs": delay_ms} if delay_ms else {}))
