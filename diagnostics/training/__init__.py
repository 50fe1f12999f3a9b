"""Masked on-policy distillation: rollout batch in, per-position mask out, loss."""
