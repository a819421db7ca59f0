/** What a thrown value says about itself, read without trusting its shape. */
import type { Thrown } from "../stack.ts";

/** Self-contained: its source text is also evaluated inside the functions' contexts. */
export function describeThrown(error: unknown): Thrown {
  if (typeof error !== "object" || error === null) {
    return { name: "", message: String(error), stack: "" };
  }
  const { name, message, stack, data, ConvexErrorSymbol } = error as Record<string, unknown>;
  if (typeof message !== "string") return { name: "", message: JSON.stringify(error), stack: "" };
  return {
    name: typeof name === "string" ? name : "Error",
    message,
    stack: typeof stack === "string" ? stack : "",
    // npm `convex` marks its errors so, since classes differ between bundles.
    ...(ConvexErrorSymbol === Symbol.for("ConvexError") && typeof data === "string"
      ? { data }
      : {}),
  };
}
