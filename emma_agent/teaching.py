"""Teaching: a lesson as it lies in memory, and everything that can happen in it.

One method for each thing that happens. It changes memory and writes the record in the same call,
so that a tool's effect is in the next tool's answer and in Convex in the end. Nothing here waits.
What the lesson itself changed is never overwritten by what comes from outside.
"""

from __future__ import annotations

import asyncio
import re
import time
import unicodedata
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from emma_agent.context import (
    GUEST_PLAN,
    CorrectionStyle,
    Lesson,
    Plan,
    Preferences,
    RecurringError,
    Slide,
    TutoringContext,
    WordDue,
)
from emma_agent.logs import get_logger
from emma_agent.records import (
    CorrectionRecord,
    ErrorType,
    ExerciseRecord,
    LessonFinishedRecord,
    Rating,
    Severity,
    SlideShownRecord,
    Step,
    StepEnteredRecord,
    WordIntroducedRecord,
    WordReviewedRecord,
)
from emma_agent.recurring import with_corrections
from emma_agent.resume import LessonSoFar
from emma_agent.steps import FIRST_STEP, step_after
from livekit.plugins.convex import Record, SessionRecorder

__all__ = [
    "MAX_CORRECTIONS",
    "MAX_NEW_WORDS",
    "REVIEW_EVERY_S",
    "Snapshot",
    "Teaching",
    "same_words",
]

log = get_logger(__name__)

# A word is rated once for one attempt to remember it, however often the model is told to.
REVIEW_EVERY_S: Final = 600.0
# More than anybody learns in an hour; a model that goes round in circles stops there.
MAX_NEW_WORDS: Final = 40
MAX_CORRECTIONS: Final = 200

# BCP 47 for a language that nobody has named.
_UNDETERMINED: Final = "und"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What Emma's instructions are made of, at one moment.

    `slide` counts from 0 and is None before the first. `plan` is what holds now, newer than that in
    `context`; of `words_due` and `recurring_errors` too. `earlier` is the summary of what an earlier
    run of this session held. `recalled`: `context` is of an earlier day, and there may be newer.
    """

    context: TutoringContext | None = None
    plan: Plan = GUEST_PLAN
    step: Step = FIRST_STEP
    slide: int | None = None
    words_due: tuple[WordDue, ...] = ()
    recurring_errors: tuple[RecurringError, ...] = ()
    corrections: tuple[CorrectionRecord, ...] = ()
    new_words: tuple[str, ...] = ()
    earlier: str | None = None
    recalled: bool = False


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the student chose in this lesson; None where nothing."""

    speech_rate: float | None = None
    native_language_help: bool | None = None
    correction_style: CorrectionStyle | None = None

    def over(self, preferences: Preferences) -> Preferences:
        chosen = {
            "speech_rate": self.speech_rate,
            "native_language_help": self.native_language_help,
            "correction_style": self.correction_style,
        }
        known = {name: value for name, value in chosen.items() if value is not None}
        return replace(preferences, **known)  # type: ignore[arg-type]


class Teaching:
    """A lesson in memory. Attributes are read freely, changed only by these methods.

    Attributes:
        recorder: writes what happens; None until the session exists, and what happens before is
            in memory alone.
        context: what Convex knows of the student; None for a guest, or while unknown.
        recalled: `context` is what Convex knew on an earlier day, since it does not answer.
        plan: lesson, avatar and preferences as they hold now.
        step: the part of the lesson that is on.
        slide: the slide that is on, from 0; None before the first.
        corrections: noted in this lesson, by their id, in order.
        new_words: introduced in this lesson, as written, in order.
        finished: the objectives were reached.
        end_wanted: she has said goodbye and wants the lesson to end; what the student says next
            takes it back.
        earlier: what an earlier run of this session held, in short; None if there was none.
        turned_during: LiveKit's id of Emma's answer that last turned a slide.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self.recorder: SessionRecorder | None = None
        self.context: TutoringContext | None = None
        self.recalled = False
        self.plan: Plan = GUEST_PLAN
        self.step: Step = FIRST_STEP
        self.slide: int | None = None
        self.corrections: dict[str, CorrectionRecord] = {}
        self.new_words: dict[str, WordIntroducedRecord] = {}
        self.finished = False
        self.end_wanted = False
        self.earlier: str | None = None
        self.turned_during: str | None = None
        self._now = now
        self._chosen = _Chosen()
        self._rated: dict[str, float] = {}
        self._reviews: dict[str, WordReviewedRecord] = {}
        self._answers: dict[str, ExerciseRecord] = {}
        self._lesson_gone = False
        self._resume_slide: int | None = None
        self._version = 0
        self._changed = asyncio.Event()

    # What is known

    @property
    def version(self) -> int:
        """Grows with each change of what Emma is told: the plan, a preference, slide or step."""
        return self._version

    async def changed_since(self, version: int) -> int:
        """Wait until something is known that was not at `version`; return the new version."""
        while self._version == version:
            await self._changed.wait()
        return self._version

    @property
    def lesson(self) -> Lesson | None:
        """What is taught; None in free conversation without a plan."""
        return self.plan.lesson

    @property
    def slides(self) -> tuple[Slide, ...]:
        """The lesson's slides, none without a lesson."""
        return self.plan.lesson.slides if self.plan.lesson else ()

    @property
    def language(self) -> str:
        """The language that is learnt, as BCP 47."""
        if self.plan.lesson is not None:
            return self.plan.lesson.language
        known = self.context.student.target_language if self.context else ""
        return known or _UNDETERMINED

    @property
    def words_due(self) -> tuple[WordDue, ...]:
        """Words that it is time to use again and that were not rated yet, as Convex ordered them."""
        due = self.context.words_due if self.context else ()
        return tuple(word for word in due if same_words(word.word) not in self._rated)

    @property
    def recurring_errors(self) -> tuple[RecurringError, ...]:
        """What keeps coming back, this lesson's corrections counted in."""
        known = self.context.recurring_errors if self.context else ()
        return with_corrections(known, tuple(self.corrections.values()))

    @property
    def answers(self) -> tuple[ExerciseRecord, ...]:
        """The last answer to each exercise, in the order first answered."""
        return tuple(self._answers.values())

    @property
    def reviews(self) -> tuple[WordReviewedRecord, ...]:
        """The last rating of each word that was rated, in the order first rated."""
        return tuple(self._reviews.values())

    @property
    def next_step(self) -> Step | None:
        """The part of the lesson that comes next; None in the last."""
        return step_after(self.step, self.plan.lesson, words_due=len(self.words_due))

    def snapshot(self) -> Snapshot:
        """All that instructions are made of, as it is now."""
        return Snapshot(
            context=self.context,
            plan=self.plan,
            step=self.step,
            slide=self.slide,
            words_due=self.words_due,
            recurring_errors=self.recurring_errors,
            corrections=tuple(self.corrections.values()),
            new_words=tuple(word.word for word in self.new_words.values()),
            earlier=self.earlier,
            recalled=self.recalled,
        )

    # What others change

    def change_plan(self, plan: Plan) -> bool:
        """Take over what others changed; return whether it changes anything here.

        What was chosen in this lesson stays chosen. A lesson that is taught stays although it is
        there no more. The slide that is on stays on wherever it is moved to, else the number stays
        and is kept in range.
        """
        plan = replace(plan, preferences=self._chosen.over(plan.preferences))
        if plan.lesson is None and self.plan.lesson is not None:
            if not self._lesson_gone:
                log.warning(
                    "lesson.deleted",
                    function="sessions:plan",
                    remedy="it was deleted or withdrawn; it is taught to its end as last known",
                )
            self._lesson_gone = True
            plan = replace(plan, lesson=self.plan.lesson)
        elif plan.lesson is not None:
            self._lesson_gone = False
        if plan == self.plan:
            return False
        on, self.plan = self._slide_on(), plan
        self._go_on_at_slide()
        moved = self._place_of(on)
        if moved != self.slide:
            self.slide = moved
            if moved is not None:
                self._write(SlideShownRecord(created_at=self._now(), slide=moved))
        self._tell()
        return True

    def learn(self, context: TutoringContext, *, recalled: bool = False) -> None:
        """Take over what Convex knows of the student; what happened meanwhile stays.

        Args:
            recalled: it is what Convex knew on an earlier day.
        """
        self.context, self.recalled = context, recalled
        if not self.change_plan(context.plan):
            self._tell()

    def unlearn(self) -> None:
        """Know nothing of the student any more; the lesson that is taught stays."""
        self.context, self.recalled = None, False
        taught = replace(GUEST_PLAN, lesson=self.plan.lesson, next_lesson=self.plan.next_lesson)
        if not self.change_plan(taught):
            self._tell()

    # What happens in the lesson

    def resume_at(self, so_far: LessonSoFar) -> None:
        """Go on where earlier runs of this session were; writes nothing, it is on the record.

        A slide of a lesson that is not known yet is turned to as soon as it is.
        """
        self.step = so_far.step or self.step
        self._resume_slide = so_far.slide
        self.earlier = so_far.summary
        for correction in so_far.corrections:
            self.corrections.setdefault(correction.correction_id, correction)
        for word in so_far.new_words:
            self.new_words.setdefault(same_words(word.word), word)
        for answer in so_far.answers:
            self._answers[answer.exercise_id] = answer
        self.finished = so_far.finished
        self._go_on_at_slide()
        self._tell()

    def enter_step(self, step: Step) -> None:
        """Begin a part of the lesson; the presentation begins with the first slide."""
        self.step = step
        self._write(StepEnteredRecord(created_at=self._now(), step=step))
        if step == "presentation" and self.slide is None and self.slides:
            self.show_slide(0)
        self._tell()

    def show_slide(self, slide: int) -> Slide:
        """Turn to a slide, counted from 0, and return it.

        Raises:
            IndexError: there is no such slide.
        """
        if not 0 <= slide < len(self.slides):
            raise IndexError(f"slide {slide} of {len(self.slides)}")
        if slide != self.slide:
            self.slide = slide
            self._write(SlideShownRecord(created_at=self._now(), slide=slide))
            self._tell()
        return self.slides[slide]

    def note_correction(
        self,
        *,
        said: str,
        target: str,
        error_type: ErrorType,
        severity: Severity,
        explanation: str | None = None,
        item_id: str | None = None,
    ) -> CorrectionRecord:
        """Keep an error; the same of the same message is one, and returned as it is."""
        for noted in self.corrections.values():
            if (noted.item_id, same_words(noted.said), same_words(noted.target)) == (
                item_id,
                same_words(said),
                same_words(target),
            ):
                return noted
        correction = CorrectionRecord(
            created_at=self._now(),
            # Unique in the session, which other runs may have carried too.
            correction_id=f"c_{uuid.uuid4().hex[:10]}",
            item_id=item_id,
            said=said,
            target=target,
            error_type=error_type,
            severity=severity,
            explanation=explanation,
            repaired=False,
        )
        return self._keep(correction)

    def mark_repaired(self, correction_id: str) -> CorrectionRecord:
        """The student then said it right.

        Raises:
            KeyError: no such correction in this lesson.
        """
        noted = self.corrections[correction_id]
        if noted.repaired:
            return noted
        repaired = CorrectionRecord(
            created_at=self._now(),
            correction_id=noted.correction_id,
            item_id=noted.item_id,
            said=noted.said,
            target=noted.target,
            error_type=noted.error_type,
            severity=noted.severity,
            explanation=noted.explanation,
            repaired=True,
        )
        return self._keep(repaired)

    def introduce_word(
        self, word: str, *, meaning: str | None = None, example: str | None = None
    ) -> WordIntroducedRecord:
        """The student meets a word; the same again changes nothing."""
        key = same_words(word)
        if key not in self.new_words:
            met = WordIntroducedRecord(
                created_at=self._now(),
                word=word,
                language=self.language,
                meaning=meaning,
                example=example,
            )
            self.new_words[key] = met
            self._write(met)
        return self.new_words[key]

    def knows_word(self, word: str) -> bool:
        """Whether it is due, or was introduced or rated in this lesson."""
        key = same_words(word)
        return key in self.new_words or key in self._rated or self._due(key) is not None

    def rateable_in_s(self, word: str) -> float:
        """Seconds until the word may be rated again; 0 if it may be now."""
        rated_at = self._rated.get(same_words(word))
        return 0.0 if rated_at is None else max(0.0, rated_at + REVIEW_EVERY_S - self._now())

    def rate_word(self, word: str, rating: Rating) -> WordReviewedRecord:
        """How well the student knew a word; what follows from that is Convex's to say.

        Raises:
            KeyError: no word of this student that is known here.
        """
        key = same_words(word)
        due = self._due(key)
        if due is not None:
            written, language = due.word, due.language
        else:
            met = self.new_words[key]
            written, language = met.word, met.language
        review = WordReviewedRecord(
            created_at=self._now(), word=written, language=language, rating=rating
        )
        self._rated[key] = self._now()
        self._reviews[key] = review
        self._write(review)
        return review

    def record_answer(self, exercise_id: str, *, answer: str, score: float) -> ExerciseRecord:
        """An answer to an exercise; the same again changes nothing."""
        last = self._answers.get(exercise_id)
        if last is not None and (last.answer, last.score) == (answer, score):
            return last
        result = ExerciseRecord(
            created_at=self._now(), exercise_id=exercise_id, score=score, answer=answer
        )
        self._answers[exercise_id] = result
        self._write(result)
        return result

    def set_preference(
        self,
        *,
        speech_rate: float | None = None,
        native_language_help: bool | None = None,
        correction_style: CorrectionStyle | None = None,
    ) -> Preferences:
        """Teach in another way from now until the lesson ends.

        What a student likes in general is the school's, and the student's own to change
        (`students:setPreferences`); of this, the call of the tool is the record.
        """
        now = self._chosen
        self._chosen = _Chosen(
            speech_rate=now.speech_rate if speech_rate is None else speech_rate,
            native_language_help=(
                now.native_language_help if native_language_help is None else native_language_help
            ),
            correction_style=now.correction_style if correction_style is None else correction_style,
        )
        preferences = self._chosen.over(self.plan.preferences)
        if preferences != self.plan.preferences:
            self.plan = replace(self.plan, preferences=preferences)
            self._tell()
        return preferences

    def finish(self) -> None:
        """The objectives were reached; said once."""
        if not self.finished:
            self.finished = True
            self._write(LessonFinishedRecord(created_at=self._now()))

    def _keep(self, correction: CorrectionRecord) -> CorrectionRecord:
        self.corrections[correction.correction_id] = correction
        self._write(correction)
        return correction

    def _due(self, key: str) -> WordDue | None:
        due = self.context.words_due if self.context else ()
        return next((word for word in due if same_words(word.word) == key), None)

    def _go_on_at_slide(self) -> None:
        if self._resume_slide is not None and self.slides:
            if self.slide is None:
                self.slide = max(0, min(self._resume_slide, len(self.slides) - 1))
            self._resume_slide = None

    def _slide_on(self) -> Slide | None:
        return None if self.slide is None else self.slides[self.slide]

    def _place_of(self, on: Slide | None) -> int | None:
        if self.slide is None or not self.slides:
            return None
        if self.slide < len(self.slides) and self.slides[self.slide] == on:
            return self.slide
        if on in self.slides:
            return self.slides.index(on)
        return min(self.slide, len(self.slides) - 1)

    def _write(self, record: Record) -> None:
        if self.recorder is not None:
            self.recorder.record(record)

    def _tell(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


# The words that are due are compared with each other in every answer of a tool.
@lru_cache(maxsize=8_192)
def same_words(text: str) -> str:
    """Text by which words are the same ones: `normaliseWords` of convex/model/text.ts."""
    lower = unicodedata.normalize("NFKC", text).lower()
    kept = (char if unicodedata.category(char)[0] in "LNM" else " " for char in lower)
    return re.sub(" +", " ", "".join(kept)).strip()
