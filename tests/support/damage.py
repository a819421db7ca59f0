"""What disks do to files."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, needle: bytes) -> None:
    """Change one bit of the place where `needle` is."""
    data = path.read_bytes()
    path.write_bytes(data.replace(needle, bytes([needle[0] ^ 1]) + needle[1:]))
