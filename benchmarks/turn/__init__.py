"""What Emma adds to a turn, and to the start of a lesson, beside a bare agent: `make bench-turn`."""
