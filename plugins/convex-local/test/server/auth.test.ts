/** Keys fetched over HTTP, other algorithms, and the headers that carry tokens. */
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Authenticator, tokenFromRequest } from "../../src/auth.ts";
import type { AuthProvider } from "../../src/types.ts";
import { ISSUER, TestIssuer } from "./support.ts";

let provider: Server;
let base: string;
let answers: Record<string, unknown>;
let asked: string[];

beforeEach(async () => {
  answers = {};
  asked = [];
  provider = createServer((request, response) => {
    asked.push(request.url!);
    const answer = answers[request.url!];
    response.writeHead(answer === undefined ? 404 : 200, { "Content-Type": "application/json" });
    response.end(JSON.stringify(answer ?? {}));
  });
  await new Promise<void>((resolve) => provider.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(provider.address() as AddressInfo).port}`;
});
afterEach(() => {
  provider.close();
  provider.closeAllConnections();
});

function authenticator(providers: AuthProvider[], now: () => number = Date.now) {
  return new Authenticator({ adminKey: "local|key", providers: () => providers, now });
}

const customJwt = (fields: Partial<AuthProvider & { type: "customJwt" }>): AuthProvider => ({
  type: "customJwt",
  issuer: ISSUER,
  jwks: `${base}/jwks`,
  algorithm: "ES256",
  ...fields,
});

const user = (jwt: string) => ({ type: "user" as const, jwt });

describe("keys over HTTP", () => {
  test("are fetched once, and again when a token names a key that is not among them", async () => {
    const first = await TestIssuer.create();
    const second = await TestIssuer.create();
    answers["/jwks"] = first.jwks;
    const auth = authenticator([customJwt({})]);
    await auth.authenticate(user(await first.token()));
    await auth.authenticate(user(await first.token()));
    expect(asked).toEqual(["/jwks"]);
    answers["/jwks"] = { keys: [...first.jwks.keys, ...second.jwks.keys] };
    await auth.authenticate(user(await second.token()));
    expect(asked).toEqual(["/jwks", "/jwks"]);
  });

  test("are fetched again after a minute, so that a withdrawn key counts no more", async () => {
    const issuer = await TestIssuer.create();
    answers["/jwks"] = issuer.jwks;
    let now = Date.now();
    const auth = authenticator([customJwt({})], () => now);
    await auth.authenticate(user(await issuer.token()));
    answers["/jwks"] = { keys: [] };
    now += 61_000;
    await expect(auth.authenticate(user(await issuer.token()))).rejects.toThrow("JWKS");
  });

  test("that cannot be fetched are a 401 which names the address", async () => {
    const issuer = await TestIssuer.create();
    const auth = authenticator([customJwt({ jwks: `${base}/nowhere` })]);
    const failed = auth.authenticate(user(await issuer.token()));
    await expect(failed).rejects.toMatchObject({
      status: 401,
      message: expect.stringContaining("/nowhere"),
    });
  });
});

describe("providers", () => {
  test("an RS256 token is believed where RS256 is configured, and nowhere else", async () => {
    const { publicKey, privateKey } = await generateKeyPair("RS256");
    answers["/jwks"] = { keys: [{ ...(await exportJWK(publicKey)), kid: "r", alg: "RS256" }] };
    const token = await new SignJWT({ iss: ISSUER, sub: "ada" })
      .setProtectedHeader({ alg: "RS256", kid: "r" })
      .setExpirationTime("5m")
      .sign(privateKey);
    const believed = await authenticator([customJwt({ algorithm: "RS256" })]).authenticate(
      user(token),
    );
    expect(believed.identity).toMatchObject({ kind: "user", attributes: { subject: "ada" } });
    await expect(authenticator([customJwt({})]).authenticate(user(token))).rejects.toThrow("kid");
  });

  test("the audience counts only where an application is named", async () => {
    const issuer = await TestIssuer.create();
    answers["/jwks"] = issuer.jwks;
    const token = await issuer.token({ aud: ["other", "third"] });
    await authenticator([customJwt({})]).authenticate(user(token));
    await authenticator([customJwt({ applicationID: "third" })]).authenticate(user(token));
    const wrong = authenticator([customJwt({ applicationID: "convex" })]);
    await expect(wrong.authenticate(user(token))).rejects.toMatchObject({ code: "NoAuthProvider" });
  });

  test("an issuer is the same with and without https:// and a slash at its end", async () => {
    const issuer = await TestIssuer.create();
    answers["/jwks"] = issuer.jwks;
    const token = await issuer.token({ iss: "conformance.invalid/" });
    await authenticator([customJwt({})]).authenticate(user(token));
  });

  test("an OpenID provider is discovered, its standard claims renamed", async () => {
    const { publicKey, privateKey } = await generateKeyPair("RS256");
    answers["/.well-known/openid-configuration"] = { issuer: base, jwks_uri: `${base}/jwks` };
    answers["/jwks"] = { keys: [{ ...(await exportJWK(publicKey)), kid: "r", alg: "RS256" }] };
    const token = await new SignJWT({
      iss: base,
      sub: "ada",
      aud: "app",
      given_name: "Ada",
      plan: "a",
    })
      .setProtectedHeader({ alg: "RS256", kid: "r" })
      .setExpirationTime("5m")
      .sign(privateKey);
    const auth = authenticator([{ type: "oidc", domain: base, applicationID: "app" }]);
    const { identity } = await auth.authenticate(user(token));
    expect(identity.attributes).toEqual({
      tokenIdentifier: `${base}|ada`,
      issuer: base,
      subject: "ada",
      givenName: "Ada",
      plan: "a",
    });
  });

  test("without any, the answer points at auth.config.ts", async () => {
    const issuer = await TestIssuer.create();
    const failed = authenticator([]).authenticate(user(await issuer.token()));
    await expect(failed).rejects.toThrow("Check convex/auth.config.ts");
  });
});

describe("Authorization headers", () => {
  test.each([
    ["Bearer abc", { type: "user", jwt: "abc" }],
    ["bearer abc", { type: "user", jwt: "abc" }],
    ["Convex local|key", { type: "admin", key: "local|key" }],
    ["Convex prod:local|key", { type: "admin", key: "local|key" }],
    ["Convex preview:team:project|key", { type: "admin", key: "key" }],
    [
      `Convex prod:local|key:${btoa('{"subject":"s"}')}`,
      { type: "admin", key: "local|key", actingAs: { subject: "s" } },
    ],
  ])("%s", (header, token) => {
    expect(tokenFromRequest(header, null)).toEqual(token);
  });

  test("the adminKey parameter counts only without a header", () => {
    expect(tokenFromRequest(undefined, "k")).toEqual({ type: "admin", key: "k" });
    expect(tokenFromRequest("Bearer t", "k")).toEqual({ type: "user", jwt: "t" });
    expect(tokenFromRequest(undefined, null)).toEqual({ type: "none" });
  });
});
