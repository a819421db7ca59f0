"""The last known context on disk: whole or not there, private, for a week, and never too much."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from emma_agent import known_context
from emma_agent.context import parse_context
from emma_agent.known_context import (
    KEPT_FOR_S,
    ContextTooLargeError,
    KeptHere,
    KnownContext,
    forget,
    keep,
    look,
    prune,
    recall,
)
from emma_agent.wire import ContextError
from tests.support.wire import LESSON, tutoring_context

URL, OTHER_URL = "https://school.convex.cloud", "https://other.convex.cloud"
NOW = 1_795_474_184.25


def known(student_id: str = "student_1", **changes: Any) -> KnownContext:
    ana = KnownContext(
        deployment=URL,
        student_id=student_id,
        lesson_id="lesson_1",
        session_key="s1",
        kept_at=NOW,
        context=tutoring_context(),
    )
    return replace(ana, **changes)


def recalled(directory: Path, *, now: float = NOW + 1.0, **changes: str) -> KnownContext | None:
    asked = {"student_id": "student_1", "deployment": URL} | changes
    return recall(directory, **asked, now=now)


def only_file(directory: Path) -> Path:
    [path] = directory.iterdir()
    return path


# What is kept is what was told


def test_what_convex_told_is_there_again(tmp_path: Path) -> None:
    keep(tmp_path, known())
    assert recalled(tmp_path) == known()


def test_the_last_answer_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    keep(tmp_path, known())
    later = known(lesson_id=None, session_key="s2", kept_at=NOW + 60)
    keep(tmp_path, later)
    assert recalled(tmp_path, now=NOW + 61) == later
    assert only_file(tmp_path)


def test_each_student_of_each_deployment_has_their_own(tmp_path: Path) -> None:
    keep(tmp_path, known())
    assert recalled(tmp_path, student_id="student_2") is None
    assert recalled(tmp_path, deployment=OTHER_URL) is None
    assert recalled(tmp_path / "none") is None


def test_another_students_file_under_this_ones_name_is_not_believed(tmp_path: Path) -> None:
    keep(tmp_path, known())
    name = only_file(tmp_path).name
    keep(tmp_path / "other", known("student_2"))
    only_file(tmp_path / "other").replace(tmp_path / name)
    assert recalled(tmp_path) is None


# On disk


def test_it_is_this_users_alone_and_its_name_gives_nobody_away(tmp_path: Path) -> None:
    directory = tmp_path / "outbox"
    before = os.umask(0)
    try:
        keep(directory, known())
    finally:
        os.umask(before)
    path = only_file(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.suffix == ".context"
    assert "student_1" not in path.name


def test_whoever_reads_while_it_is_written_finds_one_or_the_other_whole(tmp_path: Path) -> None:
    answers = [known(session_key=f"s{n}", context=tutoring_context(n="x" * 20_000)) for n in (1, 2)]
    keep(tmp_path, answers[0])
    ended = threading.Event()

    def write() -> None:
        for n in range(50):
            keep(tmp_path, answers[n % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert recalled(tmp_path) in answers
    writer.join()
    assert only_file(tmp_path)


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_disk_that_refuses_leaves_the_former_one_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    keep(tmp_path, known())

    def refuse(*args: object, **kwargs: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "write":

        class Full:
            def __init__(self, fd: int, mode: str) -> None:
                os.close(fd)

            def __enter__(self) -> Full:
                return self

            def __exit__(self, *args: object) -> None:
                pass

            write = refuse

        monkeypatch.setattr(os, "fdopen", Full)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        keep(tmp_path, known(session_key="s2"))
    assert recalled(tmp_path) == known()
    assert only_file(tmp_path)


# As if it were not there


def cut(line: bytes) -> bytes:
    return line[:-20]


def flip(line: bytes) -> bytes:
    """One bit of the name: the JSON stays what it was."""
    return line.replace(b'"name":"Ana"', b'"name":"Bna"')


def of_another_version(line: bytes) -> bytes:
    text = line[9:-1].replace(b'"format":1', b'"format":2')
    return b"%08x %b\n" % (crc32(text), text)


def without_a_field(line: bytes) -> bytes:
    text = line[9:-1].replace(b'"keptAt"', b'"at"')
    return b"%08x %b\n" % (crc32(text), text)


def no_object(line: bytes) -> bytes:
    return b"%08x %b\n" % (crc32(b"[]"), b"[]")


def nothing(line: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(
    "damage", [cut, flip, of_another_version, without_a_field, no_object, nothing]
)
def test_what_is_damaged_is_not_there_and_is_replaced(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    keep(tmp_path, known())
    path = only_file(tmp_path)
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    assert recalled(tmp_path) is None
    keep(tmp_path, known())
    assert recalled(tmp_path) == known()


def test_it_expires(tmp_path: Path) -> None:
    keep(tmp_path, known())
    assert recalled(tmp_path, now=NOW + KEPT_FOR_S - 1) == known()
    assert recalled(tmp_path, now=NOW + KEPT_FOR_S + 1) is None


def test_what_comes_from_tomorrow_is_not_believed(tmp_path: Path) -> None:
    """The clock was set back: nobody knows how old it is."""
    keep(tmp_path, known())
    assert recalled(tmp_path, now=NOW - 86_400) is None


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    keep(tmp_path, known())
    path = only_file(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        recalled(tmp_path)


# Not too much of it


def test_what_is_too_large_is_not_kept_and_the_former_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(tmp_path, known())
    monkeypatch.setattr(known_context, "MAX_BYTES", only_file(tmp_path).stat().st_size)
    with pytest.raises(ContextTooLargeError):
        keep(tmp_path, known(session_key="s1 and one more"))
    assert recalled(tmp_path) == known()
    assert only_file(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), b"bytes", {1, 2}])
def test_what_json_cannot_hold_is_not_kept(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError):
        keep(tmp_path, known(context=tutoring_context(extra=value)))
    assert list(tmp_path.iterdir()) == []


def aged(directory: Path, student_id: str, *, days: float) -> None:
    """A file that was written so many days ago."""
    before = set(directory.iterdir())
    keep(directory, known(student_id))
    [path] = set(directory.iterdir()) - before
    at = time.time() - days * 86_400
    os.utime(path, (at, at))


def students_in(directory: Path) -> list[str]:
    return [n for n in "abcdef" if recalled(directory, student_id=n) is not None]


def test_what_is_too_old_goes_although_nobody_asks_for_it(tmp_path: Path) -> None:
    aged(tmp_path, "a", days=6.9)
    aged(tmp_path, "b", days=7.1)
    (tmp_path / "run_1.journal").write_text("not ours")
    os.utime(tmp_path / "run_1.journal", (NOW - 1e8, NOW - 1e8))
    assert prune(tmp_path) == 1
    aged(tmp_path, "c", days=-2)
    assert prune(tmp_path) == 1
    assert students_in(tmp_path) == ["a"]
    assert (tmp_path / "run_1.journal").exists()
    assert prune(tmp_path / "none") == 0


def test_there_are_never_more_than_so_many_and_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_context, "MAX_FILES", 3)
    for student, days in (("a", 2.0), ("b", 4.0), ("c", 1.0), ("d", 3.0)):
        aged(tmp_path, student, days=days)
    assert students_in(tmp_path) == ["a", "c", "d"]
    keep(tmp_path, known("e"))
    assert students_in(tmp_path) == ["a", "c", "e"]


def test_they_never_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(tmp_path, "a", days=2)
    monkeypatch.setattr(known_context, "MAX_TOTAL_BYTES", only_file(tmp_path).stat().st_size * 2)
    aged(tmp_path, "b", days=1)
    keep(tmp_path, known("c"))
    assert students_in(tmp_path) == ["b", "c"]


def test_how_much_there_is_can_be_told(tmp_path: Path) -> None:
    assert look(tmp_path / "none") == KeptHere()
    aged(tmp_path, "a", days=2)
    keep(tmp_path, known("b"))
    found = look(tmp_path)
    assert (found.files, found.size) == (2, sum(p.stat().st_size for p in tmp_path.iterdir()))
    assert found.oldest_at == pytest.approx(time.time() - 2 * 86_400, abs=60)


def test_forgetting_leaves_nothing_of_the_student_and_everything_of_others(tmp_path: Path) -> None:
    keep(tmp_path, known())
    keep(tmp_path, known(deployment=OTHER_URL))
    [half, _] = tmp_path.iterdir()
    half.with_name(f".{half.name}.4f2a.tmp").write_text("Ana")
    keep(tmp_path, known("student_2", context={}))
    forget(tmp_path, student_id="student_1")
    assert b"Ana" not in only_file(tmp_path).read_bytes()
    forget(tmp_path, student_id="student_1")
    forget(tmp_path / "none", student_id="student_1")


# What it says to another job


def test_a_job_that_goes_on_with_the_session_has_what_it_had() -> None:
    found = known().for_job(lesson_id="lesson_1", session_key="s1")
    assert found == parse_context(tutoring_context())


def test_to_a_later_session_the_one_it_was_kept_in_is_the_last() -> None:
    found = known().for_job(lesson_id="lesson_1", session_key="s2")
    assert found.lesson is not None
    assert found.last_session is not None
    assert (found.last_session.lesson_title, found.last_session.session_key) == (
        "At the market",
        "s1",
    )
    assert found.last_session.started_at == NOW
    free = known(lesson_id=None, context=tutoring_context(lesson=None))
    last = free.for_job(lesson_id=None, session_key="s2").last_session
    assert last is not None
    assert last.lesson_title is None


@pytest.mark.parametrize("lesson_id", ["lesson_2", None])
def test_of_another_lesson_the_student_alone_is_used(lesson_id: str | None) -> None:
    told = tutoring_context(
        nextLesson={"lessonId": "lesson_9", "title": "Next"},
        avatar={"name": "Kim", "persona": "You sell fish."},
    )
    found = known(context=told).for_job(lesson_id=lesson_id, session_key="s2")
    was = parse_context(told)
    assert (found.lesson, found.next_lesson, found.avatar) == (None, None, None)
    assert (found.student, found.preferences) == (was.student, was.preferences)
    assert (found.words_due, found.recurring_errors) == (was.words_due, was.recurring_errors)
    assert found.progress is not None
    assert (found.progress.lessons_completed, found.progress.this_lesson) == (3, None)
    assert LESSON["title"] == (found.last_session.lesson_title if found.last_session else None)


def test_the_shape_of_other_functions_is_told() -> None:
    with pytest.raises(ContextError):
        known(context={"student": {"name": "Ana"}}).for_job(lesson_id=None, session_key="s2")
