/**
 * Who Emma is in a lesson.
 * @module
 */
import type { Doc } from "../_generated/dataModel";
import type { QueryCtx } from "../_generated/server";
import type { TutorAvatar } from "../schoolValidators";

/** The first published avatar: the lesson's, else the student's; undefined is the plain Emma. */
export async function loadAvatar(
  ctx: QueryCtx,
  lesson: Doc<"lessons"> | null,
  student: Doc<"students"> | null,
): Promise<TutorAvatar | undefined> {
  for (const avatarId of [lesson?.avatarId, student?.avatarId]) {
    const avatar = avatarId === undefined ? null : await ctx.db.get("avatars", avatarId);
    if (avatar?.published === true) return toTutorAvatar(avatar);
  }
  return undefined;
}

function toTutorAvatar(avatar: Doc<"avatars">): TutorAvatar {
  const { name, persona, voice, language, teachingStyle, talkingHead } = avatar;
  return {
    name,
    persona,
    voice,
    language,
    teachingStyle,
    ...(talkingHead === undefined ? {} : { talkingHead }),
  };
}
