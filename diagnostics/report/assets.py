"""Styles and scripts of pages, and the policy that lets nothing else run or load.

A page is one file: its styles and scripts stand in it. The policy names each script by its hash, so
that no text that found its way into a page as markup would run, and forbids every load.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from importlib.resources import files

from markupsafe import Markup

FOLDER = files("diagnostics.report") / "templates"


def asset(name: str) -> Markup:
    """The text of a style sheet or script of ours, to stand inside its element as it is."""
    return Markup((FOLDER / name).read_text(encoding="utf-8"))


def policy(scripts: Iterable[str]) -> str:
    """The content security policy of a page that holds the scripts of these names alone."""
    hashes = " ".join(f"'{_hash(asset(name))}'" for name in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
