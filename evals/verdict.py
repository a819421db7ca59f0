"""Whether a lesson that was held is as the learner's file wants it. Pure.

What was recorded is judged from the journal alone. With a scripted model everything is known
beforehand and must be so; with a real one, what must hold whatever it says.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from emma_agent.context import Lesson, parse_context
from emma_agent.ending import LESSON_OVER
from emma_agent.steps import steps_of
from emma_agent.teaching import same_words
from evals.holding import Held, context_of
from evals.scenario import RECORD_FIELDS, Refusal
from evals.spoken import faults_of

__all__ = ["ASPECTS", "Aspect", "Problem", "problems_of"]

_W = TypeVar("_W")
_F = TypeVar("_F")
Aspect = Literal["tools", "records", "steps", "talk"]
ASPECTS: Final[tuple[Aspect, ...]] = ("tools", "records", "steps", "talk")

# A call that a tool takes leaves a record of this kind.
_NOTES: Final[Mapping[str, str]] = {
    "note_correction": "correction",
    "mark_repaired": "correction",
    "introduce_word": "wordIntroduced",
    "rate_word": "wordReviewed",
    "record_answer": "exerciseResult",
    "finish_lesson": "lessonFinished",
    "next_step": "stepEntered",
}
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as a sentence."""

    aspect: Aspect
    sentence: str


def problems_of(held: Held) -> list[Problem]:
    """Everything that is wrong with a lesson."""
    journal = _Journal(held.records)
    checks = [
        ("talk", iter(held.troubles)),
        ("records", _frame(journal)),
        ("records", _messages(held, journal)),
        ("records", _what_tools_noted(journal)),
        ("records", _reviews(held, journal)),
        ("records", _never_recorded(held, journal)),
        ("records", _summary(held, journal)),
        ("talk", _talk(held, journal)),
    ]
    if held.scripted:
        checks += [
            ("tools", _exact_tools(held, journal)),
            ("records", _exact_records(held, journal)),
            ("steps", _exact_steps(held, journal)),
            ("talk", _told(held)),
        ]
    else:
        checks += [("tools", _used(held, journal)), ("steps", _own_steps(held, journal))]
    return [Problem(aspect, text) for aspect, found in checks for text in found]  # type: ignore[arg-type]


class _Journal:
    """The records of a lesson, by what they are about."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.all = records
        self.calls = self.of("toolCall")
        self.messages = self.of("message")
        self.steps = [str(record["step"]) for record in self.of("stepEntered")]
        self.noted = [
            record
            for record in records
            if record["kind"] in RECORD_FIELDS
            and record["kind"] not in ("stepEntered", "sessionSummary")
        ]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        return [record for record in self.all if record["kind"] == kind]

    def said_by(self, role: str) -> list[Mapping[str, Any]]:
        return [message for message in self.messages if message["role"] == role]


# Whatever the model


def _frame(journal: _Journal) -> Iterator[str]:
    kinds = [record["kind"] for record in journal.all]
    if kinds[:1] != ["sessionStarted"]:
        yield "the journal does not begin with sessionStarted"
    if kinds[-1:] != ["runEnded"] or "sessionEnded" not in kinds:
        yield "the journal does not end with sessionEnded and runEnded"
    last = journal.steps[-1:]
    for ended in journal.of("sessionEnded"):
        if (ended["reason"] == LESSON_OVER) != (last == ["farewell"]):
            yield (
                f"the session ended for the reason {ended['reason']} in its "
                f"{last[0] if last else 'greeting'}"
            )
    if [record.get("seq") for record in journal.all] != [*range(len(journal.all))]:
        yield "the journal's records are not numbered one after the other"
    errors = Counter(
        f"an error of {error['source']} is on the record: {error['error_type']}"
        for error in journal.of("error")
        if not error["recoverable"]
    )
    for sentence, times in errors.items():
        yield sentence if times == 1 else f"{sentence}, {times} times"


def _messages(held: Held, journal: _Journal) -> Iterator[str]:
    said = [message["text"] for message in journal.said_by("user")]
    yield from _differences("what the learner said", held.scenario.lines, said)
    heard = [message["text"] for message in journal.said_by("assistant")]
    in_memory = [
        item.text_content
        for item in held.conversation.messages()
        if item.role == "assistant" and item.text_content
    ]
    yield from _differences("what Emma said", in_memory, heard)


def _what_tools_noted(journal: _Journal) -> Iterator[str]:
    kinds = {record["kind"] for record in journal.all}
    for tool, kind in _NOTES.items():
        if kind not in kinds and any(
            call["name"] == tool and not call["is_error"] for call in journal.calls
        ):
            yield f"{tool} took a call, and no {kind} is on the record"


def _reviews(held: Held, journal: _Journal) -> Iterator[str]:
    due = {same_words(word.word) for word in held.scenario.words_due}
    met = {same_words(record["word"]) for record in journal.of("wordIntroduced")}
    for review in journal.of("wordReviewed"):
        if same_words(review["word"]) not in due | met:
            yield f"{review['word']!r} was rated, and was neither due nor introduced"


def _never_recorded(held: Held, journal: _Journal) -> Iterator[str]:
    for unwanted in held.scenario.expect.never_recorded:
        if any(_has(record, unwanted) for record in journal.all):
            yield f"there must be no {_short(unwanted)} on the record, and there is"


def _summary(held: Held, journal: _Journal) -> Iterator[str]:
    summaries = journal.of("sessionSummary")
    if len(summaries) != 1:
        yield f"on the record must be one sessionSummary, and are {len(summaries)}"
    for summary in summaries:
        for reader in ("for_student", "for_teacher"):
            if not summary[reader].strip():
                yield f"the summary has nothing {reader.replace('_', ' the ')}"
        for never in held.scenario.expect.never_said:
            if never.lower() in summary["for_student"].lower():
                yield f"the student's summary must not say {never!r}"
        if not held.scripted and summary["source"] != "model":
            yield "the model wrote no summary that can be used; it was made of the records"
        if held.scripted:
            matters = [record["target"] for record in journal.of("correction")]
            matters += [record["word"] for record in journal.of("wordReviewed")]
            for text in dict.fromkeys(matters):
                if text not in summary["for_teacher"]:
                    yield f"the teacher's summary does not tell of {text!r}"


def _talk(held: Held, journal: _Journal) -> Iterator[str]:
    for message in journal.said_by("assistant"):
        text = message["text"]
        for fault in faults_of(text):
            yield f"Emma {fault}: {_quoted(text)}"
        for never in held.scenario.expect.never_said:
            if never.lower() in text.lower():
                yield f"Emma must not say {never!r}: {_quoted(text)}"


# With a scripted model


def _exact_tools(held: Held, journal: _Journal) -> Iterator[str]:
    expect = held.scenario.expect
    called = [call["name"] for call in journal.calls]
    yield from _differences("tools", list(expect.tools), called)
    refused = [call for call in journal.calls if call["is_error"]]
    missing, unexpected = _unmatched(expect.refusals, refused, _is_refusal)
    for refusal in missing:
        yield f"{refusal.tool} had to refuse a call with {_quoted(refusal.because)}"
    for call in unexpected:
        yield f"{call['name']} refused a call: {_quoted(str(call.get('output')))}"


def _is_refusal(wanted: Refusal, call: Mapping[str, Any]) -> bool:
    return call["name"] == wanted.tool and wanted.because in str(call.get("output"))


def _exact_records(held: Held, journal: _Journal) -> Iterator[str]:
    missing, unexpected = _unmatched(
        held.scenario.expect.records, journal.noted, lambda wanted, record: _has(record, wanted)
    )
    for record in missing:
        yield f"{_short(record)} is not on the record, or not in its place"
    for record in unexpected:
        yield f"{_short(record)} is on the record, and is not expected there"
    emma = [answer.says for answer in _answers(held) if answer.says]
    yield from _spoken_as_scripted(held, journal, [held.scenario.greeting, *emma])


def _spoken_as_scripted(held: Held, journal: _Journal, script: list[str]) -> Iterator[str]:
    heard = journal.said_by("assistant")
    if len(heard) != len(script):
        yield f"Emma had {len(script)} things to say, on the record are {len(heard)}"
    cut = [
        turn.emma[-1].says
        for number, turn in enumerate(held.scenario.turns)
        if held.scenario.stops_after(number) is not None
    ]
    for message, text in zip(heard, script, strict=False):
        if text in cut:
            part = message["text"]
            if not (message["interrupted"] and part and part != text and text.startswith(part)):
                yield f"the answer that was cut off is not recorded as far as heard: {_quoted(part)}"
        elif message["interrupted"] or message["text"] != text:
            yield f"Emma said {_quoted(text)}, on the record is {_quoted(message['text'])}"


def _exact_steps(held: Held, journal: _Journal) -> Iterator[str]:
    wanted = list(held.scenario.expect.steps)
    yield from _differences("parts of the lesson", wanted, journal.steps)
    led = [record["new_agent"] for record in journal.of("handoff")]
    yield from _differences("hand-overs", [f"tutor_{step}" for step in ("greeting", *wanted)], led)


def _told(held: Held) -> Iterator[str]:
    for text in held.scenario.expect.told:
        if not any(text in told for told in held.told):
            yield f"Emma was never told {text!r}"


# With a real one


def _used(held: Held, journal: _Journal) -> Iterator[str]:
    taken = {call["name"] for call in journal.calls if not call["is_error"]}
    for tool in held.scenario.expect.uses:
        if tool not in taken:
            yield f"{tool} was needed in this lesson, and was not used"


def _own_steps(held: Held, journal: _Journal) -> Iterator[str]:
    context = parse_context(context_of(held.scenario))
    lesson: Lesson | None = context.lesson
    order = steps_of(lesson, words_due=len(context.words_due))
    # A part is left out when nothing is in it any more.
    following: Iterator[str] = iter(order)
    if not all(step in following for step in journal.steps):
        yield (
            f"the parts of this lesson are {', '.join(order)}; entered were "
            f"{', '.join(journal.steps)}"
        )


# Helpers


def _answers(held: Held) -> Iterator[Any]:
    for turn in held.scenario.turns:
        yield from turn.emma


def _differences(what: str, wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """One sentence about the first place where two lists part."""
    if list(wanted) == list(found):
        return
    place = next(
        (
            number
            for number, (one, other) in enumerate(zip(wanted, found, strict=False))
            if one != other
        ),
        min(len(wanted), len(found)),
    )
    one, other = (_quoted(each[place]) if place < len(each) else None for each in (wanted, found))
    if other is None:
        yield f"{what}: {one} is missing after {place} of {len(wanted)}"
    elif one is None:
        yield f"{what}: {other} is too much, after all {len(wanted)} expected"
    else:
        yield f"{what}: {one} was expected in place {place + 1}, found was {other}"


def _unmatched(
    wanted: Sequence[_W], found: Sequence[_F], matches: Callable[[_W, _F], bool]
) -> tuple[list[_W], list[_F]]:
    """What is left of two lists without their longest common part, in order."""
    common = [[0] * (len(found) + 1) for _ in range(len(wanted) + 1)]
    for row in reversed(range(len(wanted))):
        for column in reversed(range(len(found))):
            common[row][column] = (
                common[row + 1][column + 1] + 1
                if matches(wanted[row], found[column])
                else max(common[row + 1][column], common[row][column + 1])
            )
    missing, unexpected, row, column = [], [], 0, 0
    while row < len(wanted) and column < len(found):
        if matches(wanted[row], found[column]):
            row, column = row + 1, column + 1
        elif common[row + 1][column] >= common[row][column + 1]:
            missing.append(wanted[row])
            row += 1
        else:
            unexpected.append(found[column])
            column += 1
    return [*missing, *wanted[row:]], [*unexpected, *found[column:]]


def _has(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(record.get(name) == value for name, value in wanted.items())


def _short(record: Mapping[str, Any]) -> str:
    fields = {
        name: value
        for name, value in record.items()
        if name not in ("kind", "seq", "created_at", "item_id", "correction_id")
    }
    told = f" {json.dumps(fields, ensure_ascii=False)}" if fields else ""
    return f"{record['kind']}{told}"


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")
