"""Every place that a Markdown file speaks of is there: links, paths, modules, targets and recipes."""

from __future__ import annotations

import importlib
import re

import pytest
from markdown_files import ROOT, Document, documents, repository_files

from enet_tvm.targets import known_targets
from enet_tvm.training.recipe import built_in_recipes

FAMILIES = re.compile(r"(rpi|jetson|[rg]tx|x86-64|zen|graviton|h[12]00|sapphire|aarch64-)[\w-]*")
PATH = re.compile(r"[\w.-]+(/[\w.{},*-]*)+")
DOTTED = re.compile(r"enet_tvm(\.\w+)+")


def words(document: Document) -> list[str]:
    """The words of a document's code, blocks included."""
    return [word.strip("(),;:'\"") for code in document.code() for word in code.text.split()]


def anchors(document: Document) -> set[str]:
    """What GitHub calls the headings of a document."""
    headings = re.findall(r"^#+ +(.*)$", document.text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def there(path: str, document: Document) -> bool:
    """Whether the repository has a path, seen from its root or from the document."""
    beside = document.folder.relative_to(ROOT)
    known = repository_files()
    tried = [path, str(beside / path), str((document.folder / path).resolve().relative_to(ROOT))]
    return any(one in known or any(file.startswith(one.rstrip("/") + "/") for file in known) for one in tried)


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_links(document: Document):
    for link in document.links():
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        if path:
            assert there(path, document), f"{document.name} links to {link}, which the repository does not hold"
        if anchor:
            target = Document(str((document.folder / path).resolve().relative_to(ROOT))) if path else document
            assert anchor in anchors(target), f"{document.name} links to {link}, a heading that is not there"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_paths(document: Document):
    """A word of code with a slash is a path of the repository if it begins like one."""
    top = {file.partition("/")[0] for file in repository_files() if "/" in file}
    for word in words(document):
        if PATH.fullmatch(word) and word.partition("/")[0] in top:
            assert there(word, document), f"{document.name} speaks of {word}"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_files(document: Document):
    """A file named without a directory is one of the repository's, if it is of a kind that only people write."""
    written = {"report.md", "dataset.toml"}  # by `evaluate --report` and `data new`
    names = {file.rpartition("/")[2] for file in repository_files()} | written
    for code in document.code():
        if code.language is None and re.fullmatch(r"[\w-]+\.(md|toml|py|c)", code.text):
            assert code.text in names, f"{document.name} speaks of {code.text}"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_modules_and_what_they_hold(document: Document):
    for word in words(document):
        if DOTTED.fullmatch(word):
            module, _, name = word.rpartition(".")
            try:
                importlib.import_module(word)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), name), f"{document.name} speaks of {word}"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_targets(document: Document):
    for code in document.code():
        if code.language is None and FAMILIES.fullmatch(code.text):
            assert code.text in known_targets(), f"{document.name} speaks of the target {code.text}"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.name)
def test_recipes(document: Document):
    """Recipes are named in the column that says so."""
    for heading, *rows in document.tables():
        if "recipe" in heading:
            column = [row[heading.index("recipe")] for row in rows]
            named = {name for cell in column for name in re.findall(r"`([a-z]+)`", cell)}
            assert named <= set(built_in_recipes())


def test_every_recipe_is_spoken_of():
    assert set(built_in_recipes()) <= {word for document in documents() for word in words(document)}


def test_what_would_not_pass():
    readme = Document("README.md")
    assert there("docs/boards.md", readme)
    assert there("enet_tvm/compiler/passes", readme)
    assert not there("docs/nothing.md", readme)
    assert not there("doc", readme)
    assert "figures" in anchors(readme)
    assert len([word for word in words(readme) if PATH.fullmatch(word)]) > 15
