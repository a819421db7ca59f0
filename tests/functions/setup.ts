// What a deployment has in its environment; auth.config.ts and functions.ts read it.
process.env.AGENT_JWT_ISSUER = "https://emma.invalid/agent";
