/**
 * FSRS cards: what a review does to one. Pure; `ts-fsrs` does the reckoning.
 *
 * No fuzz: the same reviews in the same order always give the same card, wherever they are counted.
 * @module
 */
import { Rating as Fsrs, State, createEmptyCard, fsrs } from "ts-fsrs";
import type { Card, Grade } from "ts-fsrs";
import type { Doc } from "../_generated/dataModel";
import type { Rating, WordState } from "../learningValidators";

/** Days of stability from which a word in state `review` counts as mastered. */
export const MASTERED_STABILITY_DAYS = 21;

/** The columns of a word that follow from its reviews. */
export type Scheduled = Pick<Doc<"vocabulary">, "state" | "dueAt" | "mastered" | "card">;

const scheduler = fsrs({ enable_fuzz: false });

/** The card of a word that was never reviewed: due at once. */
export function newCard(at: number): Scheduled {
  return scheduledOf(createEmptyCard(at), at);
}

/**
 * The card after one more review.
 *
 * @param review - Not before the last one that `scheduled` has: FSRS knows no negative interval.
 */
export function reviewed(
  scheduled: Scheduled,
  review: { reviewedAt: number; rating: Rating },
): Scheduled {
  const grade = GRADES[review.rating];
  const { card } = scheduler.next(cardOf(scheduled), review.reviewedAt, grade);
  return scheduledOf(card, card.due.getTime());
}

const GRADES: Record<Rating, Grade> = {
  1: Fsrs.Again,
  2: Fsrs.Hard,
  3: Fsrs.Good,
  4: Fsrs.Easy,
};

const STATES: Record<WordState, State> = {
  new: State.New,
  learning: State.Learning,
  review: State.Review,
  relearning: State.Relearning,
};

function cardOf({ state, dueAt, card }: Scheduled): Card {
  return {
    ...createEmptyCard(dueAt),
    state: STATES[state],
    stability: card.stability,
    difficulty: card.difficulty,
    scheduled_days: card.scheduledDays,
    learning_steps: card.learningSteps,
    reps: card.reps,
    lapses: card.lapses,
    ...(card.lastReviewedAt === undefined ? {} : { last_review: new Date(card.lastReviewedAt) }),
  };
}

function scheduledOf(card: Card, dueAt: number): Scheduled {
  const { stability, difficulty, scheduled_days, learning_steps, reps, lapses, last_review } = card;
  return {
    state: stateOf(card.state),
    dueAt,
    mastered: card.state === State.Review && stability >= MASTERED_STABILITY_DAYS,
    card: {
      stability,
      difficulty,
      scheduledDays: scheduled_days,
      learningSteps: learning_steps,
      reps,
      lapses,
      ...(last_review === undefined ? {} : { lastReviewedAt: last_review.getTime() }),
    },
  };
}

function stateOf(state: State): WordState {
  switch (state) {
    case State.New:
      return "new";
    case State.Learning:
      return "learning";
    case State.Review:
      return "review";
    case State.Relearning:
      return "relearning";
  }
}
