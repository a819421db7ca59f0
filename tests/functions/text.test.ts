import { describe, expect, test } from "vitest";
import { containedParts, normaliseWords, utf8Length } from "../../convex/model/text.ts";
import { MAX_SESSION_MODELS, addUsage } from "../../convex/model/usage.ts";

describe("utf8Length", () => {
  test.each(["", "a", "é", "€", "🙂", "مرحبا", "日本", "a🙂é€"])("of %j", (text) => {
    expect(utf8Length(text)).toBe(new TextEncoder().encode(text).length);
  });
});

describe("normaliseWords", () => {
  test.each([
    ["  Hello,   WORLD! ", "hello world"],
    ["¿Qué tal?", "qué tal"],
    // Decomposed and composed accents are the same word; so are full-width and plain letters.
    ["Que\u0301 \uff21", "qué a"],
    ["…", ""],
  ])("of %j", (text, words) => {
    expect(normaliseWords(text)).toBe(words);
  });
});

describe("containedParts", () => {
  const contained = (text: string, parts: string[]) => {
    const items = parts.map((part) => ({ text: part }));
    return [...containedParts(text, items)].map((item) => item.text);
  };

  test("whole words only", () => {
    expect(contained("I know", ["no", "know", "I"])).toEqual(["know", "I"]);
  });

  test("each stretch once, the first part first", () => {
    expect(contained("yes yes", ["yes", "Yes", "YES"])).toEqual(["yes", "Yes"]);
  });

  test("nothing across a stretch that is used up", () => {
    expect(contained("one two three", ["two", "one three"])).toEqual(["two"]);
  });

  test("a part without words always is", () => {
    expect(contained("hello", ["…"])).toEqual(["…"]);
  });
});

describe("addUsage", () => {
  test("beyond 64 models sums the rest as one", () => {
    const models = Array.from({ length: 70 }, (_, i) => ({
      type: "llm",
      provider: "p",
      model: `m${i}`,
      inputTokens: 1,
    }));
    const sums = addUsage([], [], models);
    expect(sums).toHaveLength(MAX_SESSION_MODELS);
    expect(sums.find(({ type }) => type === "other")?.inputTokens).toBe(7);
  });
});
