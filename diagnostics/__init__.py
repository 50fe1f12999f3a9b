"""Fixed-context diagnostics for on-policy distillation.

Freeze student rollouts as a bank of contexts, score teacher, student and checkpoints on the same
contexts, and ask which signals known before training predict the KL reduction there. The layers, in
the order that data flows: `models`, `bank`, `scoring`, `statistics`, `report`; `training` beside
them; `embedded` is a small pair of models to try everything on. Importing this package is light.
"""

from __future__ import annotations

__version__ = "0.1.0"
