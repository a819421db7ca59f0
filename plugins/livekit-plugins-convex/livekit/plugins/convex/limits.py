"""What one record, one batch and one journal may hold.

The twin of `convex/limits.ts`; tests/contract/test_record_kinds.py holds the two equal.
"""

from __future__ import annotations

from typing import Final

RECORD_VERSION: Final = 1

MAX_BATCH_RECORDS: Final = 64
MAX_BATCH_BYTES: Final = 524_288
MAX_RECORD_BYTES: Final = 262_144

# UTF-8 bytes of what people and tools say: message and transcript texts, tool arguments, outputs.
MAX_TEXT_BYTES: Final = 65_536
# UTF-8 bytes of every other string.
MAX_NAME_BYTES: Final = 1_024
MAX_USAGE_MODELS: Final = 16

# 2020-01-01 and 2100-01-01 in milliseconds since the epoch.
MIN_INSTANT_MS: Final = 1_577_836_800_000
MAX_INSTANT_MS: Final = 4_102_444_800_000

# The codes of a `ConvexError` that condemn one record, named by its `seq`, and nothing else.
# Everything outside this list holds the journal (design, decision 5).
PERMANENT_CODES: Final = frozenset(
    {
        "text_too_long",
        "field_too_long",
        "instant_out_of_range",
        "number_out_of_range",
        "too_many_items",
    }
)

# The code on which a journal is deleted: its student was erased (design, decision 12).
ERASED: Final = "erased"
