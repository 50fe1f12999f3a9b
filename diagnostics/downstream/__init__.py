"""Evaluation results of trained students, and the paper's downstream tables made of them."""
