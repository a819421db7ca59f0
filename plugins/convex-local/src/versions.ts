/** Versions of clients, as they name themselves: `npm-1.48.0`, `python-0.8.1`. */

export interface ClientVersion {
  client: string;
  version: string;
}

/** Null when it is not `<name>-<major>.<minor>.<patch>`. */
export function parseClientVersion(text: string | undefined | null): ClientVersion | null {
  const match = /^([a-z]+)-(\d+\.\d+\.\d+)/.exec(text ?? "");
  if (match === null) return null;
  const [, client = "", version = ""] = match;
  return { client, version };
}

/** Negative, zero or positive, as `a` is older than, equal to or newer than `b`. */
export function compareVersions(a: string, b: string): number {
  const others = b.split(".").map(Number);
  for (const [index, part] of a.split(".").map(Number).entries()) {
    const difference = part - (others[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
