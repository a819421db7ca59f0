/**
 * Loaded into convex-local (`node --import`): once the file in RECORD_SQL is there, each statement
 * that reads documents is written to it with its values, a JSON line each, just before it runs.
 */
import { appendFileSync, existsSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

const file = process.env.RECORD_SQL;
const { prepare } = DatabaseSync.prototype;

DatabaseSync.prototype.prepare = function (sql) {
  const statement = prepare.call(this, sql);
  if (!/^SELECT\b.*\bFROM (idx CROSS JOIN )?docs\b/.test(sql)) return statement;
  for (const method of ["get", "all", "iterate"]) {
    const run = statement[method].bind(statement);
    statement[method] = (...values) => {
      if (existsSync(file)) appendFileSync(file, `${JSON.stringify({ sql, values: values.map(plain) })}\n`);
      return run(...values);
    };
  }
  return statement;
};

const plain = (value) =>
  value instanceof Uint8Array ? { base64: Buffer.from(value).toString("base64") } : value;
