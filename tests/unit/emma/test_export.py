"""What is held about a student, as files: JSON Lines, CSV and xAPI statements."""

from __future__ import annotations

import csv
import json
import stat
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from emma_agent import cli
from emma_agent.export import Format, export
from emma_agent.school import Administrator, CallError
from emma_agent.settings import get_settings
from emma_agent.xapi import EXTENSION, Statements

URL = "https://happy-otter-1.convex.cloud"
T0 = 1_795_474_184_970.0
ARABIC = "ذهبت إلى السوق 🍎"

STUDENT = {"_id": "k57", "_creationTime": T0, "name": "Carlos", "goals": ["food"]}
SESSION = {
    "_id": "s1",
    "sessionKey": "lesson 1/a",
    "lessonId": "l1",
    "completedAt": T0 + 60_000.0,
    "provisionalEnd": False,
}


def message(item_id: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "_id": f"m-{item_id}",
        "sessionId": "s1",
        "itemId": item_id,
        "role": "user",
        "text": text,
        "interrupted": False,
        "provisional": False,
        "createdAt": T0,
        "seq": 3.0,
        **more,
    }


RESULT = {
    "_id": "e1",
    "sessionId": "s1",
    "runId": "run_1",
    "seq": 7.0,
    "exerciseId": "fill in/1",
    "score": 0.5,
    "answer": "a loaf",
    "createdAt": T0 + 1_000.0,
}


class FakeAdministrator(Administrator):
    """A deployment that holds these rows, two to a page; None in them is a call that fails."""

    def __init__(self, *rows: tuple[str, dict[str, Any]] | None) -> None:
        self.url = URL
        self._rows = rows

    def query(self, name: str, args: Any = None, *, timeout_s: float = 60.0) -> Any:
        assert name == "students:exportDataInternal"
        begin = int(args["cursor"] or 0)
        page = self._rows[begin : begin + 2]
        if None in page or not page:
            raise CallError(["students:exportDataInternal: out of reach"])
        done = begin + 2 >= len(self._rows)
        return {
            "rows": [{"table": row[0], "row": row[1]} for row in page if row is not None],
            "cursor": None if done else str(begin + 2),
            "isDone": done,
        }


EVERYTHING = FakeAdministrator(
    ("students", STUDENT),
    ("sessions", SESSION),
    ("messages", message("item_1", ARABIC, language="ar")),
    ("messages", message("item_2", "Hello, Carlos!\nHow are you?", role="assistant")),
    ("messages", message("transcript:run_1:9", "I go", provisional=True)),
    ("exerciseResults", RESULT),
)


def files_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def statements(*rows: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    made = Statements("k57", URL)
    return [one for table, row in rows for one in made.of(table, row)]


def test_json_lines_have_every_row_with_whole_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(EVERYTHING, "k57", form="jsonl", output=None) == []

    text = capsys.readouterr().out
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["table"] for line in lines] == [
        "students",
        "sessions",
        *["messages"] * 3,
        "exerciseResults",
    ]
    assert lines[2]["row"]["text"] == ARABIC
    assert ARABIC in text
    assert '"createdAt":1795474184970,' in text
    assert '"score":0.5' in text


def test_csv_is_a_file_for_each_table(tmp_path: Path) -> None:
    paths = export(EVERYTHING, "k57", form="csv", output=tmp_path / "new" / "one")

    names = ["students.csv", "sessions.csv", "messages.csv", "exerciseResults.csv"]
    assert [path.name for path in paths] == names
    assert files_in(tmp_path / "new" / "one") == sorted(names)
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == [ARABIC, "Hello, Carlos!\nHow are you?", "I go"]
    # A column that not every row has; a plain value; what is none is JSON.
    assert [row["language"] for row in rows] == ["ar", "", ""]
    assert (rows[0]["seq"], rows[0]["provisional"]) == ("3", "false")
    with paths[0].open(newline="") as file:
        assert next(csv.DictReader(file))["goals"] == '["food"]'


@pytest.mark.parametrize("form", ["jsonl", "csv", "xapi"])
def test_files_are_for_their_owner_alone(tmp_path: Path, form: Format) -> None:
    paths = export(EVERYTHING, "k57", form=form, output=tmp_path / "new")

    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("form", ["jsonl", "xapi"])
def test_an_export_that_is_cut_off_leaves_no_half_file(tmp_path: Path, form: Format) -> None:
    failing = FakeAdministrator(("students", STUDENT), ("sessions", SESSION), None)
    (tmp_path / "k57.jsonl").write_text("of an earlier export")

    with pytest.raises(CallError):
        export(failing, "k57", form=form, output=tmp_path)

    assert files_in(tmp_path) == ["k57.jsonl"]
    assert (tmp_path / "k57.jsonl").read_text() == "of an earlier export"


def test_nothing_is_made_for_who_is_no_student(tmp_path: Path) -> None:
    with pytest.raises(CallError):
        export(FakeAdministrator(), "../k57", form="jsonl", output=tmp_path / "new")

    assert files_in(tmp_path) == []


def test_a_directory_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CallError, match="give --output a directory") as refused:
        export(EVERYTHING, "k57", form="csv", output=tmp_path / "file" / "below")

    assert len(refused.value.problems) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_standard_output_that_is_full_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(CallError, match="the standard output: No space left") as refused:
            export(EVERYTHING, "k57", form="jsonl", output=None)

    assert len(refused.value.problems) == 1


def test_csv_needs_a_directory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    get_settings.cache_clear()
    monkeypatch.setattr(sys, "argv", ["emma_agent", "export", "k57", "--format", "csv"])

    with pytest.raises(SystemExit) as end:
        cli.main()

    assert end.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--output" in line


# xAPI


def test_statements_are_one_json_array(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [path] = export(EVERYTHING, "k57", form="xapi", output=tmp_path)
    export(EVERYTHING, "k57", form="xapi", output=None)

    made = json.loads(path.read_text())
    assert made == json.loads(capsys.readouterr().out)
    verbs = [one["verb"]["id"].rpartition("/")[2] for one in made]
    assert verbs == ["completed", "commented", "commented", "answered"]
    export(FakeAdministrator(("students", STUDENT)), "k57", form="xapi", output=None)
    assert json.loads(capsys.readouterr().out) == []


def test_a_message_is_who_said_what_when_in_which_lesson() -> None:
    [_, said] = statements(
        ("sessions", SESSION), ("messages", message("item_1", ARABIC, language="ar"))
    )

    lesson = {
        "objectType": "Activity",
        "id": f"{URL}/lessons/l1",
        "definition": {"type": "http://adlnet.gov/expapi/activities/lesson"},
    }
    assert said == {
        "id": said["id"],
        "actor": {"objectType": "Agent", "account": {"homePage": URL, "name": "k57"}},
        "verb": {
            "id": "http://adlnet.gov/expapi/verbs/commented",
            "display": {"en": "commented"},
        },
        "object": {
            "objectType": "Activity",
            "id": f"{URL}/sessions/lesson%201%2Fa",
            "definition": {"type": "http://adlnet.gov/expapi/activities/meeting"},
        },
        "result": {"response": ARABIC},
        "context": {
            "registration": said["context"]["registration"],
            "instructor": {"objectType": "Agent", "account": {"homePage": URL, "name": "emma"}},
            "platform": "Emma",
            "language": "ar",
            "contextActivities": {"parent": [lesson]},
            "extensions": {
                f"{EXTENSION}session-key": "lesson 1/a",
                f"{EXTENSION}item-id": "item_1",
                f"{EXTENSION}interrupted": False,
            },
        },
        "timestamp": "2026-11-23T22:49:44.970+00:00",
        "version": "1.0.3",
    }
    assert "Carlos" not in json.dumps(said)


def test_emma_speaks_for_herself() -> None:
    [said] = statements(
        ("sessions", {"_id": "s1", "sessionKey": "free"}),
        ("messages", message("item_2", "Hello!", role="assistant")),
    )

    assert said["actor"]["account"]["name"] == "emma"
    # A talk without a lesson is its own.
    assert said["context"]["contextActivities"]["parent"] == [said["object"]]


def test_an_answer_has_its_score() -> None:
    [_, answered] = statements(("sessions", SESSION), ("exerciseResults", RESULT))

    assert answered["verb"]["id"] == "http://adlnet.gov/expapi/verbs/answered"
    assert answered["object"]["id"] == f"{URL}/lessons/l1/exercises/fill%20in%2F1"
    assert answered["result"] == {"response": "a loaf", "score": {"scaled": 0.5}}


def test_a_lesson_that_was_finished_is_completed() -> None:
    [completed] = statements(("sessions", SESSION))

    assert completed["verb"]["id"] == "http://adlnet.gov/expapi/verbs/completed"
    assert completed["object"]["id"] == f"{URL}/lessons/l1"
    assert completed["result"] == {"completion": True}
    assert statements(("sessions", {"_id": "s1", "sessionKey": "free"})) == []


def test_ids_are_uuids_that_stay_and_differ() -> None:
    other = {**SESSION, "_id": "s2", "sessionKey": "lesson 2"}
    rows = [
        ("sessions", SESSION),
        ("sessions", other),
        ("messages", message("item_1", "a")),
        ("messages", message("item_2", "b")),
        ("messages", message("item_1", "c", sessionId="s2")),
        ("exerciseResults", RESULT),
        ("exerciseResults", {**RESULT, "seq": 8}),
    ]
    made = statements(*rows)

    ids = [one["id"] for one in made]
    assert len(set(ids)) == len(rows)
    assert {uuid.UUID(one).version for one in ids} == {5}
    assert ids == [one["id"] for one in statements(*rows)]
    registrations = {one["context"]["registration"] for one in made}
    assert len(registrations) == 2
    for one in made:
        assert datetime.fromisoformat(one["timestamp"]).tzinfo is not None


def test_what_is_not_there_for_good_makes_no_statement() -> None:
    """A transcript that its message replaces, and what a later session says in its own export."""
    assert (
        statements(
            ("sessions", {"_id": "s1", "sessionKey": "free"}),
            ("messages", message("t", "I go", provisional=True)),
            ("messages", message("item_9", "later", sessionId="s9")),
            ("progress", {"lessonId": "l1"}),
        )
        == []
    )
