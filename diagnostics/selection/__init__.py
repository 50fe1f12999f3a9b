"""Token selection for any trainer: tensors in, a mask out (docs/selector.md).

Three steps: signals of a batch, what a selector keeps of it, what that is like. The rules, budgets
and ties are the analysis's (`statistics.selection`), bit for bit. Nothing here trains, gathers over
ranks or needs a trainer's library.
"""

from diagnostics.selection.describe import describe
from diagnostics.selection.identity import row_hashes
from diagnostics.selection.lists import signals_from_top_k
from diagnostics.selection.scoring import signals_from_logprobs, signals_from_states
from diagnostics.selection.select import Kept, select_tokens
from diagnostics.selection.signals import TokenSignals, check_signals

__all__ = [
    "Kept",
    "TokenSignals",
    "check_signals",
    "describe",
    "row_hashes",
    "select_tokens",
    "signals_from_logprobs",
    "signals_from_states",
    "signals_from_top_k",
]
