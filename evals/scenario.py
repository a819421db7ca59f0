"""A learner's file: who they are, what they say, what Emma's model does offline, and what must follow.

What is wrong with a file is one sentence for each mistake, with the file, the path in it, and what to
do. The fields are explained in evals/README.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from emma_agent.context import CorrectionStyle
from emma_agent.records import TUTOR_RECORD_TYPES, ErrorType, Step
from evals.spoken import TOOL_NAMES

__all__ = [
    "LEARNERS",
    "RECORD_FIELDS",
    "Answer",
    "Expected",
    "Refusal",
    "Scenario",
    "ScenarioError",
    "Turn",
    "load",
    "load_all",
]

LEARNERS: Final = Path(__file__).parent / "learners"

RECORD_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    str(record_type.__struct_config__.tag): frozenset(record_type.__struct_fields__)
    for record_type in TUTOR_RECORD_TYPES
}
"""The kinds of record that a lesson makes, and the fields of each."""


class ScenarioError(ValueError):
    """A file cannot be used. `problems` has one sentence for each mistake."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = [*problems]
        super().__init__("\n".join(self.problems))


class _Part(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True
    )


# TOML has lists alone.
_List = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Words = Annotated[tuple[str, ...], _List]
Text = Annotated[str, Field(min_length=1)]


class Student(_Part):
    """As in the school's own table of students."""

    name: Text
    level: Literal["A1", "A2", "B1", "B2", "C1", "C2"]
    native_language: Text
    target_language: str = "en"
    goals: Words = ()
    interests: Words = ()


class Preferences(_Part):
    """How the student likes to be taught in general."""

    speech_rate: float = 1.0
    native_language_help: bool = True
    correction_style: CorrectionStyle = "gentle"


class LastLesson(_Part):
    """What was held before."""

    title: Text
    summary: str | None = None


class WordDue(_Part):
    """A word that it is time to use again."""

    word: Text
    meaning: str | None = None
    example: str | None = None


class RecurringError(_Part):
    """A mistake that the student keeps making."""

    error_type: ErrorType
    times: int
    said: Text
    target: Text


class Answer(_Part):
    """One answer of the scripted model: a tool that it calls, words, or words and then a tool."""

    says: Text | None = None
    calls: Text | None = None
    arguments: Mapping[str, Any] = Field(default_factory=dict, alias="with")

    @model_validator(mode="after")
    def _does_something(self) -> Answer:
        if self.says is None and self.calls is None:
            raise ValueError("does nothing; give it `says`, or `calls` and `with`")
        if self.arguments and self.calls is None:
            raise ValueError("has `with` and no tool; add `calls`")
        return self


class Turn(_Part):
    """What the learner does, and what the scripted model makes of it.

    Attributes:
        silent: the learner says nothing until Emma helps.
        interrupts_after: they cut Emma off, after so many words of her answer to the turn before.
    """

    says: Text | None = None
    silent: bool = False
    interrupts_after: Annotated[int, Field(ge=1)] | None = None
    emma: Annotated[tuple[Answer, ...], _List, Field(min_length=1)]

    @model_validator(mode="after")
    def _is_one_thing(self) -> Turn:
        if self.silent == (self.says is not None):
            raise ValueError("needs either `says` or `silent = true`")
        if self.silent and self.interrupts_after is not None:
            raise ValueError("is silent and cannot interrupt; add `says`")
        last = self.emma[-1]
        if last.calls is not None:
            raise ValueError("ends with a tool, and its answer wants words; add { says = … }")
        return self


class Refusal(_Part):
    """A call that the tool does not take; `because` is a part of its sentence."""

    tool: Text
    because: Text


class Expected(_Part):
    """What must follow, and what must not.

    Attributes:
        told: parts of what Emma is told at some time in the lesson.
        tools: every call, in order.
        refusals: of these calls, those that a tool does not take, in order.
        steps: the parts of the lesson that are entered after the greeting.
        records: everything else that the lesson notes, in order; fields that are not named may hold
            anything.
        never_recorded: no record has all these fields.
        never_said: no message of Emma's has any of this in it.
        uses: with a real model, tools that she cannot do without.
    """

    told: Words = ()
    tools: Words = ()
    refusals: Annotated[tuple[Refusal, ...], _List] = ()
    steps: Annotated[tuple[Step, ...], _List] = ()
    records: Annotated[tuple[Mapping[str, Any], ...], _List] = ()
    never_recorded: Annotated[tuple[Mapping[str, Any], ...], _List] = ()
    never_said: Words = ()
    uses: Words = ()


class Scenario(_Part):
    """One learner in one lesson.

    Attributes:
        name: of the file.
        lesson: the slug of a lesson that ships with Emma; None is free conversation.
        greeting: what the scripted model says first.
    """

    name: str = ""
    about: Text
    lesson: str | None = None
    greeting: Text
    student: Student
    preferences: Preferences = Preferences()
    last_lesson: LastLesson | None = None
    words_due: Annotated[tuple[WordDue, ...], BeforeValidator(lambda words: _as_words(words))] = ()
    recurring_errors: Annotated[tuple[RecurringError, ...], _List] = ()
    turns: Annotated[tuple[Turn, ...], _List, Field(min_length=1)]
    expect: Expected

    @property
    def lines(self) -> list[str]:
        """What the learner says, in order."""
        return [turn.says for turn in self.turns if turn.says is not None]

    def stops_after(self, turn: int) -> int | None:
        """After how many words Emma's answer to this turn, from 0, is cut off; None if never."""
        following = self.turns[turn + 1 : turn + 2]
        return following[0].interrupts_after if following else None


def load_all(directory: Path = LEARNERS, *, lessons: Iterable[str]) -> list[Scenario]:
    """Every learner there, by name.

    Args:
        lessons: slugs of the lessons that there are.

    Raises:
        ScenarioError: with all mistakes of all files.
    """
    found: list[Scenario] = []
    problems: list[str] = []
    for path in sorted(directory.glob("*.toml")):
        try:
            found.append(load(path, lessons=lessons))
        except ScenarioError as error:
            problems += error.problems
    if not found and not problems:
        problems = [f"{directory}: no learner is there; add a .toml file, see evals/README.md"]
    if problems:
        raise ScenarioError(problems)
    return found


def load(path: Path, *, lessons: Iterable[str]) -> Scenario:
    """One learner.

    Raises:
        ScenarioError: the file cannot be used.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError([f"{path.name}: cannot be read ({error}); it is UTF-8 text"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(
            [f"{path.name}: is no TOML: {error}; texts stand in quotes, lists in brackets"]
        ) from None
    content.pop("name", None)
    try:
        scenario = Scenario.model_validate({**content, "name": path.stem})
    except ValidationError as error:
        sentences = [_sentence(detail) for detail in error.errors(include_url=False)]
        raise ScenarioError(f"{path.name}: {sentence}" for sentence in sentences) from None
    problems = [*_problems(scenario, sorted(lessons))]
    if problems:
        raise ScenarioError(f"{path.name}: {problem}" for problem in problems)
    return scenario


def _problems(scenario: Scenario, lessons: list[str]) -> Iterator[str]:
    if scenario.lesson is not None and scenario.lesson not in lessons:
        yield (
            f"lesson: there is no lesson {scenario.lesson!r}; there are {', '.join(lessons)}, "
            "or leave it out for free conversation"
        )
    if scenario.turns[0].interrupts_after is not None:
        yield "turns[0].interrupts_after: the greeting is heard to its end; leave it out"
    for number in range(len(scenario.turns)):
        stops_after = scenario.stops_after(number)
        words = (scenario.turns[number].emma[-1].says or "").split()
        if stops_after is not None and stops_after >= len(words):
            yield (
                f"turns[{number + 1}].interrupts_after: Emma's answer before has {len(words)} words; "
                "give fewer"
            )
        if scenario.turns[number].silent and number and scenario.turns[number - 1].silent:
            yield f"turns[{number}].silent: Emma helps once; let the learner speak in between"
    yield from _unknown_tools(scenario)
    for kind in ("records", "never_recorded"):
        for number, record in enumerate(getattr(scenario.expect, kind)):
            for problem in _problems_of_record(record):
                yield f"expect.{kind}[{number}].{problem}"


def _unknown_tools(scenario: Scenario) -> Iterator[str]:
    """A tool that is not there may be called only where the file says that it is refused."""
    expect = scenario.expect
    known = TOOL_NAMES | {refusal.tool for refusal in expect.refusals}
    places = [
        (f"turns[{turn}].emma[{place}].calls", answer.calls)
        for turn, taken in enumerate(scenario.turns)
        for place, answer in enumerate(taken.emma)
    ]
    places += [(f"expect.tools[{place}]", tool) for place, tool in enumerate(expect.tools)]
    for where, tool in places:
        if tool is not None and tool not in known:
            yield (
                f"{where}: Emma has no tool {tool!r}; she has {', '.join(sorted(TOOL_NAMES))}; "
                "if the model is to call one that is not there, list it under `refusals`"
            )
    for place, tool in enumerate(expect.uses):
        if tool not in TOOL_NAMES:
            yield f"expect.uses[{place}]: Emma has no tool {tool!r}; leave it out"


def _problems_of_record(record: Mapping[str, Any]) -> Iterator[str]:
    kind = record.get("kind")
    if kind is None:
        yield f"kind: is missing; give one of {', '.join(RECORD_FIELDS)}"
    elif kind not in RECORD_FIELDS:
        yield f"kind: {kind!r} is not known; give one of {', '.join(RECORD_FIELDS)}"
    elif kind == "stepEntered":
        yield "kind: the parts of the lesson are listed under `steps`; leave it out here"
    elif kind == "sessionSummary":
        yield "kind: a summary is looked at in every lesson; leave it out here"
    else:
        fields = RECORD_FIELDS[kind]
        for name in record.keys() - fields - {"kind"}:
            yield f"{name}: is no field of {kind}; it has {', '.join(sorted(fields)) or 'none'}"


def _as_words(words: object) -> object:
    """A word alone is the short form of a table with it."""
    if not isinstance(words, list):
        return words
    return tuple({"word": word} if isinstance(word, str) else word for word in words)


def _sentence(detail: Mapping[str, Any]) -> str:
    """One mistake: where, what, and what to do."""
    location = detail["loc"]
    where = ""
    for part in location:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    match detail["type"]:
        case "missing":
            what = "is missing; add it"
        case "extra_forbidden":
            names = _names_at(location[:-1])
            what = f"is not known; here can be {', '.join(names)}"
        case "literal_error":
            what = f"is not known; give {detail['ctx']['expected']}"
        case "too_short" | "string_too_short":
            what = "is empty; fill it in, or leave it out where it may be left out"
        case "value_error":
            what = str(detail["ctx"]["error"])
        case _:
            what = f"{_first_small(detail['msg'])}; see evals/README.md"
    return f"{where or 'file'}: {what}"


def _names_at(location: Iterable[int | str]) -> list[str]:
    """The fields of the table at a place of the file."""
    table: type[BaseModel] = Scenario
    for part in location:
        if isinstance(part, str):
            table = _table_in(_field(table, part))
    names = (field.alias or name for name, field in table.model_fields.items())
    return [name for name in names if not (table is Scenario and name == "name")]


def _field(table: type[BaseModel], name: str) -> FieldInfo:
    return next(
        field for own, field in table.model_fields.items() if name in (own, field.alias or own)
    )


def _table_in(field: FieldInfo) -> type[BaseModel]:
    def tables(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for argument in get_args(annotation):
            yield from tables(argument)

    return next(tables(field.annotation))


def _first_small(text: str) -> str:
    return text[:1].lower() + text[1:]
