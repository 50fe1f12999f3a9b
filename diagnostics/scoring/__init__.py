"""Scoring: every model's distribution at every frozen context, compared with the teacher's."""
