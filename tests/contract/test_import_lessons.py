"""`python -m emma_agent import-lessons` and `seed`, against the project's real functions."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emma_agent import cli
from emma_agent.convex_local import ROOT, ConvexLocal
from emma_agent.school import shipped_lessons
from emma_agent.settings import SettingsError, get_settings

Command = Callable[..., int]


@pytest.fixture(scope="module")
def local() -> Iterator[ConvexLocal]:
    with ConvexLocal.start() as local:
        yield local


@pytest.fixture
def command(local: ConvexLocal, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command line as the operator of the deployment; the exit code."""
    for name in list(os.environ):
        if name.startswith(("CONVEX_", "NEXT_PUBLIC_", "EMMA_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CONVEX_URL", local.url)
    monkeypatch.setenv("CONVEX_ADMIN_KEY", local.admin_key)

    def run(*arguments: str) -> int:
        get_settings.cache_clear()
        monkeypatch.setattr(sys, "argv", ["emma_agent", *arguments])
        try:
            cli.main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 0
        return 0

    return run


def test_the_lessons_that_ship_are_imported_and_again_change_nothing(
    command: Command, local: ConvexLocal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("import-lessons") == 0
    first = capsys.readouterr().out
    *lessons, whole = first.splitlines()
    assert [line.split(": ")[0] for line in lessons] == ["a2-at-the-doctors", "b1-a-job-interview"]
    assert whole == f"Imported into {local.url}: lessons 2, courses 1, avatars 1"

    assert command("import-lessons", *(str(path) for path in shipped_lessons())) == 0
    assert capsys.readouterr().out == first


def test_what_is_wrong_in_a_file_is_a_line_each_and_nothing_is_written(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "mine.json"
    lesson = {"slug": "mine", "title": "Mine", "level": "A7", "slides": [{"text": "x"}]}
    wrong.write_text(json.dumps({"lessons": [lesson]}))
    assert command("import-lessons", str(wrong)) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert 'mine.json: lessons[0].level: "A7" is none of A1, A2, B1, B2, C1, C2' in lines
    assert "mine.json: lessons[0].slides[0].title: is missing" in lines
    assert all(line.startswith("mine.json: lessons[0].") for line in lines)


def test_a_file_that_is_no_text_is_one_line(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "photo.json"
    wrong.write_bytes(b"{\xff}")
    assert command("import-lessons", str(wrong)) == 1
    assert capsys.readouterr().err == "photo.json: is not UTF-8 text (byte 1).\n"


def test_a_file_may_begin_with_a_byte_order_mark(command: Command, tmp_path: Path) -> None:
    """As editors on Windows write it."""
    marked = tmp_path / "mine.json"
    marked.write_bytes(b"\xef\xbb\xbf{}")
    assert command("import-lessons", str(marked)) == 0


def test_a_file_that_is_not_there_is_refused_before_anything_is_asked(command: Command) -> None:
    assert command("import-lessons", "/nonexistent.json") == 2


def test_another_deployments_key_is_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVEX_ADMIN_KEY", "other|0123456789")
    assert command("seed") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "refuses the admin key" in line


@pytest.mark.parametrize("arguments", [["import-lessons"], ["seed"]])
def test_without_a_key_the_command_says_which_it_needs(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.delenv("CONVEX_ADMIN_KEY")
    assert command(*arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("CONVEX_ADMIN_KEY is not set: ")


def test_seed_prints_what_a_room_is_dispatched_with(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("seed") == 0
    *_, metadata = capsys.readouterr().out.splitlines()
    ids = json.loads(metadata)
    assert set(ids) == {"student_id", "lesson_id"}
    assert all(re.fullmatch(r"\w+", value) for value in ids.values())

    assert command("seed") == 0
    assert capsys.readouterr().out.splitlines()[-1] == metadata


def test_without_a_checkout_the_files_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name the files that are to be imported"):
        shipped_lessons(tmp_path)
    assert len(shipped_lessons(ROOT)) == 3
