"""Twelve scripted learners in lessons with Emma, and whether she did right: `make eval`."""
