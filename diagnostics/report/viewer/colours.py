"""The viewer's colours: what each measure's numbers look like, as steps of a scale and as CSS.

A scale has `STEPS` steps on either side of 0 and a colour a step, so that the legend shows every
colour there is. Hues are those of Okabe and Ito, as in the figures: blue is learnable and a gain,
vermilion incompatible and a loss. Colours are mixed in OKLab (Ottosson 2020), where equal steps
look equal; text on each is the one of two inks that stands out more (WCAG's contrast).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diagnostics.report.viewer.data import Floats, Measured

STEPS = 10
FAINTEST = 0.08  # how far the first step is from the ground
LIMIT_QUANTILE = 0.99
THEMES = {
    "light": {
        "ground": "#ffffff",
        "inks": ("#000000", "#ffffff"),
        "up": "#0072b2",
        "down": "#d55e00",
        "c": "#009e73",
        "k": "#b0568a",
        "h": "#e69f00",
    },
    "dark": {
        "ground": "#1b1f23",
        "inks": ("#000000", "#ffffff"),
        "up": "#56b4e9",
        "down": "#f5843d",
        "c": "#35c496",
        "k": "#e29bc4",
        "h": "#f0b73a",
    },
}
HUES = ("up", "down", "c", "k", "h")
SHARES = (  # measures from 0 to 1: name, symbol, label, what the colour says, hue
    ("learnable", "D^L", "learnable disagreement", "Blue: within the student's reach", "up"),
    (
        "incompatible",
        "D^I",
        "incompatible disagreement",
        "Vermilion: beyond the student's reach",
        "down",
    ),
    ("compatibility", "C", "compatibility", "Green: teacher within the student's top K", "c"),
)
NATS = (  # measures from 0 upward
    ("kl_0", "KL_0", "divergence before training", "Pink: far from the teacher", "k"),
    ("entropy", "H", "student entropy before training", "Amber: unsure", "h"),
)
TO_CONE = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a measure is coloured.

    Fields: `name` of its array; `symbol` and `label` for people; `more` what its colours say; `up`,
    `down` hues of numbers above and below 0 (`down` empty where there are none); `unit`; `limit`
    whose step is the last, as is everything beyond; `root` whether steps are even in square roots.
    """

    name: str
    symbol: str
    label: str
    more: str
    up: str
    down: str = ""
    unit: str = ""
    limit: float = 1.0
    root: bool = False

    def steps(self, values: Floats) -> NDArray[np.int64]:
        """The step of each number (pos,), -STEPS to STEPS; 0 has no colour."""
        share = np.minimum(np.abs(values) / self.limit, 1.0)
        size = np.floor(STEPS * (np.sqrt(share) if self.root else share) + 0.5)
        return np.asarray(np.sign(values) * size, dtype=np.int64)

    def as_dict(self) -> dict[str, Any]:
        """For the page's script."""
        return asdict(self)


def scales(measured: Measured) -> list[Scale]:
    """The scale of each measure; limits are of the whole run, so that files of one run agree."""
    gain = Scale(
        name="gain",
        symbol="G",
        label="gain",
        more="Blue: moved toward the teacher; vermilion: away",
        up="up",
        down="down",
        unit="nats",
        limit=_limit(measured.gain),
        root=True,
    )
    shares = [
        Scale(name=name, symbol=symbol, label=label, more=more, up=up)
        for name, symbol, label, more, up in SHARES
    ]
    nats = [
        Scale(
            name=name,
            symbol=symbol,
            label=label,
            more=more,
            up=up,
            unit="nats",
            limit=_limit(measured.measures[name]),
            root=True,
        )
        for name, symbol, label, more, up in NATS
    ]
    return [gain, *shares, *nats]


def _limit(values: Floats) -> float:
    """A round number (1, 2 or 5 times a power of ten) that 99 % of sizes do not pass."""
    size = float(np.quantile(np.abs(values), LIMIT_QUANTILE)) if values.size else 0.0
    if size <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(size))
    rounded = next(step for step in (1, 2, 5, 10) if size <= step * power * (1 + 1e-9))
    return float(f"{rounded * power:.0e}")


def css_variables(theme: Literal["light", "dark"]) -> str:
    """The colours of a theme as CSS custom properties: a ground and its ink for each step."""
    return "".join(
        f"--tv-{hue}{step}:{ground};--tv-{hue}{step}i:{ink};"
        for hue, step, ground, ink in colours(theme)
    )


def css_rules() -> str:
    """A class for each step of each hue."""
    return "\n".join(
        f".tv-{hue}{step}{{background:var(--tv-{hue}{step});color:var(--tv-{hue}{step}i)}}"
        for hue in HUES
        for step in range(1, STEPS + 1)
    )


def colours(theme: Literal["light", "dark"]) -> Iterator[tuple[str, int, str, str]]:
    """(hue, step, ground, ink) of a theme."""
    chosen = THEMES[theme]
    for hue in HUES:
        for step in range(1, STEPS + 1):
            share = FAINTEST + (1 - FAINTEST) * step / STEPS
            ground = mixed(str(chosen["ground"]), str(chosen[hue]), share)
            yield hue, step, ground, max(chosen["inks"], key=lambda ink: contrast(ground, ink))


def mixed(first: str, second: str, share: float) -> str:
    """The colour that lies `share` of the way from the first to the second, in OKLab."""
    labs = [TO_LAB @ np.cbrt(TO_CONE @ _linear(colour)) for colour in (first, second)]
    lab = labs[0] + share * (labs[1] - labs[0])
    linear = np.linalg.solve(TO_CONE, np.linalg.solve(TO_LAB, lab) ** 3).clip(0, 1)
    light = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return "#" + "".join(f"{round(255 * value):02x}" for value in light)


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio of two colours, 1 to 21."""
    dark, light = sorted(float(_linear(c) @ (0.2126, 0.7152, 0.0722)) for c in (first, second))
    return (light + 0.05) / (dark + 0.05)


def _linear(colour: str) -> Floats:
    """Linear red, green and blue of #rrggbb, (3,)."""
    light = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(light > 0.04045, ((light + 0.055) / 1.055) ** 2.4, light / 12.92)
