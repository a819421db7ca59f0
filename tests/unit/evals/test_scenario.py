"""Learners' files: twelve good ones, and a sentence for each mistake in a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

from evals import lessons
from evals.scenario import (
    LEARNERS,
    Expected,
    Preferences,
    RecurringError,
    Scenario,
    ScenarioError,
    Student,
    Turn,
    load,
    load_all,
)

GOOD = """\
about = "says hello"
lesson = "a2-at-the-doctors"
greeting = "Hello Ana. How are you?"
words_due = ["knee", { word = "foot", meaning = "pie" }]

[student]
name = "Ana"
level = "A2"
native_language = "es"

[[turns]]
says = "Hello."
emma = [
  { calls = "rate_word", with = { word = "knee", rating = "good" } },
  { says = "Good. And the other word?" },
]

[[turns]]
says = "Foot."
interrupts_after = 2
emma = [{ says = "Right." }]

[expect]
tools = ["rate_word"]
records = [{ kind = "wordReviewed", word = "knee", rating = 3 }]
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "ana.toml"
    path.write_text(text, "utf-8")
    return path


def problems_in(directory: Path, text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(written(directory, text), lessons=lessons.slugs())
    return caught.value.problems


def test_there_are_twelve_learners_of_all_levels_and_mother_tongues() -> None:
    learners = load_all(LEARNERS, lessons=lessons.slugs())
    assert len(learners) == 12
    levels = {learner.student.level for learner in learners}
    tongues = [learner.student.native_language for learner in learners]
    assert levels == {"A1", "A2", "B1", "B2", "C1"}
    assert {tongue: tongues.count(tongue) for tongue in tongues} == {
        "ar": 3,
        "de": 3,
        "es": 3,
        "ja": 3,
    }


def test_they_are_as_different_as_the_page_says() -> None:
    learners = load_all(LEARNERS, lessons=lessons.slugs())
    turns = [(learner.name, turn) for learner in learners for turn in learner.turns]
    assert {name for name, turn in turns if turn.silent} == {"lena"}
    assert {name for name, turn in turns if turn.interrupts_after} == {"amira"}
    assert {learner.name for learner in learners if learner.last_lesson is None} == {"yuki"}
    assert [learner.name for learner in learners if len(learner.words_due) > 40] == ["kenji"]
    assert {learner.lesson for learner in learners} == {None, *lessons.slugs()}


def test_the_page_explains_every_field() -> None:
    page = (LEARNERS.parent / "README.md").read_text()
    tables = (Scenario, Student, Preferences, RecurringError, Turn, Expected)
    fields = {name for table in tables for name in table.model_fields} - {"name"}
    places = ("`{}`", "`{} = true`", "`[{}]`", "`[[{}]]`")
    assert {
        name for name in fields if not any(each.format(name) in page for each in places)
    } == set()


def test_a_good_file_is_read(tmp_path: Path) -> None:
    ana = load(written(tmp_path, GOOD), lessons=lessons.slugs())
    assert (ana.name, ana.lines) == ("ana", ["Hello.", "Foot."])
    assert [(due.word, due.meaning) for due in ana.words_due] == [("knee", None), ("foot", "pie")]
    assert (ana.stops_after(0), ana.stops_after(1)) == (2, None)


@pytest.mark.parametrize(
    ("good", "bad", "says"),
    [
        ('name = "Ana"\n', "", "ana.toml: student.name: is missing; add it"),
        ('level = "A2"', 'level = "A7"', "student.level: is not known; give 'A1', 'A2', 'B1'"),
        ('level = "A2"', "level = 2", "student.level: is not known; give 'A1'"),
        (
            'name = "Ana"',
            'name = "Ana"\nage = 9',
            "student.age: is not known; here can be name, level, native_language",
        ),
        ('rating = "good" } }', 'rating = "good" }, an = 1 }', "turns[0].emma[0].an: is not known"),
        ('about = "says hello"', 'about = ""', "about: is empty; fill it in"),
        (
            "a2-at-the-doctors",
            "a2-at-the-zoo",
            "lesson: there is no lesson 'a2-at-the-zoo'; there are a2-at-the-doctors, b1-a-job-",
        ),
        ('says = "Foot."', "silent = true", "turns[1]: is silent and cannot interrupt"),
        ('says = "Foot."', "", "turns[1]: needs either `says` or `silent = true`"),
        ('[{ says = "Right." }]', "[]", "turns[1].emma: is empty"),
        ('{ says = "Right." }', "{}", "turns[1].emma[0]: does nothing; give it `says`"),
        (
            '{ says = "Right." }',
            '{ says = "Right.", with = { word = "a" } }',
            "turns[1].emma[0]: has `with` and no tool; add `calls`",
        ),
        (
            '{ says = "Right." }',
            '{ calls = "next_slide" }',
            "turns[1]: ends with a tool, and its answer wants words",
        ),
        ("interrupts_after = 2", "interrupts_after = 5", "Emma's answer before has 5 words"),
        ("interrupts_after = 2", "interrupts_after = 0", "turns[1].interrupts_after: input should"),
        (
            'says = "Hello."',
            'says = "Hello."\ninterrupts_after = 1',
            "turns[0].interrupts_after: the greeting is heard to its end",
        ),
        (
            'says = "Hello."\nemma',
            'silent = true\nemma = [{ says = "A?" }]\n[[turns]]\nsilent = true\nemma',
            "turns[1].silent: Emma helps once",
        ),
        (
            'calls = "rate_word"',
            'calls = "rate_wrod"',
            "turns[0].emma[0].calls: Emma has no tool 'rate_wrod'; she has end_lesson, finish_lesson",
        ),
        ('tools = ["rate_word"]', 'uses = ["rate"]', "expect.uses[0]: Emma has no tool 'rate'"),
        ('tools = ["rate_word"]', 'tools = ["rate"]', "expect.tools[0]: Emma has no tool 'rate'"),
        (
            'kind = "wordReviewed"',
            'kind = "wordRated"',
            "expect.records[0].kind: 'wordRated' is not known; give one of correction, wordIntro",
        ),
        (
            'kind = "wordReviewed", word',
            'kind = "wordReviewed", wrod',
            "expect.records[0].wrod: is no field of wordReviewed; it has created_at, language,",
        ),
        ('kind = "wordReviewed", word', "word", "expect.records[0].kind: is missing; give one of"),
        ('kind = "wordReviewed", word = "knee", rating = 3', 'kind = "stepEntered"', "`steps`"),
        (
            'kind = "wordReviewed", word = "knee", rating = 3',
            'kind = "sessionSummary"',
            "expect.records[0].kind: a summary is looked at in every lesson",
        ),
        ("[expect]", "[expect", "ana.toml: is no TOML: "),
    ],
)
def test_a_mistake_is_told_by_file_and_path_with_what_to_do(
    tmp_path: Path, good: str, bad: str, says: str
) -> None:
    assert good in GOOD
    problems = problems_in(tmp_path, GOOD.replace(good, bad))
    assert any(says in problem for problem in problems), problems
    assert all(problem.startswith("ana.toml: ") for problem in problems)


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    bad = GOOD.replace('level = "A2"', "").replace('name = "Ana"', "")
    for name in ("bea", "ana"):
        (tmp_path / f"{name}.toml").write_text(bad)
    with pytest.raises(ScenarioError) as caught:
        load_all(tmp_path, lessons=lessons.slugs())
    assert [problem.partition(": is")[0] for problem in caught.value.problems] == [
        "ana.toml: student.name",
        "ana.toml: student.level",
        "bea.toml: student.name",
        "bea.toml: student.level",
    ]


def test_a_directory_without_learners_says_so(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"no learner is there; add a \.toml file"):
        load_all(tmp_path, lessons=[])


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ana.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ScenarioError, match=r"ana\.toml: cannot be read .* it is UTF-8 text"):
        load(path, lessons=[])
