"""Let twelve scripted learners have a lesson with Emma, and say whether she did right: `make eval`.

Without options nothing is needed: a scripted model does what each learner's file says, the real tutor,
tools, lesson state, session and recorder do the rest, and the journal is read back. With --model the
configured language model answers the same lines (OPENAI_API_KEY, OPENAI_BASE_URL or EMMA_LLM_*), and
with --judge it is also asked how the lessons were. Exit code 0: all is right; 1: something is wrong,
each in a sentence; 2: it could not be found out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from livekit.agents import APIConnectOptions, APIError, APIStatusError, llm
from rich.console import Console
from rich.markup import escape

from emma_agent.settings import Settings, SettingsError
from emma_agent.speech.models import text_model
from evals import lessons
from evals.holding import hold
from evals.judges import judge
from evals.report import Result, as_json, list_of, sentences_of, table_of
from evals.scenario import LEARNERS, Scenario, ScenarioError, load_all
from evals.stand_ins import ScriptedModel

__all__ = ["main"]

_SCRIPTED_TURN_S: Final = 20.0
_MODEL_TURN_S: Final = 120.0
_REACHED_IN_S: Final = 20.0
_WIDTH: Final = 120


class _CannotTellError(Exception):
    """Nothing can be found out; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    asked = _parse(arguments)
    # A table that is too narrow is harder to read than lines that the terminal breaks.
    console = Console(highlight=False, soft_wrap=True, width=max(Console().width, _WIDTH))
    try:
        scenarios = _chosen(asked.learners, asked.directory)
        if asked.list:
            console.print(list_of(scenarios))
            return 0
        model = _real_model() if asked.model or asked.judge else None
        # What goes wrong is in the verdict; the log would say it again, between the lines.
        logging.getLogger().addHandler(logging.NullHandler())
        results = asyncio.run(_run(scenarios, model, judged=asked.judge, console=console))
    except (_CannotTellError, ScenarioError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    console.print(table_of(results))
    for result in results:
        for sentence in sentences_of(result):
            console.print(escape(sentence))
    failed = [result.held.scenario.name for result in results if not result.passed]
    how = "with the configured model" if model else "with the scripted model"
    console.print(
        f"{len(failed)} of {len(results)} learners {how}: {', '.join(failed)}"
        if failed
        else f"All {len(results)} learners {how}: right."
    )
    if asked.json is not None:
        shown = json.dumps([as_json(result) for result in results], ensure_ascii=False, indent=2)
        try:
            asked.json.write_text(f"{shown}\n", "utf-8")
        except OSError as error:
            sys.stderr.write(f"{asked.json} cannot be written: {error.strerror}\n")
            return 2
    return 1 if failed else 0


async def _run(
    scenarios: Sequence[Scenario],
    model: llm.LLM[Any] | None,
    *,
    judged: bool,
    console: Console,
) -> list[Result]:
    if model is not None:
        await _reach(model)
    results = []
    for scenario in scenarios:
        if model is None:
            held = await hold(scenario, ScriptedModel(), turn_timeout_s=_SCRIPTED_TURN_S)
            results.append(Result.of(held))
            continue
        console.print(f"  {scenario.name} …")
        held = await hold(scenario, model, turn_timeout_s=_MODEL_TURN_S)
        said = await judge(scenario, held.conversation, model) if judged else None
        results.append(Result.of(held, said))
    if model is not None:
        await model.aclose()
    return results


async def _reach(model: llm.LLM[Any]) -> None:
    """One short question, so that a wrong key is told once and not by every learner."""
    question = llm.ChatContext()
    question.add_message(role="user", content="Say yes.")
    once = APIConnectOptions(max_retry=0, timeout=_REACHED_IN_S)
    try:
        await model.chat(chat_ctx=question, conn_options=once).collect()
    except APIError as error:
        status = f" {error.status_code}" if isinstance(error, APIStatusError) else ""
        raise _CannotTellError(
            f"The model does not answer ({type(error).__name__}{status}): look at OPENAI_API_KEY, "
            "OPENAI_BASE_URL and EMMA_LLM_MODEL, or their EMMA_LLM_* for the language model alone."
        ) from None


def _chosen(names: Sequence[str], directory: Path) -> list[Scenario]:
    scenarios = load_all(directory, lessons=lessons.slugs())
    there = {scenario.name: scenario for scenario in scenarios}
    if unknown := [name for name in names if name not in there]:
        raise _CannotTellError(
            f"There is no learner {', '.join(unknown)}; there are {', '.join(there)}."
        )
    return [there[name] for name in dict.fromkeys(names)] or scenarios


def _real_model() -> llm.LLM[Any]:
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise _CannotTellError(str(error)) from None
    endpoint = settings.endpoint("llm")
    if not endpoint.usable:
        raise _CannotTellError(
            "OPENAI_API_KEY is not set: a real model answers with --model and --judge; set a key, or "
            "OPENAI_BASE_URL or EMMA_LLM_BASE_URL to a compatible server. Without these options a "
            "scripted model answers and nothing is needed."
        )
    return text_model(settings, endpoint)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m evals", description=__doc__.split("\n\n")[0].partition(": `")[0] + "."
    )
    parser.add_argument("learners", nargs="*", metavar="LEARNER", help="by name; none is all")
    parser.add_argument("--list", action="store_true", help="say which learners there are")
    parser.add_argument(
        "--model",
        action="store_true",
        help="let the configured language model answer the learners' lines",
    )
    parser.add_argument(
        "--judge",
        action="store_true",
        help="also let it judge level, safety, corrections and staying in the lesson",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as well")
    parser.add_argument(
        "--from",
        dest="directory",
        type=Path,
        default=LEARNERS,
        metavar="DIRECTORY",
        help="take the learners from files of your own",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
