"""The paper's 13 tables as data (arXiv 2605.26844v1, CC BY 4.0), and what adds up in them."""
