# One shot: puts the functions of convex/ on the deployment, type check included.
FROM node:24-bookworm-slim
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY plugins/convex-local/package.json plugins/convex-local/package.json
RUN npm ci --no-audit --no-fund --ignore-scripts
COPY convex convex
COPY docker/deploy.sh docker/deploy.sh
CMD ["sh", "docker/deploy.sh"]
