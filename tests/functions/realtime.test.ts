/** A realtime model's lesson: transcripts come late, finals come twice, and it reads as it was said. */
import { expect, test } from "vitest";
import { api } from "../../convex/_generated/api.js";
import { agentOf, deployment, message, record, rows, seed, started, transcript } from "./helpers.ts";
import type { SessionRecord } from "../../convex/validators.ts";

/** As the recorder writes it when the provider tells what was asked after it has answered. */
const JOURNAL: SessionRecord[] = [
  started(0, 0, "s1"),
  message(1, 1_000, "greeting", "Hello!", { role: "assistant" }),
  message(2, 6_000, "answer", "Fine, and you?", { role: "assistant" }),
  transcript(3, 9_000, "How are", { itemId: "asked" }),
  message(4, 4_000, "asked", "How are", { startedSpeakingAt: 1_793_610_004_000 }),
  transcript(5, 9_100, "How are you?", { itemId: "asked" }),
  message(6, 4_000, "asked", "How are you?"),
];

test.each([64, 2, 1])("%d records at a time", async (size) => {
  const t = deployment();
  const { studentId } = await seed(t);
  const agent = agentOf(t, studentId);
  for (let at = 0; at < JOURNAL.length; at += size) {
    await record(agent, "run_a", JOURNAL.slice(at, at + size));
  }

  const { page } = await agent.query(api.messages.list, {
    sessionKey: "s1",
    paginationOpts: { numItems: 100, cursor: null },
  });
  expect(page.map(({ role, text, provisional }) => [role, text, provisional])).toEqual([
    ["assistant", "Hello!", false],
    ["user", "How are you?", false],
    ["assistant", "Fine, and you?", false],
  ]);
  expect((await rows(t, "sessionLive"))[0]).toMatchObject({ messageCount: 3 });
  // The repeat came without, and takes nothing away.
  expect(await rows(t, "messages")).toContainEqual(
    expect.objectContaining({ itemId: "asked", startedSpeakingAt: 1_793_610_004_000 }),
  );
});
