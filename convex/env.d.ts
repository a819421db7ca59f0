// The part of Node's `process` that the Convex runtime offers: environment variables.
declare const process: { readonly env: Readonly<Record<string, string | undefined>> };
