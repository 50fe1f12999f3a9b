"""Definition sets: what a number means, as switches with one meaning each (DEFINITIONS).

`paper` has the equations as printed. `released` has what the public analysis scripts compute
offline: relative gain, KL_0 itself as D, the norm's epsilon for an empty range only, and at least
one kept position a rollout. Three switches belong to neither: H or C of the trained checkpoint
(which leaks the outcome; together named `leakage`), C-hat in the place of C (the scripts' live
training), and a plain sort, whose ties fall by row order.

A set's name says how it departs from the nearer of the two: `paper`, `released+leakage`,
`paper+disagreement=kl_0`. Token tables carry that name in `frame.attrs`, files in their metadata.
Not covered: the live entropy, renormalised on the top-K; and epsilon inside selectors, which rank
by their own norms (a common factor of 1 - 1e-12 or so leaves single signals and products ranked).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import pandas as pd

from diagnostics.errors import InputError
from diagnostics.statistics.tables.normalize import Epsilon
from diagnostics.statistics.tables.values import Outcome

ATTRIBUTE = "definitions"  # the key in `frame.attrs` and in a file's metadata

Model = Literal["theta_0", "checkpoint"]
Ties = Literal["hash", "row_order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definitions:
    """One definition set; the defaults are `paper`.

    Fields: `outcome` G = KL_0 - KL_tau in nats (`gain`), or that over KL_0 + 1e-12 (`gain_rel`);
    `disagreement` D on the `union` of both top-Ks (Eq. 9), or `kl_0` itself; `epsilon` of the norm
    added to every range (Eq. 11), or to none (`empty_range`: a range below it gives 0 in both);
    `keeping` exactly ceil(rho N) positions, or `at_least_one` a rollout; `ties` broken by the
    unclipped score and then a `hash`, or by `row_order`; `compatibility` C (`exact`, Eq. 10) or
    C-hat (`lower`, Eq. 17); `entropy_from`, `compatibility_from` the model whose H and C are the
    predictors: `checkpoint` leaks the outcome.
    """

    outcome: Outcome = "gain"
    disagreement: Literal["union", "kl_0"] = "union"
    epsilon: Epsilon = "always"
    keeping: Literal["exact", "at_least_one"] = "exact"
    ties: Ties = "hash"
    compatibility: Literal["exact", "lower"] = "exact"
    entropy_from: Model = "theta_0"
    compatibility_from: Model = "theta_0"

    @property
    def name(self) -> str:
        """The set's name, which `definition_set` reads back."""
        own = asdict(self)
        named = [
            [word, *_words({k: v for k, v in own.items() if v != getattr(base, k)})]
            for word, base in SETS.items()
        ]
        shortest = min(named, key=len)
        return "+".join(shortest)

    @property
    def leaks(self) -> bool:
        """Whether a predictor is measured on the trained checkpoint."""
        return "checkpoint" in (self.entropy_from, self.compatibility_from)

    def leaking(self) -> Definitions:
        """The same with both H and C of the trained checkpoint: the switch named `leakage`."""
        return Definitions(**(asdict(self) | _LEAKAGE))


_LEAKAGE = {"entropy_from": "checkpoint", "compatibility_from": "checkpoint"}

PAPER = Definitions()
RELEASED = Definitions(
    outcome="gain_rel", disagreement="kl_0", epsilon="empty_range", keeping="at_least_one"
)
SETS = {"paper": PAPER, "released": RELEASED}
SWITCHES: dict[str, tuple[str, ...]] = {
    name: get_args(hint) for name, hint in get_type_hints(Definitions).items()
}


def definition_set(name: str, where: str = "--definitions") -> Definitions:
    """The set of a name. Raises InputError for an unknown one."""
    base, *words = name.split("+")
    if base not in SETS:
        raise _unknown(where, " or ".join(f"`{known}`" for known in SETS), base)
    changes: dict[str, Any] = {}
    for word in words:
        switch, _, value = word.partition("=")
        if word == "leakage":
            changes |= _LEAKAGE
        elif value in SWITCHES.get(switch, ()):
            changes[switch] = value
        else:
            known = [f"{s}={'|'.join(values)}" for s, values in SWITCHES.items()]
            raise _unknown(where, f"after a +: leakage, {', '.join(known)}", word)
    return replace(SETS[base], **changes)


def check_definitions(name: str) -> str:
    """The canonical name of a set that is there. Raises InputError for an unknown one."""
    return definition_set(name).name


def state(frame: pd.DataFrame, definitions: Definitions) -> pd.DataFrame:
    """The token table, which from now on says by which set it was made."""
    frame.attrs[ATTRIBUTE] = definitions.name
    return frame


def definitions_of(frame: pd.DataFrame, unstated: Definitions | None = None) -> Definitions:
    """The set that made a token table; `unstated` is for one that does not say.

    Raises InputError when it does not say and `unstated` is not given.
    """
    name = frame.attrs.get(ATTRIBUTE)
    if name is None:
        if unstated is not None:
            return unstated
        raise InputError(
            where="token table",
            expected="one that says by which definition set it was made",
            got="none (tables of different sets joined together say none)",
            fix="make it with `token_table` or `read_tokens`",
        )
    return definition_set(str(name), "token table")


def require_one_set(
    frames: Iterable[pd.DataFrame], where: str, unstated: Definitions | None = None
) -> Definitions:
    """The one set that made all token tables, `unstated` as in `definitions_of`.

    Raises InputError that names the sets if there are several.
    """
    names = list(dict.fromkeys(definitions_of(frame, unstated).name for frame in frames))
    if len(names) != 1:
        raise InputError(
            where=where,
            expected="token tables of one definition set",
            got=", ".join(names) or "no table",
            fix="make all of them with the same --definitions",
        )
    return definition_set(names[0])


def _words(changes: dict[str, Any]) -> list[str]:
    """Departures as `definition_set` reads them."""
    if _LEAKAGE.items() <= changes.items():
        rest = {k: v for k, v in changes.items() if k not in _LEAKAGE}
        return [*_words(rest), "leakage"]
    return [f"{switch}={value}" for switch, value in changes.items()]


def _unknown(where: str, expected: str, got: str) -> InputError:
    return InputError(where=where, expected=expected, got=repr(got), fix="choose one of them")
