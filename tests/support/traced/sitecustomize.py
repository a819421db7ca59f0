"""Found through PYTHONPATH by every Python process below: keeps their OpenTelemetry spans in a file.

As an operator's own set-up would (`opentelemetry-instrument` comes in the same way): a provider is
there before the program begins, and gets whatever is handed to it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

if _path := os.environ.get("TRACED_SPANS"):
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        SimpleSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class _ToFile(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            with Path(str(_path)).open("a", encoding="utf-8") as file:
                for span in spans:
                    file.write(f"{span.to_json(indent=None)}\n")
            return SpanExportResult.SUCCESS

    _provider = TracerProvider()
    _provider.add_span_processor(SimpleSpanProcessor(_ToFile()))
    trace.set_tracer_provider(_provider)
