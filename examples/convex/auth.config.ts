export default {
  providers: [
    {
      type: "customJwt",
      applicationID: "convex",
      issuer: process.env.AGENT_JWT_ISSUER!,
      jwks: process.env.AGENT_JWKS!,
      algorithm: "ES256",
    },
  ],
};
