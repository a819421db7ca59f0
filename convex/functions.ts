/**
 * Builders of public functions. They establish who is calling, from the token alone.
 *
 * | Builder | For |
 * |---|---|
 * | `agentQuery`, `agentMutation` | the agent of one student or guest |
 * | `studentQuery`, `studentMutation` | what is about one student: for that student, their agent, and the users who may see them |
 * | `teacherQuery`, `teacherMutation` | teachers and administrators |
 * | `adminQuery`, `adminMutation` | administrators |
 * | `userQuery`, `userMutation` | any user of the school |
 * | `callerMutation` | agents, students and users alike |
 * | `signedInMutation` | whoever has a valid token: to accept an invitation |
 *
 * A `studentId` that a user passes names whom the call is about, never who is calling.
 * @module
 */
import { customMutation, customQuery } from "convex-helpers/server/customFunctions";
import { v } from "convex/values";
import type { UserIdentity } from "convex/server";
import type { Doc, Id } from "./_generated/dataModel";
import { mutation, query } from "./_generated/server";
import type { QueryCtx } from "./_generated/server";
import { fail } from "./errors";
import type { UserRole } from "./schoolValidators";

/** An agent or a student, as the token tells. */
export type Caller = {
  role: "agent" | "student";
  /** The token's `sub`: `student:<id>` or `guest:<session key>`. */
  subject: string;
  /** The student the token names; null for a guest, and where there is no such student. */
  studentId: Id<"students"> | null;
  /** The student as the token names it, also where there is no such student. */
  claimedStudentId: string | null;
};

/** A person of the school: the token tells who, the row in `users` what they may do. */
export type UserCaller = { role: UserRole; user: Doc<"users"> };

/** Whom a call is about: a student, or the guest whose agent is calling. */
export type About = { studentId: Id<"students"> | null; subject: string | null };

/** The caller's student. Throws where the token names none, or one who does not exist. */
export function requireStudent(caller: Pick<Caller, "studentId">): Id<"students"> {
  if (caller.studentId === null) {
    fail({
      code: "student_unknown",
      message: "The token names no student of this deployment: check `student_id` in the metadata.",
    });
  }
  return caller.studentId;
}

/** Whether `session` is of the student or guest that the call is about. */
export function maySee(about: About, session: Doc<"sessions">): boolean {
  if (session.studentId !== undefined) return session.studentId === about.studentId;
  return about.subject !== null && session.subject === about.subject;
}

async function identityOf(ctx: QueryCtx): Promise<UserIdentity> {
  const identity = await ctx.auth.getUserIdentity();
  if (identity === null) {
    fail({ code: "unauthenticated", message: "A valid token is needed." });
  }
  return identity;
}

/**
 * The role of an agent's or student's token; null for anybody else's.
 *
 * It counts only from our own issuer, since another provider that a deployment adds to
 * `auth.config.ts` may let its users choose their claims.
 */
export function tokenRole({ issuer, role }: UserIdentity): Caller["role"] | null {
  if (issuer !== process.env.AGENT_JWT_ISSUER) return null;
  return role === "agent" || role === "student" ? role : null;
}

async function tokenCaller(ctx: QueryCtx, identity: UserIdentity): Promise<Caller | null> {
  const role = tokenRole(identity);
  if (role === null) return null;
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

async function callerOf(ctx: QueryCtx, role: Caller["role"]): Promise<Caller> {
  const caller = await tokenCaller(ctx, await identityOf(ctx));
  if (caller?.role !== role) {
    fail({ code: "forbidden", message: `This function is for the ${role} alone.` });
  }
  return caller;
}

/** The user who accepted an invitation with this identity; none once they were removed. */
export async function findUser(
  ctx: QueryCtx,
  { tokenIdentifier }: UserIdentity,
): Promise<Doc<"users"> | null> {
  return await ctx.db
    .query("users")
    .withIndex("by_tokenIdentifier", (q) => q.eq("tokenIdentifier", tokenIdentifier))
    .unique();
}

/** The user of the identity; throws where there is none. */
async function userOf(
  ctx: QueryCtx,
  identity: UserIdentity,
  roles: readonly UserRole[],
): Promise<UserCaller> {
  const user = tokenRole(identity) === null ? await findUser(ctx, identity) : null;
  if (user === null || user.removedAt !== undefined || !roles.includes(user.role)) {
    fail({ code: "forbidden", message: `This function is for: ${roles.join(", ")}.` });
  }
  return { role: user.role, user };
}

async function userCaller(ctx: QueryCtx, roles: readonly UserRole[]): Promise<UserCaller> {
  return await userOf(ctx, await identityOf(ctx), roles);
}

/**
 * That the user may see the student: they are linked, or the user is an administrator.
 *
 * @returns The link; null for administrators, who need none.
 * @throws ConvexError `forbidden`, also where there is no such student: whether there is one is
 *   nobody else's business. To administrators `student_unknown`.
 */
export async function requireAccess(
  ctx: QueryCtx,
  { role, user }: UserCaller,
  studentId: Id<"students">,
): Promise<Doc<"studentAccess"> | null> {
  if (role === "administrator") {
    if ((await ctx.db.get("students", studentId)) !== null) return null;
    fail({ code: "student_unknown", message: "There is no such student.", field: "studentId" });
  }
  const access = await ctx.db
    .query("studentAccess")
    .withIndex("by_userId_and_studentId", (q) =>
      q.eq("userId", user._id).eq("studentId", studentId),
    )
    .unique();
  if (access === null || access.relation !== role) {
    fail({ code: "forbidden", message: "The student is not one of the caller's." });
  }
  return access;
}

const TEACHERS = ["teacher", "administrator"] as const;
const ADMINISTRATORS = ["administrator"] as const;
const USERS = ["teacher", "guardian", "administrator"] as const;

/** Whom a call is about, if the caller may make it. */
async function aboutWhom(
  ctx: QueryCtx,
  studentId: Id<"students"> | undefined,
): Promise<{ caller: Caller | UserCaller; about: About }> {
  const identity = await identityOf(ctx);
  const caller = await tokenCaller(ctx, identity);
  if (caller !== null) {
    if (caller.claimedStudentId !== null) requireStudent(caller);
    if (studentId !== undefined && studentId !== caller.studentId) {
      fail({ code: "forbidden", message: "The token names another student.", field: "studentId" });
    }
    return { caller, about: caller };
  }
  const user = await userOf(ctx, identity, USERS);
  if (studentId === undefined) {
    fail({
      code: "student_unknown",
      message: "Say which student the call is about: `studentId`.",
      field: "studentId",
    });
  }
  await requireAccess(ctx, user, studentId);
  return { caller: user, about: { studentId, subject: null } };
}

/** A mutation that only the agent may call. A student who does not exist is left to the handler. */
export const agentMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await callerOf(ctx, "agent") }, args: {} }),
});

/** A query that only the agent may call. A student who does not exist is left to the handler. */
export const agentQuery = customQuery(query, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await callerOf(ctx, "agent") }, args: {} }),
});

const aboutArgs = { studentId: v.optional(v.id("students")) };

/**
 * A query about one student, in `ctx.about`.
 *
 * The student's own token and their agent's (also a guest's) say who that is; users pass
 * `studentId`, and must be linked to that student.
 */
export const studentQuery = customQuery(query, {
  args: aboutArgs,
  input: async (ctx, { studentId }) => ({ ctx: await aboutWhom(ctx, studentId), args: {} }),
});

/** A mutation by the student's own token, in `ctx.about`; nobody acts in a student's place. */
export const studentMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => {
    const caller = await callerOf(ctx, "student");
    return { ctx: { caller, about: { ...caller, studentId: requireStudent(caller) } }, args: {} };
  },
});

/** A query for teachers and administrators. */
export const teacherQuery = customQuery(query, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, TEACHERS) }, args: {} }),
});

/** A mutation for teachers and administrators. */
export const teacherMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, TEACHERS) }, args: {} }),
});

/** A query for administrators. */
export const adminQuery = customQuery(query, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, ADMINISTRATORS) }, args: {} }),
});

/** A mutation for administrators. */
export const adminMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, ADMINISTRATORS) }, args: {} }),
});

/** A query for any user of the school: teachers, guardians, administrators. */
export const userQuery = customQuery(query, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, USERS) }, args: {} }),
});

/** A mutation for any user of the school: teachers, guardians, administrators. */
export const userMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { caller: await userCaller(ctx, USERS) }, args: {} }),
});

/** A mutation for agents (also of guests), students, and users of the school, in `ctx.caller`. */
export const callerMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => {
    const identity = await identityOf(ctx);
    const caller: Caller | UserCaller =
      (await tokenCaller(ctx, identity)) ?? (await userOf(ctx, identity, USERS));
    return { ctx: { caller }, args: {} };
  },
});

/** A mutation for whoever has a valid token, in `ctx.identity`; it knows no role. */
export const signedInMutation = customMutation(mutation, {
  args: {},
  input: async (ctx) => ({ ctx: { identity: await identityOf(ctx) }, args: {} }),
});
