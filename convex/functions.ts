/**
 * Builders of public functions. They establish who is calling, from the token alone.
 * @module
 */
import { customMutation, customQuery } from "convex-helpers/server/customFunctions";
import type { Doc, Id } from "./_generated/dataModel";
import { mutation, query } from "./_generated/server";
import type { QueryCtx } from "./_generated/server";
import { fail } from "./errors";

/** Who is calling. */
export type Caller = {
  role: "agent" | "student";
  /** The token's `sub`: `student:<id>` or `guest:<session key>`. */
  subject: string;
  /** The student the token names; null for a guest, and where there is no such student. */
  studentId: Id<"students"> | null;
  /** The student as the token names it, also where there is no such student. */
  claimedStudentId: string | null;
};

/** The caller's student. Throws where the token names none, or one who does not exist. */
export function requireStudent(caller: Caller): Id<"students"> {
  if (caller.studentId === null) {
    fail({
      code: "student_unknown",
      message: "The token names no student of this deployment: check `student_id` in the metadata.",
    });
  }
  return caller.studentId;
}

/** Whether the caller may see `session`: it is their student's, or their guest session. */
export function maySee(caller: Caller, session: Doc<"sessions">): boolean {
  if (session.studentId !== undefined) return session.studentId === caller.studentId;
  return session.subject === caller.subject;
}

/**
 * Reads the caller from the token.
 *
 * A role counts only from our own issuer: another provider that a deployment adds to
 * `auth.config.ts` may let its users choose their claims.
 */
async function callerOf(ctx: QueryCtx, roles: readonly Caller["role"][]): Promise<Caller> {
  const identity = await ctx.auth.getUserIdentity();
  if (identity === null || identity.issuer !== process.env.AGENT_JWT_ISSUER) {
    fail({ code: "unauthenticated", message: "A token signed with the agent's key is needed." });
  }
  const role = roles.find((allowed) => allowed === identity.role);
  if (role === undefined) {
    fail({ code: "forbidden", message: `This function is for: ${roles.join(", ")}.` });
  }
  const claimed = typeof identity.student_id === "string" ? identity.student_id : null;
  const id = claimed === null ? null : ctx.db.normalizeId("students", claimed);
  const student = id === null ? null : await ctx.db.get("students", id);
  if (role === "student" && student === null) {
    fail({ code: "student_unknown", message: "The token names no student of this deployment." });
  }
  return {
    role,
    subject: identity.subject,
    studentId: student?._id ?? null,
    claimedStudentId: claimed,
  };
}

/** A mutation that only the agent may call. A student who does not exist is left to the handler. */
export const agentMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await callerOf(ctx, ["agent"]) }, args: {} }),
});

/** A query that only the agent may call. A student who does not exist is left to the handler. */
export const agentQuery = customQuery(query, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await callerOf(ctx, ["agent"]) }, args: {} }),
});

/** A query for the student's own token, or the agent's that names this student or guest. */
export const studentQuery = customQuery(query, {
  args: {},
  input: async (ctx) => {
    const caller = await callerOf(ctx, ["agent", "student"]);
    if (caller.claimedStudentId !== null) requireStudent(caller);
    return { ctx: { caller }, args: {} };
  },
});
