/**
 * Who is calling: JWTs of the providers in `auth.config.ts`, and the admin key.
 *
 * Checks and messages follow the backend (`crates/authentication/src/lib.rs`): `aud` counts only
 * where the provider names an application, times have 5 s of leeway, the key is chosen by `kid`.
 */
import { Buffer } from "node:buffer";
import { timingSafeEqual } from "node:crypto";
import { compactVerify, decodeJwt, decodeProtectedHeader, importJWK } from "jose";
import type { CryptoKey, JSONWebKeySet, JWTPayload } from "jose";
import { ApiError, badRequest } from "./api-error.ts";
import type { AuthProvider, Identity, JSONValue } from "./types.ts";

const LEEWAY_S = 5;
/** How long keys fetched over HTTP are believed before they are fetched again. */
const JWKS_MAX_AGE_MS = 60_000;
const JWKS_TIMEOUT_MS = 10_000;

/** What a client presents, from a header or an `Authenticate` message. */
export type Token =
  | { type: "none" }
  | { type: "user"; jwt: string }
  | { type: "admin"; key: string; actingAs?: JSONValue };

export interface Authenticated {
  identity: Identity;
  /** Seconds since the epoch after which the token counts no more; null for never. */
  expiresAt: number | null;
}

export const NOBODY: Authenticated = {
  identity: { kind: "none", attributes: null },
  expiresAt: null,
};

function unauthenticated(message: string, code = "InvalidAuthHeader"): ApiError {
  return new ApiError("unauthenticated", code, message);
}

/**
 * The token of an HTTP request.
 *
 * @param header - `Authorization`: `Bearer <jwt>` or `Convex <admin key>[:<base64 identity>]`.
 * @param adminKey - The `adminKey` query parameter, used when there is no header.
 */
export function tokenFromRequest(header: string | undefined, adminKey: string | null): Token {
  if (header === undefined) {
    return adminKey === null ? { type: "none" } : { type: "admin", key: adminKey };
  }
  const scheme = header.slice(0, 7).toLowerCase();
  if (scheme === "bearer ") return { type: "user", jwt: header.slice(7).trim() };
  if (scheme !== "convex ") {
    throw badRequest(
      "InvalidAdminKey",
      "Authorization must be `Bearer <token>` or `Convex <admin key>`.",
    );
  }
  const [key, encoded] = splitOnce(withoutTypePrefix(header.slice(7).trim()), ":");
  if (encoded === undefined) return { type: "admin", key };
  try {
    const actingAs = JSON.parse(Buffer.from(encoded, "base64").toString()) as JSONValue;
    return { type: "admin", key, actingAs };
  } catch {
    throw badRequest("HeaderParseFailure", "Malformed Authorization header.");
  }
}

function splitOnce(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** `prod:name|key` and `preview:team:project|key` name what the key is for; the check ignores it. */
function withoutTypePrefix(key: string): string {
  const [instance, rest] = splitOnce(key, "|");
  if (rest === undefined) return key;
  const [type, name] = splitOnce(instance, ":");
  if (name === undefined) return key;
  return type === "preview" || type === "project" ? rest : `${name}|${rest}`;
}

interface Keys {
  fetchedAt: number;
  keys: JSONWebKeySet["keys"];
}

export class Authenticator {
  readonly #adminKey: Buffer;
  readonly #providers: () => AuthProvider[];
  readonly #now: () => number;
  readonly #jwks = new Map<string, Keys>();
  readonly #imported = new Map<string, CryptoKey | Uint8Array>();

  /**
   * @param options.providers - Asked at each check, so that a reload takes effect.
   * @param options.now - Milliseconds since the epoch.
   */
  constructor(options: { adminKey: string; providers: () => AuthProvider[]; now?: () => number }) {
    this.#adminKey = Buffer.from(withoutTypePrefix(options.adminKey));
    this.#providers = options.providers;
    this.#now = options.now ?? Date.now;
  }

  /** @throws ApiError 401 when the token is not to be believed. */
  async authenticate(token: Token): Promise<Authenticated> {
    switch (token.type) {
      case "none":
        return NOBODY;
      case "admin":
        return this.#admin(token.key, token.actingAs);
      case "user":
        return this.#user(token.jwt);
    }
  }

  /** @throws ApiError 401 `TokenExpired` once the token's time is over. */
  requireCurrent(who: Authenticated): void {
    if (who.expiresAt !== null && this.#now() >= who.expiresAt * 1000) {
      throw unauthenticated("Convex token identity expired", "TokenExpired");
    }
  }

  #admin(key: string, actingAs: JSONValue | undefined): Authenticated {
    const given = Buffer.from(withoutTypePrefix(key));
    if (given.length !== this.#adminKey.length || !timingSafeEqual(given, this.#adminKey)) {
      throw unauthenticated("The provided admin key was invalid for this instance", "BadAdminKey");
    }
    const attributes = actingAs === undefined ? null : actingAsAttributes(actingAs);
    return { identity: { kind: "admin", attributes }, expiresAt: null };
  }

  async #user(jwt: string): Promise<Authenticated> {
    let claims: JWTPayload;
    try {
      claims = decodeJwt(jwt);
    } catch {
      throw unauthenticated(
        "Could not parse JWT payload. Check that the token is a valid JWT format with three " +
          "base64-encoded parts separated by dots.",
      );
    }
    if (claims.iss === undefined) {
      throw unauthenticated(
        "Missing issuer claim ('iss') in JWT payload. The JWT must include an 'iss' claim that " +
          "matches one of your configured auth providers.",
      );
    }
    const { iss: issuer, sub: subject, aud } = claims;
    const provider = this.#providerFor(issuer, [aud ?? []].flat());
    await this.#verify(jwt, provider);
    const expiresAt = this.#checkTimes(claims);
    if (subject === undefined) throw unauthenticated("Missing subject");
    const attributes = {
      tokenIdentifier: `${issuer}|${subject}`,
      issuer,
      subject,
      ...customClaims(claims, provider.type),
    };
    return { identity: { kind: "user", attributes }, expiresAt };
  }

  #providerFor(claimedIssuer: string, audiences: string[]): AuthProvider {
    const providers = this.#providers();
    const found = providers.find((provider) => {
      const issuer = provider.type === "oidc" ? provider.domain : provider.issuer;
      const application = provider.applicationID;
      return (
        (application === undefined || audiences.includes(application)) &&
        sameIssuer(issuer, claimedIssuer)
      );
    });
    if (found !== undefined) return found;
    const configured = providers.map((provider) =>
      provider.type === "oidc"
        ? `OIDC(domain=${provider.domain}, app_id=${provider.applicationID})`
        : `CustomJWT(issuer=${provider.issuer}, app_id=${provider.applicationID ?? "none"})`,
    );
    throw unauthenticated(
      configured.length === 0
        ? "No auth provider found matching the given token (no providers configured). Check " +
            "convex/auth.config.ts."
        : "No auth provider found matching the given token. Check that your JWT's issuer and " +
            `audience match one of your configured providers: [${configured.join(", ")}]`,
      "NoAuthProvider",
    );
  }

  async #verify(jwt: string, provider: AuthProvider): Promise<void> {
    const uri = provider.type === "customJwt" ? provider.jwks : await this.#discover(provider);
    const algorithm = provider.type === "customJwt" ? provider.algorithm : "RS256";
    let kid: string | undefined;
    try {
      kid = decodeProtectedHeader(jwt).kid;
    } catch {
      kid = undefined;
    }
    if (kid === undefined) {
      throw unauthenticated("Could not decode token. JWT may be missing a 'kid' (key ID) header.");
    }
    try {
      await compactVerify(jwt, await this.#key(uri, kid, algorithm), { algorithms: [algorithm] });
    } catch (error) {
      if (error instanceof ApiError) throw error;
      throw unauthenticated(
        `Could not decode token. The JWT's 'kid' (key ID) header is '${kid}', does this key ` +
          "match any key in the provider's JWKS?",
      );
    }
  }

  #checkTimes(claims: JWTPayload): number {
    const now = Math.floor(this.#now() / 1000);
    if (typeof claims.exp !== "number") throw unauthenticated("Missing expiry");
    if (claims.exp + LEEWAY_S < now) {
      throw unauthenticated("Could not validate token: Token expired");
    }
    if (typeof claims.nbf === "number" && claims.nbf - LEEWAY_S > now) {
      throw unauthenticated("Could not validate token: Token not yet valid");
    }
    return claims.exp;
  }

  async #key(uri: string, kid: string, algorithm: string): Promise<CryptoKey | Uint8Array> {
    const name = `${kid}\n${uri}`;
    let jwk = (await this.#fetchKeys(uri)).find((key) => key.kid === kid);
    if (jwk === undefined && !uri.startsWith("data:")) {
      this.#jwks.delete(uri);
      jwk = (await this.#fetchKeys(uri)).find((key) => key.kid === kid);
    }
    if (jwk === undefined) throw new Error("no key of that kid");
    const text = JSON.stringify(jwk);
    const known = this.#imported.get(name + text);
    if (known !== undefined) return known;
    const key = await importJWK(jwk, algorithm);
    this.#imported.set(name + text, key);
    return key;
  }

  async #fetchKeys(uri: string): Promise<JSONWebKeySet["keys"]> {
    const known = this.#jwks.get(uri);
    const lasts = uri.startsWith("data:") ? Infinity : JWKS_MAX_AGE_MS;
    if (known !== undefined && this.#now() - known.fetchedAt < lasts) return known.keys;
    const shown = uri.startsWith("data:") ? "the data URI" : `'${uri}'`;
    const body = await fetchJson(uri, `Could not fetch JWKS from ${shown}`);
    const { keys } = body as Partial<JSONWebKeySet>;
    if (!Array.isArray(keys)) {
      throw unauthenticated(
        `Invalid JWKS response body from ${shown}. The response is not valid JSON or doesn't ` +
          "match the expected JWKS format.",
      );
    }
    this.#jwks.set(uri, { fetchedAt: this.#now(), keys });
    return keys;
  }

  async #discover(provider: { domain: string }): Promise<string> {
    const domain = withProtocol(provider.domain).replace(/\/+$/, "");
    const uri = `${domain}/.well-known/openid-configuration`;
    const body = await fetchJson(uri, `Auth provider discovery of ${domain} failed`);
    const jwks = (body as { jwks_uri?: unknown }).jwks_uri;
    if (typeof jwks !== "string") {
      throw unauthenticated(`Auth provider discovery of ${domain} failed: no jwks_uri`);
    }
    return jwks;
  }
}

async function fetchJson(uri: string, failed: string): Promise<object> {
  try {
    const response = await fetch(uri, {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(JWKS_TIMEOUT_MS),
    });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return (await response.json()) as object;
  } catch (error) {
    const reason = error instanceof Error ? error.message : "unknown error";
    throw unauthenticated(`${failed}: ${reason}. Check that the URL is correct and accessible.`);
  }
}

function withProtocol(issuer: string): string {
  return /^https?:\/\//.test(issuer) ? issuer : `https://${issuer}`;
}

/** Some providers leave out `https://`, some add a slash at the end; the backend forgives both. */
function sameIssuer(configured: string, claimed: string): boolean {
  const plain = (issuer: string) => withProtocol(issuer).replace(/\/+$/, "");
  return plain(configured) === plain(claimed);
}

/** OpenID claims that functions see under another name. */
const OIDC_NAMES: Record<string, string> = {
  name: "name",
  given_name: "givenName",
  family_name: "familyName",
  nickname: "nickname",
  preferred_username: "preferredUsername",
  profile: "profileUrl",
  picture: "pictureUrl",
  website: "websiteUrl",
  email: "email",
  email_verified: "emailVerified",
  gender: "gender",
  birthdate: "birthday",
  zoneinfo: "timezone",
  locale: "language",
  phone_number: "phoneNumber",
  phone_number_verified: "phoneNumberVerified",
  address: "address",
  updated_at: "updatedAt",
};

/** Claims that change with every renewal; the backend hides them so that caches stay valid. */
const REGISTERED = new Set(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "fva"]);

/**
 * What `ctx.auth.getUserIdentity()` returns beside issuer and subject.
 *
 * A customJwt keeps its claims' names at the top level, nested ones as `outer.inner`; an OpenID
 * token has the standard ones renamed to camel case.
 */
function customClaims(claims: JWTPayload, type: AuthProvider["type"]): Record<string, JSONValue> {
  const attributes: Record<string, JSONValue> = {};
  for (const [name, value] of Object.entries(claims)) {
    if (REGISTERED.has(name)) continue;
    if (type === "oidc") attributes[OIDC_NAMES[name] ?? name] = value as JSONValue;
    else flatten(attributes, name, value as JSONValue);
  }
  return attributes;
}

function flatten(into: Record<string, JSONValue>, name: string, value: JSONValue): void {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    into[name] = value;
    return;
  }
  for (const [inner, item] of Object.entries(value)) flatten(into, `${name}.${inner}`, item);
}

function actingAsAttributes(value: JSONValue): Record<string, JSONValue> {
  if (value === null || typeof value !== "object" || Array.isArray(value)) {
    throw badRequest("HeaderParseFailure", "Malformed Authorization header.");
  }
  const attributes = value as Record<string, JSONValue>;
  if (typeof attributes["tokenIdentifier"] === "string") return attributes;
  const { issuer, subject } = attributes;
  if (typeof issuer !== "string" || typeof subject !== "string") {
    throw badRequest(
      "HeaderParseFailure",
      'Either "tokenIdentifier" or "issuer" and "subject" must be set',
    );
  }
  return { tokenIdentifier: `${issuer}|${subject}`, ...attributes };
}
