"""What the scripted model decides, from messages as OpenAI's interface carries them."""

from __future__ import annotations

import json

import pytest

from emma_agent.demo.script import GREETING, PROFILE_TOOL, CallTool, Say, reply_to
from emma_agent.prompt import entry


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def test_the_first_words_say_that_it_is_a_script() -> None:
    """LiveKit's greeting carries instructions alone, no user message."""
    reply = reply_to([{"role": "system", "content": "x"}, {"role": "system"}], tools=[])

    assert reply == Say(GREETING)
    assert "script" in GREETING


@pytest.mark.parametrize("content", ["What is my level?", [{"type": "text", "text": "my PROFILE"}]])
def test_a_question_about_the_profile_calls_the_tool(content: object) -> None:
    assert reply_to([user(content)], tools=[PROFILE_TOOL]) == CallTool(PROFILE_TOOL)


def test_no_tool_is_called_that_is_not_on_offer() -> None:
    assert isinstance(reply_to([user("my profile")], tools=["another"]), Say)


@pytest.mark.parametrize(
    "profile",
    [
        {"name": "Ana", "level": "B1"},
        {
            "student": {"name": "Ana", "level": "B1"},
            "lesson": {"title": "Food", "level": "A2", "name": "other"},
        },
    ],
)
def test_the_tools_result_is_put_into_words(profile: dict[str, object]) -> None:
    messages: list[dict[str, object]] = [
        user("my profile"),
        {"role": "tool", "content": json.dumps(profile)},
    ]

    assert reply_to(messages, tools=[PROFILE_TOOL]) == Say("Your name is Ana and your level is B1.")


@pytest.mark.parametrize("output", ["", "{}", "[]", "null", "plain words", '{"name": 3}'])
def test_any_tool_result_gives_some_sentence(output: str) -> None:
    result: dict[str, object] = {"role": "tool", "content": output}
    reply = reply_to([user("my profile"), result], tools=[])

    assert isinstance(reply, Say)
    assert reply.text


def test_a_person_may_say_anything() -> None:
    assert isinstance(reply_to([user("qwertz")], tools=[]), Say)
    assert isinstance(reply_to([user(None)], tools=[]), Say)


def test_after_an_interruption_it_says_where_they_were_and_does_not_greet() -> None:
    told: list[dict[str, object]] = [
        {"role": "system", "content": "The part that is on: the warm-up. Ask for the words."},
        {"role": "assistant", "content": "What did you do yesterday?"},
        user("Yesterday I cooked dinner."),
        {"role": "system", "content": entry("warm_up", resumed=True)},
    ]
    reply = reply_to(told, tools=[])
    assert isinstance(reply, Say)
    assert reply.text.startswith(
        "We were interrupted in the warm up. You had said: Yesterday I cooked dinner. Let us go on."
    )
