import path from "node:path";
import { describe, expect, test } from "vitest";
import { nextCronRun, parseCron, type CronSchedule } from "../../src/crons.ts";
import {
  eventually,
  FIXTURES,
  nobody,
  open,
  project,
  temporaryDirectory,
  valueOf,
  type Opened,
} from "./support.ts";
import { readFileSync } from "node:fs";

const HOUR_MS = 3_600_000;

interface JobDocument {
  _id: string;
  name: string;
  args: unknown[];
  scheduledTime: number;
  completedTime?: number;
  state: { kind: string; error?: string };
}

const stateOf = async ({ query }: Opened, id: unknown): Promise<JobDocument> =>
  (await query("jobs:state", { id: id as string })) as unknown as JobDocument;

const ended = async (opened: Opened, id: unknown): Promise<JobDocument> =>
  await eventually(async () => {
    const job = await stateOf(opened, id);
    return ["pending", "inProgress"].includes(job.state.kind) ? null : job;
  });

const later = { function: "note", args: { text: "later" }, afterMs: HOUR_MS };

describe("scheduled functions", () => {
  test("run when they are due, and can be read as documents", async () => {
    const opened = await open({ project: "jobs" });
    const id = await opened.mutation("jobs:schedule", {
      function: "note",
      args: { text: "a" },
      afterMs: 0,
    });
    const job = await ended(opened, id);
    expect(job).toMatchObject({
      _id: id,
      name: "jobs.js:note",
      args: [{ text: "a" }],
      state: { kind: "success" },
    });
    expect(job.completedTime).toBeGreaterThanOrEqual(job.scheduledTime);
    expect(await opened.query("jobs:notes")).toEqual(["a"]);
    expect(opened.logs).toContain("jobs:note: [LOG] 'noted'");
  });

  test("run in the order in which they are due", async () => {
    const opened = await open({ project: "jobs" });
    const ids = [];
    for (const [text, afterMs] of [
      ["third", 90],
      ["first", 0],
      ["second", 40],
    ] as const) {
      ids.push(
        await opened.mutation("jobs:schedule", { function: "note", args: { text }, afterMs }),
      );
    }
    for (const id of ids) await ended(opened, id);
    expect(await opened.query("jobs:notes")).toEqual(["first", "second", "third"]);
  });

  test("of a mutation that failed do not exist", async () => {
    const opened = await open({ project: "jobs" });
    await expect(opened.mutation("jobs:scheduleThenThrow")).rejects.toThrow("after all, no");
    expect(await opened.query("jobs:all")).toEqual([]);
  });

  test("that fail say why and leave nothing behind", async () => {
    const opened = await open({ project: "jobs" });
    const id = await opened.mutation("jobs:schedule", { function: "fail", afterMs: 0 });
    const job = await ended(opened, id);
    expect(job.state.kind).toBe("failed");
    expect(job.state.error).toContain("on purpose");
    expect(await opened.query("jobs:notes")).toEqual([]);
  });

  test("can be actions", async () => {
    const opened = await open({ project: "jobs" });
    const id = await opened.mutation("jobs:schedule", {
      function: "noteLater",
      args: { text: "by an action" },
      afterMs: 0,
    });
    expect((await ended(opened, id)).state.kind).toBe("success");
    expect(await opened.query("jobs:notes")).toEqual(["by an action"]);
  });

  test("can be cancelled before they begin", async () => {
    const opened = await open({ project: "jobs" });
    const id = await opened.mutation("jobs:schedule", { ...later });
    await opened.mutation("jobs:cancel", { id });
    expect((await stateOf(opened, id)).state.kind).toBe("canceled");
  });

  test("must exist and be no queries", async () => {
    const opened = await open({ project: "jobs" });
    const schedule = (name: string): Promise<unknown> =>
      opened.mutation("jobs:schedule", { function: name, afterMs: 0 });
    await expect(schedule("absent")).rejects.toThrow("nonexistent path: jobs:absent");
    await expect(schedule("notes")).rejects.toThrow("is a Query");
  });

  test("survive the end of the process", async () => {
    const dbPath = path.join(temporaryDirectory(), "db.sqlite3");
    const first = await open({ project: "jobs", dbPath });
    const soon = await first.mutation("jobs:schedule", {
      function: "note",
      args: { text: "soon" },
      afterMs: 30,
    });
    const far = await first.mutation("jobs:schedule", { ...later });
    await first.backend.close();
    const second = await open({ project: "jobs", dbPath });
    expect((await ended(second, soon)).state.kind).toBe("success");
    expect(await second.query("jobs:notes")).toEqual(["soon"]);
    expect((await stateOf(second, far)).state.kind).toBe("pending");
  });

  test("an action that was running when the process ended has failed and is not run again", async () => {
    const dbPath = path.join(temporaryDirectory(), "db.sqlite3");
    const first = await open({ project: "jobs", dbPath });
    const id = await first.mutation("jobs:schedule", { function: "hang", afterMs: 0 });
    await eventually(async () => ((await first.query("jobs:notes")) as string[]).length === 1);
    expect((await stateOf(first, id)).state.kind).toBe("inProgress");
    await first.backend.close();
    const second = await open({ project: "jobs", dbPath });
    expect((await stateOf(second, id)).state).toMatchObject({ kind: "failed" });
    expect(await second.query("jobs:notes")).toEqual(["hanging"]);
  });

  test("wake up queries that read them", async () => {
    const opened = await open({ project: "jobs" });
    const id = (await opened.mutation("jobs:schedule", { ...later })) as string;
    const { readSet } = await opened.backend.runQuery({
      path: "jobs:state",
      args: { id },
      identity: nobody,
    });
    let touched = false;
    opened.backend.onCommit((commit) => {
      touched ||= commit.touches(readSet);
    });
    await opened.mutation("jobs:cancel", { id });
    expect(touched).toBe(true);
  });
});

describe("actions", () => {
  test("call queries, mutations and other actions", async () => {
    const opened = await open({ project: "jobs" });
    expect(await opened.action("jobs:callAll", { text: "x" })).toEqual(["x", "x!"]);
  });

  test("schedule and cancel", async () => {
    const opened = await open({ project: "jobs" });
    const ids = (await opened.action("jobs:scheduleFromAction", { text: "s" })) as {
      id: string;
      cancelled: string;
    };
    expect((await ended(opened, ids.id)).state.kind).toBe("success");
    expect((await stateOf(opened, ids.cancelled)).state.kind).toBe("canceled");
  });

  test("hear ConvexErrors of what they call, and pass them on", async () => {
    const { action, backend } = await open({ project: "jobs" });
    expect(await action("jobs:catchRefusal", { catches: true })).toEqual({ code: "refused" });
    const outcome = await backend.runAction({
      path: "jobs:catchRefusal",
      args: { catches: false },
      identity: nobody,
    });
    expect(outcome).toMatchObject({ status: "error", errorData: { code: "refused" } });
  });

  test("run beside each other, with their own log lines and identities", async () => {
    const { backend } = await open({ project: "globals" });
    const run = (text: string, ms: number) =>
      backend.runAction({
        path: "globals:wait",
        args: { text, ms },
        identity: { kind: "user", attributes: { subject: text } },
      });
    const [slow, fast] = await Promise.all([run("slow", 60), run("fast", 5)]);
    expect(slow.logLines).toEqual(["[LOG] 'slow'", "[LOG] 'slow again'"]);
    expect(fast.logLines).toEqual(["[LOG] 'fast'", "[LOG] 'fast again'"]);
    expect(valueOf(slow)).toMatchObject({
      subject: "slow",
      digest: { $bytes: expect.any(String) as string },
    });
  });
});

describe("crons", () => {
  const at = (text: string): number => Date.parse(`${text}:00Z`);
  const next = (schedule: CronSchedule, now: string): string =>
    new Date(nextCronRun("name", schedule, null, at(now))).toISOString().slice(0, 16);

  test.each<[CronSchedule, string, string]>([
    [{ type: "hourly", minuteUTC: 30 }, "2026-11-23T10:30", "2026-11-23T11:30"],
    [{ type: "daily", hourUTC: 9, minuteUTC: 5 }, "2026-11-23T10:00", "2026-11-24T09:05"],
    [
      { type: "weekly", dayOfWeek: "sunday", hourUTC: 0, minuteUTC: 0 },
      "2026-11-23T10:00",
      "2026-11-29T00:00",
    ],
    [
      { type: "monthly", day: 31, hourUTC: 1, minuteUTC: 0 },
      "2026-11-23T10:00",
      "2026-12-31T01:00",
    ],
    [
      { type: "monthly", day: 31, hourUTC: 1, minuteUTC: 0 },
      "2027-01-31T01:00",
      "2027-03-31T01:00",
    ],
    [{ type: "cron", cron: "*/15 8-17 * * MON-FRI" }, "2026-11-27T17:45", "2026-11-30T08:00"],
    [{ type: "cron", cron: "0 0 29 2 *" }, "2026-11-23T10:00", "2028-02-29T00:00"],
    [{ type: "cron", cron: "0 12 13 * 5" }, "2026-11-23T10:00", "2026-11-27T12:00"],
    [{ type: "cron", cron: "5,10 1 * jan 7" }, "2026-11-23T10:00", "2027-01-03T01:05"],
  ])("%j after %s is %s", (schedule, now, expected) => {
    expect(next(schedule, now)).toBe(expected);
  });

  test("an interval begins at once, keeps its beat and skips what it missed", () => {
    const every = { type: "interval", minutes: 10 } as const;
    expect(nextCronRun("n", every, null, 5_000)).toBe(5_000);
    expect(nextCronRun("n", every, 5_000, 5_000)).toBe(605_000);
    expect(nextCronRun("n", every, 5_000, 1_300_000)).toBe(1_805_000);
  });

  test("what is no expression is refused", () => {
    for (const text of ["* * * *", "60 * * * *", "* * * * mondy", "*/0 * * * *", "5-1 * * * *"]) {
      expect(() => parseCron(text)).toThrow(`Invalid cron expression "${text}"`);
    }
  });

  const jobs = readFileSync(path.join(FIXTURES, "jobs/convex/jobs.ts"), "utf8");
  const cronFile = (schedule: string): string => `
    import { anyApi, cronJobs } from "convex/server";
    const crons = cronJobs();
    crons.interval("beat", ${schedule}, (anyApi as any).jobs.note, { text: "beat" });
    export default crons;
  `;

  test("run, and go on where they were after a restart", async () => {
    const directory = project({ "jobs.ts": jobs, "crons.ts": cronFile("{ hours: 1 }") });
    const dbPath = path.join(directory, "db.sqlite3");
    const first = await open({ project: directory, dbPath });
    await eventually(async () => ((await first.query("jobs:notes")) as string[]).length === 1);
    await first.backend.close();
    const second = await open({ project: directory, dbPath });
    await second.mutation("jobs:schedule", {
      function: "note",
      args: { text: "other" },
      afterMs: 20,
    });
    await eventually(async () =>
      ((await second.query("jobs:notes")) as string[]).includes("other"),
    );
    expect(await second.query("jobs:notes")).toEqual(["beat", "other"]);
  });

  test("run again and again", async () => {
    const directory = project({ "jobs.ts": jobs, "crons.ts": cronFile("{ seconds: 1 }") });
    const opened = await open({ project: directory });
    await eventually(async () => ((await opened.query("jobs:notes")) as string[]).length >= 2);
  });

  test("must name a function", async () => {
    const directory = project({ "crons.ts": cronFile("{ hours: 1 }") });
    await expect(open({ project: directory })).rejects.toThrow(
      "The cron job 'beat' names jobs:note, which is no function",
    );
  });
});
