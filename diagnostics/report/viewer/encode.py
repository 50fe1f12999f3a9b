"""Arrays and texts of the viewer as one JSON value that may stand in a script element.

Arrays are whole numbers of one to four bytes, their bytes apart (all lowest ones first), deflated
together, base64. A measure is the first two or three bytes of its float32; a probability p is
sqrt(p) in steps of one or two bytes. A student's token is its place in an earlier model's list
where it stands there too, as trained models keep most of theirs. `Precision` says what is lost.
Token texts are stored once each, cut at `LONGEST` letters.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.report.viewer.data import Floats, Ids, Shown, text_of
from diagnostics.scoring.texts import TokenTexts

LONGEST = 200  # letters of a token that are kept
HIDDEN = "\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
UNSAFE = re.compile(f"[<>&{HIDDEN}]")

Kind = Literal["whole", "float", "share"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How closely numbers are kept. Fields: bytes of a measure; bytes of a probability."""

    float_bytes: Literal[2, 3]
    share_bytes: Literal[1, 2]

    @property
    def float_error(self) -> float:
        """The most that a measure is off, as a share of itself."""
        return float(2.0 ** (8 - 8 * self.float_bytes))

    @property
    def share_error(self) -> float:
        """The most that a probability is off."""
        return float(1.01 / self._steps)

    @property
    def _steps(self) -> int:
        return int(256**self.share_bytes - 1)


FINE, COARSE = (
    Precision(float_bytes=3, share_bytes=2),
    Precision(float_bytes=2, share_bytes=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """An array. Fields: `kind` of its values; `width` bytes each; `content` the bytes."""

    kind: Kind
    width: int
    content: bytes


def packed_measures(shown: Shown, precision: Precision = FINE) -> dict[str, Packed]:
    """What positions are and measure, (pos,) each, by name; a token is its place in `token_ids`."""
    measured = shown.measured
    arrays = {
        "position": whole(measured.position),
        "token": whole(_places(shown.token_ids())[measured.token_id]),
        "quadrant": whole(measured.quadrant),
        "kept": whole(measured.kept),
        **{name: floats(values, precision) for name, values in measured.measures.items()},
    }
    for index, (gain, kl) in enumerate(zip(measured.gain, measured.kl, strict=True)):
        arrays[f"gain.{index}"] = floats(gain, precision)
        if precision is FINE:
            arrays[f"kl.{index}"] = floats(kl, precision)
    return arrays


def packed_tops(shown: Shown, precision: Precision = FINE) -> dict[str, Packed]:
    """Every model's most probable tokens and their probabilities, (pos, most) flat, by name.

    `top.0` is the teacher's. In the others a number below `most` is a rank in the list of the model
    before (`reference`), any other one is a token's place plus `most`.
    """
    tops = _places(shown.token_ids())[shown.top_ids.swapaxes(1, 2)]
    arrays = {}
    for index, top in enumerate(tops):
        seen = top if index == 0 else _beside(top, tops[reference(index)])
        arrays[f"top.{index}"] = whole(seen.ravel())
        arrays[f"prob.{index}"] = shares(shown.top_prob[index].T.ravel(), precision)
    return arrays


def reference(model: int) -> int:
    """The model in whose list a later model's tokens are looked up: theta_0, for it the teacher."""
    return min(model - 1, 1)


def whole(values: NDArray[Any]) -> Packed:
    """Whole numbers from 0 (pos,), in as few bytes as hold the largest."""
    largest = int(values.max(initial=0))
    return _pack("whole", values.astype(np.uint32), max(1, (largest.bit_length() + 7) // 8))


def floats(values: Floats, precision: Precision = FINE) -> Packed:
    """Measures (pos,), rounded."""
    bits, lost = values.astype(np.float32).view(np.uint32), 32 - 8 * precision.float_bytes
    rounded = (bits + np.uint32(1 << (lost - 1))) >> np.uint32(lost)
    return _pack("float", rounded, precision.float_bytes)


def shares(values: Floats, precision: Precision = FINE) -> Packed:
    """Probabilities (pos,), rounded."""
    steps = 256**precision.share_bytes - 1
    rounded = np.rint(np.sqrt(np.clip(values, 0, 1)) * steps)
    return _pack("share", rounded.astype(np.uint32), precision.share_bytes)


def unpacked(packed: Packed) -> NDArray[Any]:
    """The values (pos,) again, as the page's script reads them."""
    planes = np.frombuffer(packed.content, np.uint8).reshape(packed.width, -1).astype(np.uint32)
    values = np.zeros(planes.shape[1], np.uint32)
    for place, plane in enumerate(planes):
        values |= plane << np.uint32(8 * place)
    if packed.kind == "float":
        return (values << np.uint32(32 - 8 * packed.width)).view(np.float32)
    return (values / (256**packed.width - 1)) ** 2 if packed.kind == "share" else values


def bundled(arrays: Mapping[str, Packed]) -> dict[str, Any]:
    """Arrays as a JSON value: what each is, in order, and all bytes."""
    content = zlib.compress(b"".join(one.content for one in arrays.values()), 9)
    return {
        "arrays": [[name, one.kind, one.width] for name, one in arrays.items()],
        "bytes": base64.b64encode(content).decode("ascii"),
    }


def token_strings(token_ids: Ids, texts: TokenTexts | None) -> dict[str, Any]:
    """Texts of tokens; which of them were cut and how long they are; which are special."""
    found = [text_of(texts, int(token_id)) for token_id in token_ids]
    special = [texts is not None and i < len(texts) and texts.special[i] for i in token_ids]
    return {
        "ids": token_ids.tolist(),
        "texts": [text[:LONGEST] for text in found],
        "lengths": {str(i): len(text) for i, text in enumerate(found) if len(text) > LONGEST},
        "special": np.flatnonzero(special).tolist(),
    }


def script_json(value: Mapping[str, Any]) -> str:
    """JSON in which nothing can end a script element, and no sign is invisible."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _pack(kind: Kind, values: NDArray[np.uint32], width: int) -> Packed:
    planes = values.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :width]
    return Packed(kind=kind, width=width, content=np.ascontiguousarray(planes.T).tobytes())


def _beside(top: NDArray[np.uint32], earlier: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Tokens (pos, most) as ranks in an earlier list (pos, most), or beyond them as themselves."""
    same = top[:, :, None] == earlier[:, None, :]
    return np.where(same.any(axis=2), same.argmax(axis=2), top + np.uint32(top.shape[1]))


def _places(token_ids: Ids) -> NDArray[np.uint32]:
    """The place of each id among `token_ids`, (vocab,)."""
    places = np.zeros(int(token_ids.max(initial=0)) + 1, dtype=np.uint32)
    places[token_ids] = np.arange(len(token_ids), dtype=np.uint32)
    return places
