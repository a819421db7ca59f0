"""What is shown of a run, on the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from livekit.agents import llm
from livekit.agents.evals import EvaluationResult
from rich.markup import escape
from rich.table import Table

from evals.holding import Held
from evals.judges import CRITERIA
from evals.scenario import Scenario
from evals.verdict import ASPECTS, Problem, problems_of

__all__ = ["Result", "as_json", "list_of", "sentences_of", "table_of"]

_LANGUAGES: Final = {"ar": "Arabic", "de": "German", "es": "Spanish", "ja": "Japanese"}


@dataclass(frozen=True, slots=True)
class Result:
    """One learner: what is wrong, and what the judges said if they were asked."""

    held: Held
    problems: tuple[Problem, ...]
    judged: EvaluationResult | None = None

    @classmethod
    def of(cls, held: Held, judged: EvaluationResult | None = None) -> Result:
        """The verdict about a lesson that was held."""
        return cls(held, tuple(problems_of(held)), judged)

    @property
    def judgments(self) -> dict[str, str]:
        """By criterion: pass, fail, maybe, or that there is no answer; empty if nobody was asked."""
        if self.judged is None:
            return {}
        said = self.judged.judgments
        return {name: said[name].verdict if name in said else "no answer" for name in CRITERIA}

    @property
    def passed(self) -> bool:
        """Nothing is wrong, and no judge says so; a judge who cannot tell does not decide."""
        return not self.problems and not {"fail", "no answer"} & {*self.judgments.values()}


def list_of(scenarios: Sequence[Scenario]) -> Table:
    """The learners that there are."""
    table = Table(box=None, header_style="bold")
    for column in ("learner", "level", "mother tongue", "lesson", "what is special"):
        table.add_column(column)
    for scenario in scenarios:
        student = scenario.student
        table.add_row(
            scenario.name,
            student.level,
            _mother_tongue(scenario),
            scenario.lesson or "free conversation",
            escape(scenario.about),
        )
    return table


def table_of(results: Sequence[Result]) -> Table:
    """A line for each learner."""
    table = Table(box=None, header_style="bold")
    judged = any(result.judged is not None for result in results)
    aspects = [*ASPECTS, *(CRITERIA if judged else ())]
    for column in ("learner", "level", "mother tongue", "turns", *aspects, "verdict"):
        table.add_column(column, justify="right" if column == "turns" else "left")
    for result in results:
        scenario, wrong = result.held.scenario, {problem.aspect for problem in result.problems}
        cells = ["[red]wrong[/]" if aspect in wrong else "right" for aspect in ASPECTS]
        cells += [
            f"[red]{said}[/]" if said in ("fail", "no answer") else said
            for said in result.judgments.values()
        ]
        table.add_row(
            scenario.name,
            scenario.student.level,
            _mother_tongue(scenario),
            str(len(scenario.turns)),
            *cells,
            "[green]pass[/]" if result.passed else "[red]FAIL[/]",
        )
    return table


def sentences_of(result: Result) -> list[str]:
    """A sentence for each thing that is wrong."""
    name = result.held.scenario.name
    found = [f"{name}, {problem.aspect}: {problem.sentence}" for problem in result.problems]
    judgments = result.judged.judgments if result.judged else {}
    for criterion, said in result.judgments.items():
        if said == "no answer":
            found.append(f"{name}, {criterion}: the judge did not answer")
        elif said != "pass":
            found.append(f"{name}, {criterion}: {said}: {judgments[criterion].reasoning}")
    return found


def as_json(result: Result) -> dict[str, Any]:
    """Everything of one learner, with the conversation; the learners are made up."""
    scenario, judged = result.held.scenario, result.judged
    return {
        "learner": scenario.name,
        "level": scenario.student.level,
        "native_language": scenario.student.native_language,
        "lesson": scenario.lesson,
        "turns": len(scenario.turns),
        "passed": result.passed,
        "problems": [asdict(problem) for problem in result.problems],
        "judgments": {
            name: {"verdict": said, "reasoning": judged.judgments[name].reasoning}
            for name, said in result.judgments.items()
            if judged is not None and name in judged.judgments
        },
        "summaries": [
            {"for_student": record["for_student"], "for_teacher": record["for_teacher"]}
            for record in result.held.records
            if record["kind"] == "sessionSummary"
        ],
        "conversation": [
            {"role": item.role, "text": item.text_content, "interrupted": item.interrupted}
            for item in result.held.conversation.items
            if isinstance(item, llm.ChatMessage) and item.role in ("user", "assistant")
        ],
    }


def _mother_tongue(scenario: Scenario) -> str:
    code = scenario.student.native_language
    return _LANGUAGES.get(code, code)
