/**
 * Runs what is due: scheduled functions and crons.
 *
 * A mutation and the note that it ran are one transaction, so it takes effect exactly once. An
 * action is noted before it begins, so it runs at most once: after a crash it counts as failed.
 */
import { NOBODY, type Engine } from "./engine.ts";
import { nextCronRun, type CronSchedule } from "./crons.ts";
import {
  beginJob,
  finishJob,
  forgetJobs,
  nextDue,
  nextDueTime,
  runningJobs,
  type Job,
} from "./jobs.ts";
import { FINISHED_JOB_KEPT_MS, SCHEDULED_PARALLELISM } from "./limits.ts";
import { traceOf } from "./stack.ts";
import type { Transaction } from "./transaction.ts";
import type { AnalyzedCron, Outcome } from "./types.ts";

/** `setTimeout` counts in 32 bits; what is further away is looked at again. */
const LONGEST_WAIT_MS = 2 ** 31 - 1;
/** After an error of the engine's own, a full disk say, what was due is tried again. */
const PAUSE_AFTER_FAILURE_MS = 1000;
const FORGET_EVERY_MS = 3600 * 1000;

export class Scheduler {
  private readonly engine: Engine;
  private readonly log: (line: string) => void;
  private timer: NodeJS.Timeout | null = null;
  private stopped = false;
  private ticking = false;
  private actionsRunning = 0;
  private readonly cronsRunning = new Set<string>();
  private lastForget = 0;
  private pausedUntil = 0;

  constructor(engine: Engine, log: (line: string) => void) {
    this.engine = engine;
    this.log = log;
    engine.onScheduled = () => {
      this.wake();
    };
  }

  start(): void {
    const interrupted = runningJobs(this.engine.store);
    if (interrupted.length > 0) {
      this.engine.systemTransaction((tx, nowMs) => {
        for (const id of interrupted) {
          const error = "Transient error while executing action";
          finishJob(tx, id, { kind: "failed", error }, nowMs);
        }
      });
    }
    this.programChanged();
  }

  stop(): void {
    this.stopped = true;
    if (this.timer !== null) clearTimeout(this.timer);
  }

  /** Takes over the crons of the program; a cron that stays as it was keeps its next run. */
  programChanged(): void {
    const { store, program } = this.engine;
    const nowMs = Date.now();
    const names = new Set(program.crons.map((cron) => cron.name));
    store.transaction(() => {
      for (const row of store.all("SELECT name FROM crons")) {
        const name = row["name"] as string;
        if (!names.has(name)) store.run("DELETE FROM crons WHERE name = ?", name);
      }
      for (const cron of program.crons) {
        const spec = JSON.stringify([cron.function, cron.args, cron.schedule]);
        const old = store.get("SELECT spec FROM crons WHERE name = ?", cron.name);
        if (old?.["spec"] === spec) continue;
        const next = nextCronRun(cron.name, cron.schedule as CronSchedule, null, nowMs);
        store.run(
          "INSERT OR REPLACE INTO crons (name, spec, next) VALUES (?, ?, ?)",
          cron.name,
          spec,
          next,
        );
      }
    });
    this.wake();
  }

  /** Sets the timer for whatever is due first. */
  private wake(): void {
    if (this.stopped || this.ticking) return;
    if (this.timer !== null) clearTimeout(this.timer);
    const due = this.nextTime();
    if (due === null) return;
    const wait = Math.min(
      Math.max(0, Math.max(due, this.pausedUntil) - Date.now()),
      LONGEST_WAIT_MS,
    );
    this.timer = setTimeout(() => {
      void this.tick();
    }, wait);
    // Waiting for a cron must not keep a program alive that is otherwise done.
    this.timer.unref();
  }

  private nextTime(): number | null {
    const { store } = this.engine;
    const times = this.dueCrons(Infinity).map(({ next }) => next);
    const job = this.actionsRunning < SCHEDULED_PARALLELISM ? nextDueTime(store) : null;
    if (job !== null) times.push(job);
    return times.length === 0 ? null : Math.min(...times);
  }

  private async tick(): Promise<void> {
    this.ticking = true;
    try {
      while (!this.stopped && this.runOne()) {
        // Callers of functions come in between.
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (!this.stopped) this.forget();
    } catch (error) {
      this.pausedUntil = Date.now() + PAUSE_AFTER_FAILURE_MS;
      this.log(`The scheduler failed: ${traceOf(error)}`);
    } finally {
      this.ticking = false;
      this.wake();
    }
  }

  private runOne(): boolean {
    const nowMs = Date.now();
    const [cron] = this.dueCrons(nowMs);
    if (cron !== undefined) {
      this.runCron(cron, nowMs);
      return true;
    }
    if (this.actionsRunning >= SCHEDULED_PARALLELISM) return false;
    const job = nextDue(this.engine.store, nowMs);
    if (job === null) return false;
    this.runJob(job);
    return true;
  }

  // Scheduled functions

  private runJob(job: Job): void {
    const { engine } = this;
    const found = engine.find(job.path);
    const call = { path: job.path, args: job.args, identity: NOBODY };
    if (found?.type === "mutation") {
      const { outcome } = engine.mutation(call, "internal", {
        finish: (tx) => {
          finishJob(tx, job.id, { kind: "success" }, Date.now());
        },
      });
      this.report(job.path, outcome);
      if (outcome.status === "error") this.endJob(job.id, outcome);
    } else if (found?.type === "action") {
      engine.systemTransaction((tx, nowMs) => {
        beginJob(tx, job.id, nowMs);
      });
      this.runAction(job.path, engine.action(call, "internal"), (outcome) => {
        this.endJob(job.id, outcome);
      });
    } else {
      engine.systemTransaction((tx, nowMs) => {
        const error = `Could not find function for '${job.path}'`;
        finishJob(tx, job.id, { kind: "failed", error }, nowMs);
      });
    }
  }

  private endJob(id: string, outcome: Outcome): void {
    this.engine.systemTransaction((tx, nowMs) => {
      const ending =
        outcome.status === "success"
          ? ({ kind: "success" } as const)
          : ({ kind: "failed", error: outcome.errorMessage } as const);
      finishJob(tx, id, ending, nowMs);
    });
  }

  private runAction(
    path: string,
    running: Promise<Outcome>,
    ended?: (outcome: Outcome) => void,
  ): void {
    this.actionsRunning += 1;
    running
      .then((outcome) => {
        if (this.stopped) return;
        this.report(path, outcome);
        ended?.(outcome);
      })
      .catch((error: unknown) => {
        this.log(`${path}: ${traceOf(error)}`);
      })
      .finally(() => {
        this.actionsRunning -= 1;
        this.wake();
      });
  }

  // Crons

  private dueCrons(beforeMs: number): (AnalyzedCron & { next: number })[] {
    const { store, program } = this.engine;
    const rows = store.all("SELECT name, next FROM crons WHERE next <= ? ORDER BY next", beforeMs);
    return rows.flatMap((row) => {
      const cron = program.crons.find(({ name }) => name === row["name"]);
      // One run of a cron at a time: the next is chosen when the last has ended.
      if (cron === undefined || this.cronsRunning.has(cron.name)) return [];
      return [{ ...cron, next: row["next"] as number }];
    });
  }

  private runCron(cron: AnalyzedCron & { next: number }, nowMs: number): void {
    const { engine } = this;
    const [args] = cron.args as [AnalyzedCron["args"]];
    const call = { path: cron.function, args, identity: NOBODY };
    const after = nextCronRun(cron.name, cron.schedule as CronSchedule, cron.next, nowMs);
    const advance = (): void => {
      engine.store.run("UPDATE crons SET next = ? WHERE name = ?", after, cron.name);
    };
    if (engine.find(cron.function)?.type === "mutation") {
      const { outcome } = engine.mutation(call, "internal", { finish: advance });
      this.report(`cron ${cron.name}`, outcome);
      if (outcome.status === "error") advance();
      return;
    }
    advance();
    this.cronsRunning.add(cron.name);
    const running = engine.action(call, "internal").finally(() => {
      this.cronsRunning.delete(cron.name);
    });
    this.runAction(`cron ${cron.name}`, running);
  }

  private report(what: string, outcome: Outcome): void {
    for (const line of outcome.logLines) this.log(`${what}: ${line}`);
    if (outcome.status === "error") this.log(`${what}: ${outcome.errorMessage}`);
  }

  private forget(): void {
    const nowMs = Date.now();
    if (nowMs - this.lastForget < FORGET_EVERY_MS) return;
    this.lastForget = nowMs;
    this.engine.systemTransaction((tx: Transaction) => {
      forgetJobs(tx, nowMs - FINISHED_JOB_KEPT_MS);
    });
  }
}
