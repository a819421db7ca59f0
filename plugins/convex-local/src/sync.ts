/** WebSockets of the sync protocol: upgrades, heartbeats, frames; the rest is `SyncSession`. */
import type { Buffer } from "node:buffer";
import { WebSocketServer } from "ws";
import type { WebSocket } from "ws";
import type { Authenticator } from "./auth.ts";
import type { Backend } from "./backend.ts";
import type { Faults } from "./faults.ts";
import type { Upgrade } from "./http.ts";
import { encodeServerMessage, supportsChunks } from "./sync-protocol.ts";
import { SyncSession } from "./sync-session.ts";
import type { Transport } from "./sync-session.ts";

/** Intervals of the backend: `subs/mod.rs` and HEARTBEAT_INTERVAL of `worker.rs`. */
const WS_PING_MS = 5_000;
const CLIENT_TIMEOUT_MS = 120_000;
const PING_MS = 15_000;
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;
/** Transitions that may wait for a slow client before no more are computed. */
const MAX_WAITING = 2;

interface Parts {
  backend: Backend;
  auth: Authenticator;
  faults: Faults;
}

export class SyncServer {
  readonly #parts: Parts;
  readonly #server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
  });

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readonly upgrade: Upgrade = (request, socket, head, pathVersion) => {
    const header = request.headers["convex-client"];
    const client = typeof header === "string" ? header : null;
    this.#server.handleUpgrade(request, socket, head, (webSocket) => {
      serve(webSocket, this.#parts, supportsChunks(client, pathVersion));
    });
  };

  /** Ends every connection; clients come back by themselves. */
  close(): void {
    for (const client of this.#server.clients) client.terminate();
    this.#server.close();
  }
}

function serve(webSocket: WebSocket, parts: Parts, chunks: boolean): void {
  const connection = new Connection(webSocket, chunks);
  const session = new SyncSession({ ...parts, transport: connection });
  webSocket.on("message", (data: Buffer, isBinary) => {
    connection.heard();
    if (isBinary) connection.close(1003, "Unexpected message type");
    else session.receive(data.toString());
  });
  webSocket.on("pong", () => connection.heard());
  webSocket.on("error", () => webSocket.terminate());
  webSocket.on("close", () => {
    connection.stop();
    session.end();
  });
}

class Connection implements Transport {
  readonly #webSocket: WebSocket;
  readonly #chunks: boolean;
  readonly #heartbeat: NodeJS.Timeout;
  #lastHeard = performance.now();
  #lastSent = performance.now();
  #waiting = 0;
  #onDrained: (() => void) | null = null;

  constructor(webSocket: WebSocket, chunks: boolean) {
    this.#webSocket = webSocket;
    this.#chunks = chunks;
    this.#heartbeat = setInterval(() => this.#beat(), WS_PING_MS);
  }

  send(message: Parameters<Transport["send"]>[0]): void {
    this.#lastSent = performance.now();
    const frames = encodeServerMessage(message, this.#chunks);
    this.#waiting += frames.length;
    for (const frame of frames) this.#webSocket.send(frame, () => this.#sent());
  }

  async drained(): Promise<void> {
    while (this.#waiting > MAX_WAITING) {
      await new Promise<void>((resolve) => (this.#onDrained = resolve));
    }
  }

  close(code: number | null, reason: string): void {
    if (code === null) this.#webSocket.close();
    else this.#webSocket.close(code, reason);
  }

  terminate(): void {
    this.#webSocket.terminate();
  }

  heard(): void {
    this.#lastHeard = performance.now();
  }

  stop(): void {
    clearInterval(this.#heartbeat);
    this.#waiting = 0;
    this.#onDrained?.();
  }

  #sent(): void {
    this.#waiting -= 1;
    if (this.#waiting <= MAX_WAITING) this.#onDrained?.();
  }

  #beat(): void {
    const now = performance.now();
    if (now - this.#lastHeard > CLIENT_TIMEOUT_MS) this.terminate();
    else this.#webSocket.ping();
    if (now - this.#lastSent >= PING_MS) this.send({ type: "Ping" });
  }
}
