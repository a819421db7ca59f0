/**
 * The SQLite file: documents, index keys, and what the engine must remember.
 *
 * `docs` holds each document once, as canonical JSON; `idx` holds one row per document and index,
 * ordered by key. One process owns a file: the exclusive lock keeps a second scheduler away.
 */
import type { DatabaseSync as Database, SQLInputValue, StatementSync } from "node:sqlite";
import { StorageError } from "./errors.ts";
import type { IndexDefinition } from "./schema.ts";

/** "CVXL": marks a file as ours (`PRAGMA application_id`). */
const APPLICATION_ID = 0x4356584c;
const FORMAT_VERSION = 1;

/** The backend numbers user tables from here; smaller numbers are system tables. */
const FIRST_USER_TABLE = 10_001;
export const SCHEDULED_FUNCTIONS = "_scheduled_functions";
const SYSTEM_TABLES = new Map([[SCHEDULED_FUNCTIONS, 27]]);

const FORMAT = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
  CREATE TABLE tables (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
  CREATE TABLE indexes (
    id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, name TEXT NOT NULL, fields TEXT NOT NULL,
    UNIQUE (tbl, name)
  );
  CREATE TABLE docs (id TEXT PRIMARY KEY, size INTEGER NOT NULL, json TEXT NOT NULL);
  CREATE TABLE idx (
    ix INTEGER NOT NULL, key BLOB NOT NULL, id TEXT NOT NULL, PRIMARY KEY (ix, key)
  ) WITHOUT ROWID;
  CREATE TABLE requests (
    session TEXT NOT NULL, request INTEGER NOT NULL, ts TEXT NOT NULL, value TEXT NOT NULL,
    created REAL NOT NULL, PRIMARY KEY (session, request)
  ) WITHOUT ROWID;
  CREATE INDEX requests_created ON requests (created);
  CREATE TABLE jobs (id TEXT PRIMARY KEY, state TEXT NOT NULL, due REAL NOT NULL) WITHOUT ROWID;
  CREATE INDEX jobs_due ON jobs (state, due);
  CREATE TABLE crons (name TEXT PRIMARY KEY, spec TEXT NOT NULL, next REAL NOT NULL) WITHOUT ROWID;
`;

/** An index of a table: `by_id`, `by_creation_time`, or one of the schema. */
export interface Index {
  id: number;
  table: Table;
  name: string;
  /** Paths that make up the key, `_creationTime` and `_id` included. */
  paths: string[][];
}

export interface Table {
  number: number;
  name: string;
  indexes: Map<string, Index>;
}

export interface Row {
  key: Buffer;
  size: number;
  json: string;
}

export interface Batch {
  rows: Row[];
  /** Is there nothing beyond them? When false there may be. */
  isLast: boolean;
}

/** A batch ends once it holds this much, so that large documents are not read in vain. */
const BATCH_BYTES = 1 << 20;

export class Store {
  private readonly db: Database;
  private readonly statements = new Map<string, StatementSync>();
  private byName = new Map<string, Table>();
  private byNumber = new Map<number, Table>();
  /** Has a table or index been made or dropped since they were read from the file? */
  private definedSinceLoad = false;
  private closed = false;

  /** @throws StorageError when the file cannot be used. */
  static async open(path: string): Promise<Store> {
    const { DatabaseSync } = await importSqlite();
    try {
      return new Store(new DatabaseSync(path));
    } catch (error) {
      if (error instanceof StorageError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      const remedy = reason.includes("locked") ? "; another convex-local has it open" : "";
      throw new StorageError(`Cannot use the database ${path}: ${reason}${remedy}`);
    }
  }

  private constructor(db: Database) {
    this.db = db;
    try {
      this.prepareFile();
      this.loadTables();
    } catch (error) {
      db.close();
      throw error;
    }
  }

  private prepareFile(): void {
    this.exec("PRAGMA locking_mode = EXCLUSIVE");
    const applicationId = this.get("PRAGMA application_id")?.["application_id"];
    const isNew = this.get("SELECT count(*) AS n FROM sqlite_schema")?.["n"] === 0;
    if (!isNew && applicationId !== APPLICATION_ID) {
      throw new StorageError("The database file is of another program: choose another --db");
    }
    // A kill may lose nothing that was committed; only a power cut may (https://sqlite.org/wal.html).
    this.exec("PRAGMA journal_mode = WAL");
    this.exec("PRAGMA synchronous = NORMAL");
    this.exec("PRAGMA temp_store = MEMORY");
    this.exec("PRAGMA cache_size = -65536");
    this.transaction(() => {
      if (isNew) {
        this.exec(`PRAGMA application_id = ${APPLICATION_ID}`);
        this.exec(FORMAT);
        this.setMeta("format", String(FORMAT_VERSION));
      }
    });
    if (this.meta("format") !== String(FORMAT_VERSION)) {
      throw new StorageError("The database file is of another version of convex-local: delete it");
    }
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.statements.clear();
    this.db.close();
  }

  // SQL

  exec(sql: string): void {
    this.db.exec(sql);
  }

  run(sql: string, ...values: SQLInputValue[]): void {
    this.statement(sql).run(...values);
  }

  get(sql: string, ...values: SQLInputValue[]): Record<string, unknown> | undefined {
    return this.statement(sql).get(...values);
  }

  all(sql: string, ...values: SQLInputValue[]): Record<string, unknown>[] {
    return this.statement(sql).all(...values);
  }

  private statement(sql: string): StatementSync {
    let statement = this.statements.get(sql);
    if (statement === undefined) {
      statement = this.db.prepare(sql);
      this.statements.set(sql, statement);
    }
    return statement;
  }

  /** Runs `body` in a transaction of its own, rolled back when it throws. */
  transaction<T>(body: () => T): T {
    this.exec("BEGIN IMMEDIATE");
    try {
      const result = body();
      this.exec("COMMIT");
      return result;
    } catch (error) {
      this.rollback();
      throw error;
    }
  }

  /** Undoes the open transaction, and forgets the tables and indexes it made. */
  rollback(): void {
    this.exec("ROLLBACK");
    this.forgetUndone();
  }

  /** Runs `body` so that a throw undoes what it wrote; `name` is unique among the open ones. */
  savepoint<T>(name: string, body: () => T): T {
    this.exec(`SAVEPOINT ${name}`);
    try {
      const result = body();
      this.exec(`RELEASE ${name}`);
      return result;
    } catch (error) {
      this.exec(`ROLLBACK TO ${name}`);
      this.exec(`RELEASE ${name}`);
      this.forgetUndone();
      throw error;
    }
  }

  meta(name: string): string | null {
    const row = this.get("SELECT value FROM meta WHERE name = ?", name);
    return row === undefined ? null : (row["value"] as string);
  }

  setMeta(name: string, value: string): void {
    this.run("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", name, value);
  }

  // Tables and indexes

  table(name: string): Table | null {
    return this.byName.get(name) ?? null;
  }

  tableOfNumber(number: number): Table | null {
    return this.byNumber.get(number) ?? null;
  }

  get tables(): Iterable<Table> {
    return this.byName.values();
  }

  /** The table, created in the open transaction when there is none yet. */
  ensureTable(name: string): Table {
    const existing = this.byName.get(name);
    if (existing !== undefined) return existing;
    const last = this.get("SELECT max(number) AS last FROM tables")?.["last"] as number | null;
    const number = SYSTEM_TABLES.get(name) ?? Math.max(FIRST_USER_TABLE, (last ?? 0) + 1);
    this.run("INSERT INTO tables (number, name) VALUES (?, ?)", number, name);
    const table: Table = { number, name, indexes: new Map() };
    this.byName.set(name, table);
    this.byNumber.set(number, table);
    this.createIndex(table, { name: "by_id", fields: [] });
    this.createIndex(table, { name: "by_creation_time", fields: [] });
    return table;
  }

  /** Registers an index; its rows are the caller's to write. */
  createIndex(table: Table, definition: IndexDefinition): Index {
    const { name, fields } = definition;
    this.definedSinceLoad = true;
    this.run(
      "INSERT INTO indexes (tbl, name, fields) VALUES (?, ?, ?)",
      table.number,
      name,
      JSON.stringify(fields),
    );
    const id = this.get("SELECT last_insert_rowid() AS id")?.["id"] as number;
    return addIndex(table, id, name, fields);
  }

  dropIndex(index: Index): void {
    this.definedSinceLoad = true;
    this.run("DELETE FROM idx WHERE ix = ?", index.id);
    this.run("DELETE FROM indexes WHERE id = ?", index.id);
    index.table.indexes.delete(index.name);
  }

  private forgetUndone(): void {
    if (this.definedSinceLoad) this.loadTables();
  }

  private loadTables(): void {
    this.definedSinceLoad = false;
    this.byName = new Map();
    this.byNumber = new Map();
    for (const row of this.all("SELECT number, name FROM tables")) {
      const table: Table = {
        number: row["number"] as number,
        name: row["name"] as string,
        indexes: new Map(),
      };
      this.byName.set(table.name, table);
      this.byNumber.set(table.number, table);
    }
    for (const row of this.all("SELECT id, tbl, name, fields FROM indexes ORDER BY id")) {
      const table = this.byNumber.get(row["tbl"] as number) as Table;
      const fields = JSON.parse(row["fields"] as string) as string[];
      addIndex(table, row["id"] as number, row["name"] as string, fields);
    }
  }

  // Documents and keys

  document(id: string): { size: number; json: string } | null {
    const row = this.get("SELECT size, json FROM docs WHERE id = ?", id);
    return row === undefined ? null : { size: row["size"] as number, json: row["json"] as string };
  }

  putDocument(id: string, size: number, json: string): void {
    this.run(
      "INSERT INTO docs (id, size, json) VALUES (?, ?, ?) " +
        "ON CONFLICT (id) DO UPDATE SET size = excluded.size, json = excluded.json",
      id,
      size,
      json,
    );
  }

  deleteDocument(id: string): void {
    this.run("DELETE FROM docs WHERE id = ?", id);
  }

  putKey(index: number, key: Buffer, id: string): void {
    this.run("INSERT INTO idx (ix, key, id) VALUES (?, ?, ?)", index, key, id);
  }

  deleteKey(index: number, key: Buffer): void {
    this.run("DELETE FROM idx WHERE ix = ? AND key = ?", index, key);
  }

  /** Some of the documents with `lo <= key < hi`, in the order of the index or against it. */
  rows(index: number, lo: Buffer, hi: Buffer | null, descending: boolean, limit: number): Batch {
    const found = this.statement(
      "SELECT idx.key AS key, docs.size AS size, docs.json AS json " +
        "FROM idx CROSS JOIN docs ON docs.id = idx.id " +
        `WHERE idx.ix = ? AND idx.key >= ? ${hi === null ? "" : "AND idx.key < ?"} ` +
        `ORDER BY idx.key ${descending ? "DESC" : "ASC"} LIMIT ?`,
    ).iterate(...(hi === null ? [index, lo, limit] : [index, lo, hi, limit]));
    const rows: Row[] = [];
    let bytes = 0;
    for (const { key, size, json } of found) {
      rows.push({
        key: Buffer.from(key as Uint8Array),
        size: size as number,
        json: json as string,
      });
      bytes += size as number;
      if (bytes > BATCH_BYTES) return { rows, isLast: false };
    }
    return { rows, isLast: rows.length < limit };
  }

  count(table: Table): number {
    const { id } = table.indexes.get("by_id") as Index;
    return this.get("SELECT count(*) AS n FROM idx WHERE ix = ?", id)?.["n"] as number;
  }
}

function addIndex(table: Table, id: number, name: string, fields: string[]): Index {
  const ending = name === "by_id" ? ["_id"] : ["_creationTime", "_id"];
  const paths = [...fields, ...ending].map((path) => path.split("."));
  const index: Index = { id, table, name, paths };
  table.indexes.set(name, index);
  return index;
}

/** Node prints an ExperimentalWarning once per process; it says nothing about this program. */
async function importSqlite(): Promise<typeof import("node:sqlite")> {
  const emit = process.emitWarning.bind(process);
  process.emitWarning = () => undefined;
  try {
    return await import("node:sqlite");
  } finally {
    process.emitWarning = emit;
  }
}
