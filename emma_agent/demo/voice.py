"""espeak-ng through ctypes: a voice that needs no account, no network and no system package.

The library and its data come in the wheel `espeakng-loader`.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["SAMPLE_RATE", "Voice", "VoiceError"]

SAMPLE_RATE: Final = 24_000
"""Of every sample this module returns; what OpenAI's `audio/pcm` means."""

# espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS: Final = 2
_INITIALIZE_DONT_EXIT: Final = 0x8000
_PARAMETER_RATE: Final = 1
_CHARS_UTF8: Final = 1
_POSITION_CHARACTER: Final = 1
_CONTINUE: Final = 0
# path_home in espeak-ng 1.52 (N_PATH_HOME, speech.h); a longer path is cut in silence.
_MAX_DATA_PATH_BYTES: Final = 159

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class VoiceError(RuntimeError):
    """espeak-ng could not start or does not know the voice."""


class _Engine:
    """The library: one per process, not re-entrant, hence the lock."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise VoiceError("The package espeakng-loader is not installed.") from error

        data_path = espeakng_loader.get_data_path().encode()
        if len(data_path) > _MAX_DATA_PATH_BYTES:
            raise VoiceError(
                f"espeak-ng cannot read its data from a path of {len(data_path)} bytes (the limit "
                f"is {_MAX_DATA_PATH_BYTES}); put the checkout where its path is shorter."
            )
        self._lib = ctypes.CDLL(espeakng_loader.get_library_path())
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        self.native_rate: int = self._lib.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, data_path, _INITIALIZE_DONT_EXIT
        )
        if self.native_rate <= 0:
            raise VoiceError("espeak-ng did not start: its data could not be read.")
        self._parts: list[npt.NDArray[np.int16]] = []
        # Kept for the life of the engine: C holds the only other reference.
        self._callback = _Callback(self._on_samples)
        self._lib.espeak_SetSynthCallback(self._callback)
        self._lock = threading.Lock()

    def synthesize(self, text: str, *, voice: str, words_per_minute: int) -> npt.NDArray[np.int16]:
        encoded = text.encode()
        with self._lock:
            if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
                raise VoiceError(f"espeak-ng has no voice named {voice}.")
            self._lib.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
            self._parts.clear()
            self._lib.espeak_Synth(
                encoded, len(encoded) + 1, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
            )
            parts = list(self._parts)
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int16)

    def _on_samples(self, samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return _CONTINUE


_engine: _Engine | None = None
_engine_lock = threading.Lock()


def _shared_engine() -> _Engine:
    global _engine
    with _engine_lock:
        if _engine is None:
            _engine = _Engine()
        return _engine


class Voice:
    """One way of speaking; any number of them share the engine."""

    def __init__(self, name: str, *, words_per_minute: int = 165) -> None:
        """Choose a voice.

        Args:
            name: espeak-ng's name with an optional variant, such as `en-us+f3`.
            words_per_minute: espeak-ng's own range is 80 to 450.

        Raises:
            VoiceError: espeak-ng cannot start or has no such voice.
        """
        self._name = name
        self._words_per_minute = words_per_minute
        self._engine = _shared_engine()
        self.say("")

    def say(self, text: str, *, speed: float = 1.0) -> npt.NDArray[np.int16]:
        """The samples of `text`, mono, at `SAMPLE_RATE`; some 10 ms of work per sentence."""
        words_per_minute = min(450, max(80, round(self._words_per_minute * speed)))
        samples = self._engine.synthesize(text, voice=self._name, words_per_minute=words_per_minute)
        return _resample(samples, self._engine.native_rate, SAMPLE_RATE)


def _resample(
    samples: npt.NDArray[np.int16], from_rate: int, to_rate: int
) -> npt.NDArray[np.int16]:
    # Linear: speech of this kind has little above 5 kHz, and Whisper hears no difference.
    count = len(samples) * to_rate // from_rate
    at = np.arange(count) * (from_rate / to_rate)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.int16) if count else samples
