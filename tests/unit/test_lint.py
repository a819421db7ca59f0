"""eslint holds what every function and table of convex/ promises."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from emma_agent.convex_local import find_node

ROOT = Path(__file__).resolve().parents[2]

HEAD = """\
/** A file of convex/. @module */
import { v } from "convex/values";
import { defineTable } from "convex/server";
import * as functions from "./functions";
import { studentQuery } from "./functions";
"""
GOOD = """\
/** Answers nothing. */
export const good = studentQuery({ args: {}, returns: v.null(), handler: () => null });
/** Whom it is about. */
export const table = defineTable({ name: v.string() }).index("by_name", ["name"]);
"""
READS = """\
/** Answers nothing. */
export const reads = studentQuery({
  args: {},
  returns: v.null(),
  handler: async (ctx) => {
    await ctx.db.query("messages")%s;
    return null;
  },
});
"""


CASES = {
    "as it should be": (None, GOOD),
    "filter": (
        "@convex-dev/no-filter-in-query",
        READS % '.filter((q) => q.eq(q.field("text"), "a")).first()',
    ),
    "collect": ("@convex-dev/no-collect-in-query", READS % ".collect()"),
    "no comment": ("jsdoc/require-jsdoc", GOOD.replace("/** Answers nothing. */", "")),
    "no returns": ("no-restricted-syntax", GOOD.replace("returns: v.null(), ", "")),
    "no args": ("no-restricted-syntax", GOOD.replace("args: {}, ", "")),
    "any": ("no-restricted-syntax", GOOD.replace("v.string()", "v.any()")),
    "index name": ("school/index-names", GOOD.replace('"by_name"', '"names"')),
    # Builders take a bare function as well, and may be called by another name.
    "bare function": (
        "no-restricted-syntax",
        "/** Bare. */\nexport const bare = studentQuery(() => null);\n",
    ),
    "builder of a namespace": (
        "no-restricted-syntax",
        GOOD.replace("studentQuery(", "functions.studentQuery(").replace("args: {}, ", ""),
    ),
    "exported apart": (
        "no-restricted-syntax",
        "const apart = studentQuery({ args: {}, handler: () => null });\nexport { apart };\n",
    ),
}

# All files in one run: what takes the time is reading the types.
LINT = """\
import { text } from "node:stream/consumers";
import { ESLint } from "eslint";
const eslint = new ESLint();
const rules = [];
for (const code of JSON.parse(await text(process.stdin))) {
  const [file] = await eslint.lintText(code, { filePath: "convex/messages.ts" });
  rules.push(file.messages.map(({ ruleId }) => ruleId));
}
console.log(JSON.stringify(rules));
"""


@pytest.fixture(scope="module")
def broken() -> dict[str, set[str]]:
    """The rules that each file breaks, but that of unused names."""
    done = subprocess.run(
        [str(find_node()), "--input-type=module", "--eval", LINT],
        cwd=ROOT,
        input=json.dumps([HEAD + code for _, code in CASES.values()]),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = [
        set(rules) - {"@typescript-eslint/no-unused-vars"} for rules in json.loads(done.stdout)
    ]
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_file_breaks_the_rule_that_it_must_not(case: str, broken: dict[str, set[str]]) -> None:
    rule, _ = CASES[case]
    if rule is None:
        assert broken[case] == set()
    else:
        assert rule in broken[case]
