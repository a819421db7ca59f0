"""`python -m emma_agent.demo`."""

from emma_agent.demo.command import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
