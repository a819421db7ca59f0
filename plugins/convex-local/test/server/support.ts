/** A convex-local in its own process, and tokens that it believes. */
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT } from "jose";

export const MAIN = join(import.meta.dirname, "../../src/main.ts");
export const FIXTURE = join(import.meta.dirname, "../fixtures/conformance");
/** The workspace's packages, for copies of the fixture elsewhere. */
export const NODE_MODULES = join(import.meta.dirname, "../../../../node_modules");
export const ISSUER = "https://conformance.invalid";

/** Signs tokens as an identity provider would; `jwks` is what the deployment is told of it. */
export class TestIssuer {
  readonly #key: CryptoKey;
  readonly #kid: string;
  readonly jwks: { keys: object[] };

  private constructor(key: CryptoKey, kid: string, jwks: { keys: object[] }) {
    this.#key = key;
    this.#kid = kid;
    this.jwks = jwks;
  }

  static async create(): Promise<TestIssuer> {
    const { publicKey, privateKey } = await generateKeyPair("ES256");
    const jwk = await exportJWK(publicKey);
    const kid = await calculateJwkThumbprint(jwk);
    return new TestIssuer(privateKey, kid, { keys: [{ ...jwk, kid, alg: "ES256", use: "sig" }] });
  }

  get dataUri(): string {
    const body = Buffer.from(JSON.stringify(this.jwks)).toString("base64");
    return `data:application/json;base64,${body}`;
  }

  /** @param claims - Replace the defaults; `undefined` leaves a claim out. */
  async token(claims: Record<string, unknown> = {}, kid: string | null = this.#kid) {
    const now = Math.floor(Date.now() / 1000);
    const payload = { iss: ISSUER, aud: "convex", sub: "ada", iat: now, exp: now + 600, ...claims };
    return await new SignJWT(JSON.parse(JSON.stringify(payload)) as Record<string, unknown>)
      .setProtectedHeader({ alg: "ES256", typ: "JWT", ...(kid === null ? {} : { kid }) })
      .sign(this.#key);
  }
}

export interface LineEvent {
  event: string;
  url?: string;
  adminKey?: string;
  message?: string;
}

/** One run of main.ts with `--json`; its events can be awaited. */
export class Process {
  readonly child: ChildProcess;
  readonly #events: LineEvent[] = [];
  #onEvent: (() => void)[] = [];
  stderr = "";

  constructor(args: string[]) {
    this.child = spawn(process.execPath, [MAIN, "--json", "--exit-with-parent", ...args], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.child.stderr!.on("data", (data: Buffer) => (this.stderr += data.toString()));
    createInterface({ input: this.child.stdout! }).on("line", (line) => {
      this.#events.push(JSON.parse(line) as LineEvent);
      for (const wake of this.#onEvent) wake();
    });
    this.child.once("exit", () => {
      for (const wake of this.#onEvent) wake();
    });
  }

  /** The next event of that name, past or future. @throws When the process ends without one. */
  async next(name: string): Promise<LineEvent> {
    for (;;) {
      const index = this.#events.findIndex(({ event }) => event === name);
      if (index >= 0) return this.#events.splice(index, 1)[0]!;
      if (this.child.exitCode !== null || this.child.signalCode !== null) {
        throw new Error(`convex-local ended before "${name}": ${this.stderr}`);
      }
      await new Promise<void>((resolve) => this.#onEvent.push(resolve));
    }
  }

  async exited(): Promise<number | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      await new Promise((resolve) => this.child.once("exit", resolve));
    }
    return this.child.exitCode;
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    this.child.kill(signal);
    return this.exited();
  }
}

export class TestServer {
  readonly issuer: TestIssuer;
  readonly #directory: string;
  readonly #args: string[];
  #process!: Process;
  url = "";
  adminKey = "";

  private constructor(issuer: TestIssuer, directory: string, args: string[]) {
    this.issuer = issuer;
    this.#directory = directory;
    this.#args = args;
  }

  /** Starts the conformance fixture with `--faults`, on a free port, in an empty database. */
  static async start(args: string[] = []): Promise<TestServer> {
    const issuer = await TestIssuer.create();
    const directory = mkdtempSync(join(tmpdir(), "convex-local-test-"));
    const server = new TestServer(issuer, directory, [
      "--project",
      FIXTURE,
      "--db",
      join(directory, "db.sqlite3"),
      "--faults",
      "--no-watch",
      "--env",
      `TEST_JWT_ISSUER=${ISSUER}`,
      "--env",
      `TEST_JWKS=${issuer.dataUri}`,
      ...args,
    ]);
    await server.#launch(0);
    return server;
  }

  async #launch(port: number): Promise<void> {
    const key = this.adminKey === "" ? [] : ["--admin-key", this.adminKey];
    this.#process = new Process([...this.#args, ...key, "--port", String(port)]);
    const { url, adminKey } = await this.#process.next("ready");
    this.url = url!;
    this.adminKey = adminKey!;
  }

  /** Ends the process, by default without warning; `resume` brings it back at the same address. */
  async interrupt(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    await this.#process.end(signal);
  }

  async resume(): Promise<void> {
    await this.#launch(Number(new URL(this.url).port));
  }

  async stop(): Promise<void> {
    await this.#process.end("SIGTERM");
    rmSync(this.#directory, { recursive: true });
  }

  get stderr(): string {
    return this.#process.stderr;
  }

  async post(path: string, body: unknown, headers: Record<string, string> = {}) {
    return await fetch(`${this.url}${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      body: JSON.stringify(body),
    });
  }

  async #admin(method: string, path: string, body?: unknown): Promise<unknown> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        "Content-Type": "application/json",
        Authorization: `Convex ${this.adminKey}`,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(await response.text());
    return await response.json();
  }

  async fault(fault: Record<string, unknown>): Promise<void> {
    await this.#admin("POST", "/_local/faults", fault);
  }

  async clearFaults(): Promise<void> {
    await this.#admin("DELETE", "/_local/faults");
  }

  async calls(): Promise<Record<string, Record<string, number>>> {
    return (await this.#admin("GET", "/_local/calls")) as Record<string, Record<string, number>>;
  }
}

/** Waits until `probe` gives something true; for what has no event of its own. */
export async function until<T>(probe: () => T | Promise<T>, what: string): Promise<NonNullable<T>> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** One of every value Convex knows, as JavaScript clients hold them. */
export function sampleValue() {
  return {
    int64: 9_223_372_036_854_775_807n,
    negative: -5n,
    bytes: new Uint8Array([0, 1, 255]).buffer,
    nested: { array: [null, true, 1.5, "späť 🎓", { deep: [[]] }] },
    nan: NaN,
    infinite: [Infinity, -Infinity],
    zero: -0,
    empty: {},
  };
}
