"""What a page's source may hold: its own scripts, and links to itself or to files beside it."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

DATA = ("application/json", "application/octet-stream", "text/plain")  # scripts that never run


@dataclass
class Source(HTMLParser):
    """A page's tags, links, scripts and policy as a parser finds them."""

    tags: list[str] = field(default_factory=list)
    handlers: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    policy: str = ""
    _inside: bool = False

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.handlers += [name for name in values if name.startswith("on")]
        self.loads += [
            values[name] for name in ("src", "srcset", "data", "poster") if name in values
        ]
        references = [values[name] for name in ("href", "xlink:href") if name in values]
        (self.links if tag == "a" else self.loads).extend(references)
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        self._inside = tag == "script" and values.get("type", "") not in DATA

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts.append(data)


def parsed(page: Path) -> Source:
    """A page's source."""
    source = Source()
    source.feed(page.read_text(encoding="utf-8"))
    source.close()
    return source


def require_alone(page: Path) -> Source:
    """Asserts that a page loads nothing, runs its own scripts alone and links to files that are."""
    source = parsed(page)
    addresses = re.findall(r"url\(([^)]*)\)", page.read_text(encoding="utf-8"))
    assert all(address.startswith("#") for address in addresses)
    assert source.handlers == []
    assert {"link", "iframe", "object", "embed", "base", "form"}.isdisjoint(source.tags)
    assert all(load.startswith(("#", "data:")) for load in source.loads)
    assert source.links
    for link in source.links:
        assert link.startswith("#") or (page.parent / link).is_file(), link
    assert source.policy.startswith("default-src 'none';")
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()) for s in source.scripts]
    allowed = source.policy.split("script-src ")[1].split(";")[0].split()
    assert allowed == [f"'sha256-{digest.decode()}'" for digest in hashes]
    return source
