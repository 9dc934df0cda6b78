"""The Markdown files of the repository, as a parser of Markdown sees them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


@cache
def repository_files() -> frozenset[str]:
    """Every file of the repository, relative to its root; in an unpacked source distribution, every file there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return frozenset(listed.stdout.splitlines())
    return frozenset(str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file())


def markdown_files() -> list[str]:
    """Every Markdown file of the repository."""
    return sorted(name for name in repository_files() if name.endswith(".md"))


@dataclass(frozen=True)
class Code:
    """Code in a text: `language` is that of a block, and None within a line."""

    text: str
    language: str | None


@dataclass(frozen=True)
class Document:
    """A Markdown file."""

    name: str

    @property
    def text(self) -> str:
        return (ROOT / self.name).read_text(encoding="utf-8")

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    def tokens(self) -> Iterator[Token]:
        for token in MarkdownIt("commonmark").enable("table").parse(self.text):
            yield token
            yield from token.children or ()

    def code(self) -> list[Code]:
        kinds = {"fence": lambda token: token.info.strip(), "code_block": lambda _: "", "code_inline": lambda _: None}
        return [Code(token.content, kinds[token.type](token)) for token in self.tokens() if token.type in kinds]

    def links(self) -> list[str]:
        attributes = (token.attrGet("href") or token.attrGet("src") for token in self.tokens())
        return [str(link) for link in attributes if link]

    def tables(self) -> list[list[list[str]]]:
        """The cells of each table, the heading first, as they are written."""
        tables: list[list[list[str]]] = []
        inside = False
        for token in self.tokens():
            if token.type in ("table_open", "table_close"):
                inside = token.type == "table_open"
                tables += [[]] if inside else []
            elif token.type == "tr_open":
                tables[-1].append([])
            elif token.type == "inline" and inside:
                tables[-1][-1].append(token.content)
        return tables


def documents() -> list[Document]:
    return [Document(name) for name in markdown_files()]
