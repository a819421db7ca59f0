/**
 * Pure helpers on text.
 * @module
 */

/** Length of `text` in UTF-8 bytes. Convex has refused unpaired surrogates before. */
export function utf8Length(text: string): number {
  let bytes = text.length;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit < 0x80) continue;
    // Two bytes up to U+07FF; three for the rest of the plane; a surrogate pair is four, two each.
    bytes += unit < 0x800 || (unit >= 0xd800 && unit <= 0xdfff) ? 1 : 2;
  }
  return bytes;
}

/** The words of `text` as they compare: lower case, composed, one space for all that is no word. */
export function normaliseWords(text: string): string {
  return text
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\p{M}]+/gu, " ")
    .trim();
}

/**
 * Which of `parts` are said in `text`, as whole words, each stretch of `text` used once.
 *
 * "no" is not in "I know", and one "yes" does not stand for two: what is taken for contained is
 * deleted by the caller, and what a student said must not go that way.
 */
export function containedParts<Part extends { text: string }>(
  text: string,
  parts: readonly Part[],
): Set<Part> {
  let remaining = ` ${normaliseWords(text)} `;
  const contained = new Set<Part>();
  for (const part of parts) {
    const words = ` ${normaliseWords(part.text)} `;
    if (words.trim() === "") {
      contained.add(part);
      continue;
    }
    const at = remaining.indexOf(words);
    if (at < 0) continue;
    contained.add(part);
    // "|" is no word character, so no later part can match across the gap.
    remaining = `${remaining.slice(0, at)} | ${remaining.slice(at + words.length)}`;
  }
  return contained;
}
