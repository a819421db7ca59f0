"""What stands in for the cloud on one machine, and a lesson held on it: `make demo`."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; see `command.main`."""
    # Here, not above: `emma_agent.demo.speech` needs none of it.
    from emma_agent.demo.command import main as run

    return run(argv)
