/** Runs an action, and answers what it asks: each query and mutation is a transaction of its own. */
import type { Engine, Reach } from "./engine.ts";
import { FunctionError } from "./errors.ts";
import { cancelJob, scheduleJob } from "./jobs.ts";
import { argumentsOf, failure, noUsage, resultOf } from "./outcomes.ts";
import type { ProjectFunction } from "./program.ts";
import { addressed, functionHandle, schedulable, unsupported } from "./syscalls.ts";
import type { ActionCall, JSONValue, Outcome, Usage } from "./types.ts";
import { LogLines } from "./vm/context.ts";

interface RunningAction {
  engine: Engine;
  call: ActionCall;
  found: ProjectFunction;
  logs: LogLines;
  usage: Usage;
}

export async function runAction(engine: Engine, call: ActionCall, reach: Reach): Promise<Outcome> {
  const logs = new LogLines();
  const usage = noUsage();
  try {
    const found = engine.resolve(call.path, "action", call.identity, reach);
    const { program } = engine;
    const { module, name, environment } = found;
    const args = JSON.stringify([engine.checkedArguments(found, argumentsOf(call.args))]);
    const running = { engine, call, found, logs, usage };
    const ended = await program.actions.run({
      module,
      name,
      environment,
      args,
      logs,
      syscall: async (operation, given) =>
        await answer(operation, given as Record<string, JSONValue>, running),
    });
    const value = engine.checkedResult(found, resultOf(ended, program));
    return { status: "success", value, logLines: logs.lines, usage };
  } catch (error) {
    return failure(error, logs, usage);
  }
}

async function answer(
  operation: string,
  args: Record<string, JSONValue>,
  running: RunningAction,
): Promise<string> {
  const { engine, found } = running;
  const { identity } = running.call;
  const inner = (): ActionCall => ({ path: addressed(args), args: args["args"] ?? {}, identity });
  switch (operation) {
    case "1.0/actions/query":
      return passOn(engine.query(inner(), "internal").outcome, running);
    case "1.0/actions/mutation":
      return passOn(engine.mutation(inner(), "internal").outcome, running);
    case "1.0/actions/action":
      return passOn(await engine.action(inner(), "internal"), running);
    case "1.0/actions/schedule":
      return schedule(engine, args);
    case "1.0/actions/cancel_job":
      engine.systemTransaction((tx, nowMs) => {
        cancelJob(tx, args["id"] as string, nowMs);
      });
      return "null";
    case "1.0/getUserIdentity":
      return JSON.stringify(identity.attributes);
    case "1.0/getFunctionMetadata":
      return JSON.stringify({ name: found.path, componentPath: "" });
    case "1.0/createFunctionHandle":
      return JSON.stringify(functionHandle(addressed(args)));
    default:
      throw unsupported(operation);
  }
}

function schedule(engine: Engine, args: Record<string, JSONValue>): string {
  const path = schedulable(args, (name) => engine.find(name));
  let id = "";
  engine.systemTransaction((tx) => {
    id = scheduleJob(tx, path, args["args"] ?? {}, (args["ts"] as number) * 1000);
  });
  return JSON.stringify(id);
}

/** The outcome of a call is the action's: its lines, its usage, and its error. */
function passOn(outcome: Outcome, { logs, usage }: RunningAction): string {
  logs.lines.push(...outcome.logLines);
  for (const key of Object.keys(usage) as (keyof Usage)[]) usage[key] += outcome.usage[key];
  if (outcome.status === "success") return JSON.stringify(outcome.value);
  throw new FunctionError(outcome.errorMessage, outcome.errorData);
}
