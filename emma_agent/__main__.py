"""`python -m emma_agent`.

Nothing that LiveKit hands to a job process may be defined here: with `-m`, a child
process does not import its parent's `__main__`.
"""

from emma_agent.cli import main

if __name__ == "__main__":
    main()
