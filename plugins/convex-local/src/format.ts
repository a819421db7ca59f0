/**
 * How a value leaves: over HTTP in the format asked for, over WebSocket always encoded.
 *
 * Inside, values are Convex JSON (`{$integer}`, `{$bytes}`, `{$float}`), which loses nothing. The
 * default of HTTP is "clean" JSON, which does: see `crates/value/src/export.rs` of the backend.
 */
import { Buffer } from "node:buffer";
import { badRequest } from "./api-error.ts";
import type { JSONValue } from "./types.ts";
import { compareVersions, parseClientVersion } from "./versions.ts";

export type ValueFormat = "encoded" | "clean" | "export";

const FORMATS: Record<string, ValueFormat> = {
  convex_encoded_json: "encoded",
  convex_json: "encoded",
  json: "clean",
  convex_clean_json: "clean",
  export_json: "export",
};

/** Clients up to these versions expect the lossless encoding when they name no format. */
const LAST_ENCODED = new Map([
  ["npm", "1.4.1"],
  ["cli", "1.4.1"],
  ["actions", "1.4.1"],
  ["python", "0.5.0"],
]);

/**
 * The format a request asks for.
 *
 * @param requested - `format` of the request, if any.
 * @param client - Its `Convex-Client` header, for example `npm-1.48.0`.
 * @throws ApiError 400 for an unknown format.
 */
export function chooseFormat(requested: unknown, client: string | undefined): ValueFormat {
  if (requested === undefined || requested === null) return defaultFormat(client);
  const format = typeof requested === "string" ? FORMATS[requested] : undefined;
  if (format === undefined) {
    const got = JSON.stringify(requested);
    throw badRequest("BadFormat", `format param must be one of [\`json\`]. Got ${got}`);
  }
  return format;
}

function defaultFormat(text: string | undefined): ValueFormat {
  const client = parseClientVersion(text);
  const last = LAST_ENCODED.get(client?.client ?? "");
  if (client === null || last === undefined) return "clean";
  return compareVersions(client.version, last) > 0 ? "clean" : "encoded";
}

// TypeScript's es2024 library does not know it yet; Node has had it since 21.
const { rawJSON } = JSON as unknown as { rawJSON: (text: string) => unknown };

/**
 * One value in the wanted format, ready for `JSON.stringify`.
 *
 * A whole number is written `2.0`, as the backend does: clients in other languages tell by it that
 * the number is a float64 (the Python one refuses `2`).
 *
 * clean: int64 becomes a decimal string, bytes a base64 string, NaN and the infinities their
 * names. export: int64 becomes a JSON number whatever its size, the rest stays encoded.
 */
export function exportValue(value: JSONValue | undefined, format: ValueFormat): unknown {
  if (typeof value === "number") return floatLiteral(value);
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map((item) => exportValue(item, format));
  if (format === "encoded") return exportFields(value, format);
  if (typeof value["$integer"] === "string") {
    const text = Buffer.from(value["$integer"], "base64").readBigInt64LE().toString();
    return format === "clean" ? text : rawJSON(text);
  }
  if (typeof value["$bytes"] === "string") return format === "clean" ? value["$bytes"] : value;
  if (typeof value["$float"] === "string") {
    const number = Buffer.from(value["$float"], "base64").readDoubleLE();
    if (Object.is(number, -0)) return rawJSON("-0.0");
    return format === "clean" ? String(number) : value;
  }
  return exportFields(value, format);
}

function exportFields(value: Record<string, JSONValue | undefined>, format: ValueFormat): unknown {
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, exportValue(item, format)]),
  );
}

function floatLiteral(number: number): unknown {
  const text = JSON.stringify(number);
  return /^-?\d+$/.test(text) ? rawJSON(`${text}.0`) : number;
}
