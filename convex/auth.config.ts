import type { AuthConfig } from "convex/server";

/**
 * Who may sign tokens: the holder of the agent's private key, and nobody else.
 *
 * `AGENT_JWKS` is a data URI with the public keys, so checking a token needs no network.
 * The deployment refuses these functions while one of the two variables is not set.
 */
export default {
  providers: [
    {
      type: "customJwt",
      applicationID: "convex",
      issuer: process.env.AGENT_JWT_ISSUER as string,
      jwks: process.env.AGENT_JWKS as string,
      algorithm: "ES256",
    },
  ],
} satisfies AuthConfig;
