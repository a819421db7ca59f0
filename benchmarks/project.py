"""What convex/ consists of, read from the code: functions, tables, error codes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache

from emma_agent.convex_local import ROOT, find_node


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function, and the builder of convex/functions.ts that made it."""

    path: str
    type: str
    visibility: str
    builder: str


@dataclass(frozen=True, slots=True)
class Project:
    """The functions by path, the tables with those that their ids name, the codes by kind."""

    functions: dict[str, Function]
    tables: dict[str, set[str]]
    codes: dict[str, set[str]]

    @property
    def public(self) -> dict[str, Function]:
        """What anybody may try to call."""
        return {
            path: function
            for path, function in self.functions.items()
            if function.visibility == "public"
        }

    @property
    def public_queries(self) -> dict[str, Function]:
        """Those of them that only read."""
        return {path: one for path, one in self.public.items() if one.type == "query"}


@cache
def load_project() -> Project:
    """Bundle the project's functions and look at them.

    Raises:
        subprocess.CalledProcessError: convex/ does not compile.
    """
    done = subprocess.run(
        [str(find_node()), "--no-warnings", str(ROOT / "scripts" / "print-functions.ts")],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    printed = json.loads(done.stdout)
    return Project(
        functions={one["path"]: Function(**one) for one in printed["functions"]},
        tables={one["name"]: set(one["refersTo"]) for one in printed["tables"]},
        codes={kind: set(codes) for kind, codes in printed["codes"].items()},
    )
