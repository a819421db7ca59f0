"""Answers of Convex, parsed once into typed values: what the shapes have in common. Pure."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

__all__ = ["WIRE", "ContextError", "Instant", "parse"]

_T = TypeVar("_T")

WIRE: Final = ConfigDict(
    alias_generator=to_camel, populate_by_name=True, extra="ignore", hide_input_in_errors=True
)
"""Convex writes camelCase; newer functions may send more than this worker knows."""

# The types stay plain dataclasses: pydantic's own would convert in their constructors too.
Instant = Annotated[
    float, BeforeValidator(lambda ms: ms / 1000 if isinstance(ms, int | float) else ms)
]
"""Convex instants are milliseconds, Python's are seconds."""


class ContextError(ValueError):
    """Convex answered with another shape; the message names fields, never their values."""


def parse(shape: TypeAdapter[_T], value: object) -> _T:
    """Parse an answer.

    Raises:
        ContextError: another shape; functions and worker are of different versions.
    """
    try:
        return shape.validate_python(value)
    except ValidationError as error:
        raise ContextError(_where(error)) from None


def _where(error: ValidationError) -> str:
    """Which fields are wrong, and how; what they hold may be a student's and stays out."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in detail['loc']) or 'answer'}: {detail['type']}"
        for detail in details[:5]
    )
