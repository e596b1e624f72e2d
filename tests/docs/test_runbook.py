"""The runbook has every message that a task can end red with, and every word of the report that tells what to do."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

from airflow_provider_ropo import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "airflow_provider_ropo"
RUNBOOK = ROOT / "docs" / "runbook.md"
NEXT_STEP = PACKAGE / "task" / "next_step.py"

#: The names of the error classes whose first argument is the message; the last is that of a cell, for an invalid row.
ERRORS = {name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RopoError)} | {
    "InvalidValueError"
}
#: Functions with a delivery's detail among their arguments.
DETAILED = {"end_of", "_finish_unsent", "_unsent"}
#: Functions that make an error, with a part of its message among their arguments.
MAKERS = {"_failure"}
#: Errors that no user can cause.
PROGRAMMERS = {"AttributeError", "NotImplementedError"}
#: Characters of a sentence that is too short to be looked for.
SHORT = 25
#: Stands for what is put into a message.
GAP = "…"


def words(text: str) -> str:
    """Return text as it is compared: without the signs of Markdown, in small letters, with single blanks."""
    return " ".join(re.sub(r"[`*\\]", "", text).casefold().split())


def messages_of(path: Path) -> Iterator[str]:
    """Yield each message in a file."""
    tree = tree_of(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (*functions, tree):
        for value in chain.from_iterable(map(both, chain.from_iterable(map(values_of, ast.walk(scope))))):
            if isinstance(value, ast.Name):
                yield from assignments(scope).get(value.id, [])
            elif isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                yield from returned().get(value.func.id, [])
            elif text := text_of(value):
                yield text


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a module whose messages have in place what the package's constants put into them."""
    tree, texts = ast.parse(path.read_text(encoding="utf-8")), constants()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for index, part in enumerate(node.values):
                if isinstance(part, ast.FormattedValue) and (text := texts.get(ast.unparse(part.value))):
                    node.values[index] = ast.Constant(text)
    return tree


@cache
def constants() -> dict[str, str]:
    """Return the texts of the package's constants, by their names."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py")))
    return {name: text for tree in trees for name, (text, *_) in assignments(tree, nested=False).items()}


@cache
def returned() -> dict[str, list[str]]:
    """Return the texts that the package's functions return, by their names."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                returns = [each for each in ast.walk(node) if isinstance(each, ast.Return)]
                found.setdefault(node.name, []).extend(text for each in returns if (text := text_of(each.value)))
    return found


def values_of(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions that are messages: of an error, of a delivery's detail, of a line of the log's errors."""
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in ERRORS:
            yield from node.args[2:3] if name == "InvalidRowError" else node.args[:1]
        elif name == "error" and ast.unparse(node.func) in {"log.error", "self.log.error"}:
            yield from node.args[:1]
        elif name in DETAILED | MAKERS:
            yield from node.args
        yield from (keyword.value for keyword in node.keywords if keyword.arg == "detail")
    elif isinstance(node, ast.Assign) and any(getattr(target, "id", "") == "detail" for target in node.targets):
        yield node.value
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        # Whatever makes the error: its class, or a function that gets a part of the message.
        yield from [] if ast.unparse(node.exc.func) in PROGRAMMERS | ERRORS else node.exc.args


def both(value: ast.expr) -> tuple[ast.expr, ...]:
    """Return the two values of a conditional expression, or the value itself."""
    return (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)


def assignments(scope: ast.AST, *, nested: bool = True) -> dict[str, list[str]]:
    """Return the texts that are assigned to each name in a function or a module."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(scope) if nested else ast.iter_child_nodes(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and (text := text_of(node.value)):
            found.setdefault(node.targets[0].id, []).append(text)
    return found


def sentences(path: Path) -> Iterator[str]:
    """Yield the phrase of each sentence in a file's texts but the docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        text = text_of(node) if isinstance(node, ast.expr) and id(node) not in docstrings else ""
        if text.endswith((".", GAP)):
            phrases = map(key_phrase, text.split(". "))
            yield from (phrase for phrase in phrases if len(phrase) > SHORT)


def text_of(value: ast.expr | None) -> str:
    """Return a text with a gap for each thing that is put into it; empty for anything else."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return re.sub("%[sd]", GAP, value.value)
    if isinstance(value, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in value.values)
    return ""


def key_phrase(message: str) -> str:
    """Return a message's first clause of two words or more, without its punctuation at gaps; the remedy comes after."""
    for clause in message.split("; "):
        parts = [words(part).strip(" .,;:()'\"") for part in clause.split(GAP)]
        phrase = f" {GAP} ".join(filter(None, parts))
        if " " in phrase:
            return phrase
    return ""


@cache
def messages() -> dict[str, str]:
    """Return the phrase of each message, and the file that it is in; collected once."""
    found = {
        phrase: path.relative_to(ROOT).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if "sandbox" not in path.parts
        for message in messages_of(path)
        if (phrase := key_phrase(message))
    }
    # What a message says happens next, sentence by sentence.
    return found | dict.fromkeys(sentences(NEXT_STEP), NEXT_STEP.relative_to(ROOT).as_posix())


STATIC = PACKAGE / "plugins" / "static"
#: The labels of the report, and the sentences of its advice: texts in double quotes, put together where they are long,
#: and templates.
LABELS = set(re.findall(r'\blabel: "([^"]+)"', (STATIC / "words.js").read_text(encoding="utf-8")))
_STEPS = re.sub(r"(?m)^ *//.*|/\*\*.*?\*/", "", (STATIC / "next_steps.js").read_text(encoding="utf-8"))
_TEXTS = re.findall(r'"([^"\n]+)"|`([^`]+)`', re.sub(r'(["`]) \+\s+\1', "", _STEPS))
#: The files with what the pages say where there is no report, and in the form that settles events.
PAGES = ("report.js", "runs.js", "settle.js")
ADVICE = {
    phrase
    for quoted, template in _TEXTS
    for sentence in re.split(r"(?<=[.:]) ", quoted or re.sub(r"\$\{[^}]*\}", GAP, template))
    if len(phrase := key_phrase(sentence)) > SHORT
}
NOTICES = {
    phrase
    for name in PAGES
    for quoted, template in re.findall(
        r'"([A-Z][^"\n]+\.)"|`([A-Z][^`]+\.)`', (STATIC / name).read_text(encoding="utf-8")
    )
    if len(phrase := key_phrase(quoted or re.sub(r"\$\{[^}]*\}", GAP, template))) > SHORT
}


@pytest.fixture(scope="module")
def runbook() -> str:
    return words(RUNBOOK.read_text(encoding="utf-8"))


def test_messages_are_found_in_the_code() -> None:
    """The collection finds messages of every kind: plain, made of parts, returned by a function, of a row, of a run."""
    kinds = {
        "give either sql or events",
        "connection … is not defined, or airflow cannot read it",
        "the task uses … and there is none for this run",
        "is a date without a time of day",
        "events in a row did not arrive",
        "waits for the earlier event",
        "refuses the sign-in",
        "could not be published",
        "it is delivered",
    }

    assert set() == kinds - set(messages())


def test_each_message_is_in_the_runbook(runbook: str) -> None:
    """A person who looks for the words of a message finds them in the runbook: none lacks a row there."""
    missing = {phrase: origin for phrase, origin in messages().items() if not is_in(runbook, phrase.split(f" {GAP} "))}

    assert {} == missing


def is_in(runbook: str, parts: list[str]) -> bool:
    """Tell whether the parts of a phrase stand in the runbook one after another, and near each other."""
    return re.search(".{0,80}?".join(map(re.escape, parts)), runbook) is not None


@pytest.mark.parametrize("text", sorted(LABELS | ADVICE | NOTICES))
def test_the_words_of_the_report_are_in_the_runbook(runbook: str, text: str) -> None:
    """The runbook has each label of the report, and each sentence of its advice."""
    assert is_in(runbook, [words(part) for part in text.split(f" {GAP} ")]), f"the runbook lacks the report's {text!r}"
