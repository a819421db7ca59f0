#!/bin/sh
# Sets the deployment's variables, then deploys: auth.config.ts reads them while it is pushed.
set -eu

: "${CONVEX_SELF_HOSTED_URL:?the deployment to put the functions on}"
: "${AGENT_JWT_ISSUER:?run: docker compose run --rm --no-deps worker keys}"
: "${AGENT_JWKS:?run: docker compose run --rm --no-deps worker keys}"

if [ -z "${CONVEX_SELF_HOSTED_ADMIN_KEY:-}" ]; then
    CONVEX_SELF_HOSTED_ADMIN_KEY=$(cat "${CONVEX_ADMIN_KEY_FILE:?or set CONVEX_SELF_HOSTED_ADMIN_KEY}")
    export CONVEX_SELF_HOSTED_ADMIN_KEY
fi

npx convex env set AGENT_JWT_ISSUER "$AGENT_JWT_ISSUER"
npx convex env set AGENT_JWKS "$AGENT_JWKS"
npm run convex:deploy -- --yes
