"""The scripted language model: what has happened in, one sentence or one tool call out.

It stands in for a language model where there is neither key nor network, and says so: in its
greeting, in its model name and in `/v1/models`. It knows what any model is told (the instructions,
read back by `board.py`, and the messages) and decides by one rule at a time, so that it also serves
a person who talks to it. Where nothing tells of a lesson, it makes small talk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from emma_agent.demo.board import Board, Noted, Slide, Task, WordDue, read_board, sentences_of
from emma_agent.demo.script_summary import summary_of
from emma_agent.demo.verdict import likeness, words

__all__ = ["GREETING", "MODEL_NAME", "PROFILE_TOOL", "CallTool", "Reply", "Say", "reply_to"]

MODEL_NAME: Final = "emma-script"
PROFILE_TOOL: Final = "get_student_profile"
GREETING: Final = "Hello, I am Emma. I follow a script today. What did you do yesterday?"


@dataclass(frozen=True, slots=True)
class Say:
    """An answer in words."""

    text: str


@dataclass(frozen=True, slots=True)
class CallTool:
    """An answer that asks for a tool first; `arguments` is JSON text."""

    name: str
    arguments: str = "{}"


Reply = Say | CallTool

_RULES: Final[tuple[tuple[str, str], ...]] = (
    (r"\b(cook|cooked|dinner|lunch|food|eat|ate)\b", "That sounds delicious. What did you cook?"),
    (r"\b(bye|goodbye|see you)\b", "Goodbye. You did very well today."),
    (r"\b(hello|hi|good morning)\b", "Hello. What would you like to talk about?"),
    (r"\b(thanks|thank you)\b", "You are welcome. What shall we practise next?"),
    (r"\b(work|job|office)\b", "That is interesting. What do you like about your work?"),
    (r"\b(travel|holiday|trip|visit)\b", "How nice. Where would you like to go next?"),
)
_OTHERWISE: Final = "I see. Please tell me a little more."
_BYE: Final = re.compile(r"\b(bye|goodbye|see you|stop the lesson)\b")
_PROFILE: Final = re.compile(r"\bprofile\b|\babout me\b|\bmy level\b")
_SLOWER: Final = re.compile(r"\b(slower|too fast|more slowly)\b")

# The words by which the texts of `emma_agent/prompts` are known that are no instructions.
_RESUMED: Final = "was interrupted and goes on"
_SILENT: Final = "has not said anything"
_SUMMARY: Final = "You write the summary of a language lesson"

# Of the words in their order. Below it the student meant to say something else.
_MEANT: Final = 0.6
_AFTER_ME: Final = "Please say it after me."
# More of either is a lesson of an hour.
_MOST_WORDS: Final = 3
_MOST_EXERCISES: Final = 3

# Pairs of words that learners mix up, as `note_correction` calls the mistake.
_MIXED_UP: Final = (
    ({"much", "many", "few", "little", "some", "any"}, "word_choice"),
    ({"is", "are", "was", "were", "has", "have", "do", "does"}, "agreement"),
    ({"a", "an", "the"}, "article"),
    ({"in", "on", "at", "to", "for", "of", "from", "with"}, "preposition"),
)


@dataclass(frozen=True, slots=True)
class _Result:
    """A tool's answer to the student's last words, or in the same turn."""

    tool: str
    arguments: Mapping[str, Any]
    output: Mapping[str, Any] | None
    """None where the tool refused."""
    text: str


@dataclass(frozen=True, slots=True)
class _Turn:
    """What has happened, for the rules."""

    instructions: str
    board: Board
    tools: Sequence[str]
    said: str
    """The student's last words."""
    answered: str
    """What Emma had said before them."""
    results: Sequence[_Result] = field(default=())
    """Of the whole talk, in order."""
    turns: int = 0
    """How often the student has spoken."""

    def count(self, tool: str) -> int:
        """How often a tool has answered in this talk."""
        return sum(result.tool == tool and result.output is not None for result in self.results)

    def call(self, tool: str, **arguments: object) -> Reply | None:
        """Ask for a tool; None if it is not on offer."""
        if tool not in self.tools:
            return None
        return CallTool(tool, json.dumps(arguments, ensure_ascii=False))


def reply_to(messages: Sequence[Mapping[str, object]], *, tools: Sequence[str]) -> Reply:
    """Decide what Emma does next.

    Args:
        messages: as in OpenAI's chat completions.
        tools: the names of the tools on offer.
    """
    turn = _turn(messages, tools)
    last = messages[-1] if messages else {}
    if last.get("role") == "tool" and turn.results:
        return _after_tool(turn, turn.results[-1])
    if last.get("role") == "user":
        if turn.instructions.startswith(_SUMMARY):
            return Say(summary_of(turn.said))
        return _answer(turn)
    return _enter(turn, _text_of(last.get("content")))


def _turn(messages: Sequence[Mapping[str, object]], tools: Sequence[str]) -> _Turn:
    told = next((m for m in messages if m.get("role") in ("system", "developer")), {})
    instructions = _text_of(told.get("content"))
    calls: dict[object, tuple[str, Mapping[str, Any]]] = {}
    results: list[_Result] = []
    said, answered, now, turns, results_before = "", "", "", 0, 0
    for message in messages:
        text = _text_of(message.get("content"))
        match message.get("role"):
            case "user":
                said, answered, now, turns = text, now, "", turns + 1
                results_before = len(results)
            case "assistant":
                now = f"{now} {text}".strip()
                calls.update(_calls_in(message))
            case "tool":
                name, arguments = calls.get(message.get("tool_call_id"), ("", {}))
                results.append(_Result(name, arguments, _object_in(text), text))
            case _:
                pass
    board = read_board(instructions)
    return _Turn(
        instructions=instructions,
        board=_as_it_is_now(board, results, results[results_before:]),
        tools=tools,
        said=said,
        answered=answered,
        results=results,
        turns=turns,
    )


def _as_it_is_now(board: Board, results: Sequence[_Result], just_now: Sequence[_Result]) -> Board:
    """With what tools have done since the instructions were written."""
    done = [result for result in results if result.output is not None]
    rated = {str(r.arguments.get("word")).lower() for r in done if r.tool == "rate_word"}
    met = [str(r.arguments.get("word")) for r in done if r.tool == "introduce_word"]
    known = {word.lower() for word in board.new_words}
    return replace(
        board,
        slide=_slide_of(just_now) or board.slide,
        words_due=[due for due in board.words_due if due.word.lower() not in rated],
        corrections=_with_corrections(board.corrections, done),
        new_words=[*board.new_words, *(word for word in met if word.lower() not in known)],
    )


def _slide_of(just_now: Sequence[_Result]) -> Slide | None:
    """The slide that was turned to in this answer."""
    for result in reversed(just_now):
        turned = result.output or {}
        number, of = turned.get("slide"), turned.get("of")
        if result.tool == "next_slide" and isinstance(number, int) and isinstance(of, int):
            text = " ".join(str(turned.get("text")).split())
            return Slide(number, of, str(turned.get("title")), sentences_of(text))
    return None


def _with_corrections(noted: Sequence[Noted], done: Sequence[_Result]) -> Sequence[Noted]:
    corrections = {" ".join(words(each.right)): each for each in noted}
    for result in done:
        if result.tool == "note_correction":
            heard, right = (str(result.arguments.get(name)) for name in ("said", "target"))
            corrections.setdefault(" ".join(words(right)), Noted(heard, right, repaired=False))
        elif result.tool == "mark_repaired" and result.output:
            key = " ".join(words(str(result.output.get("repaired"))))
            if key in corrections:
                corrections[key] = replace(corrections[key], repaired=True)
    return [*corrections.values()]


# A part of the lesson begins, or goes on


def _enter(turn: _Turn, told: str) -> Reply:
    board = turn.board
    if _RESUMED in told:
        part = (board.step or "lesson").replace("-", " ")
        said = f" You had said: {_bare(turn.said)}." if turn.said.strip() else ""
        return Say(f"We were interrupted in the {part}.{said} Let us go on. {_question(turn)}")
    if _SILENT in told:
        return Say(f"Take your time. {_question(turn)}")
    match board.step:
        case "warm-up":
            return Say(f"Good. Let us begin with a word that you know. {_question(turn)}")
        case "presentation":
            return _new_word(turn) or Say(_at_slide("Well done.", board.slide))
        case "practice":
            return Say(f"Now an exercise. {_question(turn)}")
        case "conversation":
            return Say("Let us talk. What do you like to do?")
        case "feedback":
            return Say(_feedback(turn))
        case "farewell":
            return Say(_farewell(turn))
        case _:
            return Say(_greeting(board))


def _greeting(board: Board) -> str:
    if board.last_lesson is None:
        return GREETING
    hello = f"Hello {board.student}," if board.student else "Hello,"
    note = next(iter(sentences_of(board.last_summary or "")), "")
    known = f" My notes say: {note}" if note else ""
    return (
        f"{hello} I am Emma, and I follow a script. "
        f"Last time we did {board.last_lesson}.{known} How are you today?"
    )


def _question(turn: _Turn) -> str:
    """What is asked in the part that is on."""
    board = turn.board
    match board.step:
        case "warm-up" if board.words_due:
            return _ask_for(board.words_due[0])
        case "presentation" if board.slide is not None:
            return f"Please say: {_line(board.slide)}"
        case "practice" if task := _task(turn):
            return task.prompt
        case "practice" if board.target_words:
            return f"Please make a sentence with {board.target_words[0]}."
        case "farewell":
            return "Goodbye."
        case "feedback":
            return "Did you like the lesson?"
        case _:
            return "What did you do yesterday?"


def _ask_for(due: WordDue) -> str:
    for more in due.more:
        if due.word.lower() not in more.lower():
            return f"What is the English word for {more}?"
    for example in due.more:
        gap = re.sub(re.escape(due.word), "blank", example, flags=re.IGNORECASE)
        return f"Which word is missing? {gap}"
    return f"Please make a sentence with {due.word}."


def _at_slide(first: str, slide: Slide | None) -> str:
    if slide is None or not slide.sentences:
        return f"{first} Please look at the slide. What do you see?"
    return f"{first} Look at the slide, and please say: {_line(slide)}"


def _line(slide: Slide) -> str:
    """What the student is to say: the first sentence of the slide, else its title."""
    return slide.sentences[0] if slide.sentences else slide.title


def _task(turn: _Turn) -> Task | None:
    """The exercise that is on."""
    kept = [result for result in turn.results if result.tool == "record_answer" and result.output]
    following = kept[-1].output.get("next_exercise") if kept and kept[-1].output else None
    if isinstance(following, dict):
        return Task(str(following.get("exercise_id")), str(following.get("prompt")))
    return turn.board.exercises[0] if turn.board.exercises and not kept else None


def _feedback(turn: _Turn) -> str:
    noted = turn.board.corrections
    if not noted:
        return f"You spoke very well today. {_question(turn)}"
    worst = noted[0]
    return f"You spoke very well. Remember to say: {worst.right} {_question(turn)}"


def _farewell(turn: _Turn) -> str:
    board = turn.board
    learnt = " and ".join(board.new_words[:_MOST_WORDS])
    today = f"Today you learnt {learnt}." if learnt else "You did very well today."
    then = f" Next time we do {board.next_lesson}." if board.next_lesson else ""
    return f"{today}{then} Goodbye{f', {board.student}' if board.student else ''}."


# The student has spoken


def _answer(turn: _Turn) -> Reply:
    said = turn.said.lower()
    if _PROFILE.search(said):
        return turn.call(PROFILE_TOOL) or Say("I cannot see your profile from here.")
    if _SLOWER.search(said) and (slower := turn.call("set_preference", speed="slower")):
        return slower
    rules: dict[str, Callable[[_Turn], Reply]] = {
        "greeting": _in_greeting,
        "warm-up": _in_warm_up,
        "presentation": _in_presentation,
        "practice": _in_practice,
        "conversation": _in_conversation,
        "feedback": _in_feedback,
    }
    step = turn.board.step
    if _BYE.search(said) and step != "conversation":
        return turn.call("end_lesson") or _small_talk(said)
    rule = rules.get(step or "")
    return rule(turn) if rule else _small_talk(said)


def _small_talk(said: str) -> Say:
    found = (answer for topic, answer in _RULES if re.search(topic, said.lower()))
    return Say(next(found, _OTHERWISE))


def _in_greeting(turn: _Turn) -> Reply:
    if turn.turns == 1 and (answer := _small_talk(turn.said)).text != _OTHERWISE:
        return answer
    return _go_on(turn)


def _in_conversation(turn: _Turn) -> Reply:
    return _go_on(turn) if _BYE.search(turn.said.lower()) else _small_talk(turn.said)


def _in_warm_up(turn: _Turn) -> Reply:
    if not turn.board.words_due:
        return _go_on(turn)
    due = turn.board.words_due[0]
    told = _holds(turn.answered, due.word)
    if _holds(turn.said, due.word):
        return turn.call("rate_word", word=due.word, rating="hard" if told else "good") or _go_on(
            turn
        )
    if not told:
        return Say(f"It is {due.word}. Please make a sentence with {due.word}.")
    return turn.call("rate_word", word=due.word, rating="again") or _go_on(turn)


def _in_presentation(turn: _Turn) -> Reply:
    slide = turn.board.slide
    if slide is None:
        return _go_on(turn)
    target = _line(slide)
    if any(_same(turn.said, sentence) for sentence in slide.sentences):
        return _repair(turn) or _turn_on(turn)
    if likeness(turn.said, target) >= _MEANT:
        noted = any(_same(each.right, target) for each in turn.board.corrections)
        return (None if noted else _note(turn, target)) or _turn_on(turn)
    if turn.answered.startswith(_AFTER_ME):
        return _turn_on(turn)
    return Say(f"{_AFTER_ME} {target}")


def _in_practice(turn: _Turn) -> Reply:
    task = _task(turn)
    kept = (
        turn.call(
            "record_answer",
            exercise_id=task.exercise_id,
            answer=turn.said.strip(),
            # A script cannot tell; the tool knows which answers are right.
            result="partly",
        )
        if task
        else None
    )
    return kept or _go_on(turn)


def _in_feedback(turn: _Turn) -> Reply:
    return _repair(turn) or turn.call("finish_lesson") or _go_on(turn)


def _go_on(turn: _Turn) -> Reply:
    return turn.call("next_step") or _small_talk(turn.said)


def _turn_on(turn: _Turn) -> Reply:
    slide = turn.board.slide
    if slide is not None and slide.number < slide.of and (turned := turn.call("next_slide")):
        return turned
    return _go_on(turn)


def _new_word(turn: _Turn) -> Reply | None:
    """Introduce the first word of the slide that is to be learnt and was not met yet."""
    board, slide = turn.board, turn.board.slide
    if slide is None or len(board.new_words) >= _MOST_WORDS:
        return None
    met = {word.lower() for word in board.new_words} | {d.word.lower() for d in board.words_due}
    for word in board.target_words:
        example = next((line for line in slide.sentences if _holds(line, word)), None)
        if example is not None and word.lower() not in met:
            return turn.call("introduce_word", word=word, example=example)
    return None


def _note(turn: _Turn, target: str) -> Reply | None:
    said = turn.said.strip()
    return turn.call(
        "note_correction",
        said=said,
        target=target,
        error_type=_error_type(said, target),
        severity="minor",
        explanation=f"We say: {target}",
    )


def _repair(turn: _Turn) -> Reply | None:
    """Keep that the student has said right what was corrected before."""
    for noted in turn.board.corrections:
        if noted.repaired or not _same(noted.right, turn.said):
            continue
        correction_id = _correction_id(turn, noted.right)
        if correction_id is not None:
            return turn.call("mark_repaired", correction_id=correction_id)
        # Noted before this worker came: the lesson's progress tells its id.
        return turn.call("get_progress") if "mark_repaired" in turn.tools else None
    return None


def _correction_id(turn: _Turn, target: str) -> str | None:
    for result in reversed(turn.results):
        output = result.output or {}
        if result.tool == "note_correction" and _same(str(result.arguments.get("target")), target):
            return str(output["correction_id"]) if "correction_id" in output else None
        listed = output.get("corrections")
        for noted in listed if isinstance(listed, list) else ():
            if isinstance(noted, dict) and _same(str(noted.get("target")), target):
                return str(noted.get("correction_id"))
    return None


# A tool has answered


def _after_tool(turn: _Turn, result: _Result) -> Reply:
    """Go on after a tool; what it refused is left alone."""
    output = result.output or {}
    match result.tool:
        case "set_preference":
            return Say(f"I speak more slowly now. {_question(turn)}")
        case "rate_word":
            following = output.get("next_word")
            if isinstance(following, str) and turn.count("rate_word") < _MOST_WORDS:
                listed = {due.word: due for due in turn.board.words_due}
                return Say(f"Good. {_ask_for(listed.get(following, WordDue(following)))}")
            return _go_on(turn)
        case "note_correction":
            if output.get("correct_it") != "now, briefly":
                return _turn_on(turn)
            said, target = result.arguments.get("said"), result.arguments.get("target")
            return Say(
                f"I heard: {_bare(str(said))}. We say: {_bare(str(target))}. Please say it again."
            )
        case "get_progress":
            return _repair(turn) or _turn_on(turn)
        case "mark_repaired":
            if turn.board.step == "feedback":
                return turn.call("finish_lesson") or _go_on(turn)
            return _turn_on(turn)
        case "next_slide" | "introduce_word":
            if result.tool == "next_slide" and (introduced := _new_word(turn)):
                return introduced
            word = result.arguments.get("word")
            first = f"Very good. A new word is {word}." if word else "Very good."
            return Say(_at_slide(first, turn.board.slide))
        case "record_answer":
            first = "That is right." if output.get("score") == 1 else "Thank you."
            if (task := _task(turn)) and turn.count("record_answer") < _MOST_EXERCISES:
                return Say(f"{first} {task.prompt}")
            return _go_on(turn)
        case "finish_lesson":
            return _go_on(turn)
        case "end_lesson":
            return Say("Goodbye. You did very well today.")
        case _:
            return Say(_about_profile(result.text))


# Texts


def _same(one: str, other: str) -> bool:
    return words(one) == words(other)


def _holds(text: str, word: str) -> bool:
    wanted, heard = words(word), words(text)
    ends = range(len(wanted), len(heard) + 1)
    return bool(wanted) and any(heard[end - len(wanted) : end] == wanted for end in ends)


def _bare(sentence: str) -> str:
    return sentence.strip().rstrip(".!?")


def _error_type(said: str, target: str) -> str:
    """What kind of mistake it is, by the words in which the two differ."""
    heard, right = set(words(said)), set(words(target))
    wrong, missing = heard - right, right - heard
    for group, kind in _MIXED_UP:
        if wrong & group and missing & group:
            return kind
    if missing and not wrong:
        return "missing_word"
    return "word_order" if not missing and not wrong else "other"


def _calls_in(message: Mapping[str, object]) -> dict[object, tuple[str, Mapping[str, Any]]]:
    listed = message.get("tool_calls")
    calls: dict[object, tuple[str, Mapping[str, Any]]] = {}
    for call in listed if isinstance(listed, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = _object_in(str(function.get("arguments"))) or {}
            calls[call.get("id")] = (str(function.get("name")), arguments)
    return calls


def _object_in(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _text_of(content: object) -> str:
    """OpenAI sends text either plainly or as a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return " ".join(part for part in parts if isinstance(part, str))
    return ""


def _about_profile(output: str) -> str:
    """Put the tool's answer into words; whatever shape it has, never raise."""
    try:
        profile = json.loads(output)
    except ValueError:
        return output[:300] or "Your profile is empty."
    student = profile.get("student", profile) if isinstance(profile, dict) else None
    if not isinstance(student, dict):
        return "Your profile is empty."
    facts = (("your name is", student.get("name")), ("your level is", student.get("level")))
    said = [f"{phrase} {fact}" for phrase, fact in facts if isinstance(fact, str) and fact]
    if not said:
        return "Your profile has nothing in it yet."
    sentence = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{sentence[0].upper()}{sentence[1:]}."
