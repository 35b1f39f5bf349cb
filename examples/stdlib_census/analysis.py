"""What one Python file contains: the pure half of the census.

`analyse_source` reads one file's bytes and counts; `summarise` adds the counts of many files up. Neither
touches a disk, a clock or the mesh, so the same function runs in this process, in a worker and in a test.
A file that does not parse is a result, not an exception: its report carries the reason in `error`.
"""

from __future__ import annotations

import ast
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Row = tuple[Any, ...]
"""A `FileReport` as it travels."""


class FunctionReport(NamedTuple):
    """One function or method; `lines` runs from its `def` to its last statement."""

    path: str
    name: str
    first_line: int
    lines: int
    complexity: int


@dataclass(frozen=True, slots=True)
class FileReport:
    """One file; `documented` of its `documentable` definitions have a docstring; `error` is set if broken."""

    path: str
    bytes: int
    lines: int
    classes: int = 0
    documentable: int = 0
    documented: int = 0
    imports: tuple[str, ...] = ()
    functions: tuple[FunctionReport, ...] = ()
    error: str | None = None

    def to_row(self) -> Row:
        """The report in built-in types, which any Python can unpickle without this file."""
        functions = tuple(tuple(function) for function in self.functions)
        counts = (self.path, self.bytes, self.lines, self.classes, self.documentable, self.documented)
        return (*counts, self.imports, functions, self.error)

    @classmethod
    def from_row(cls, row: Row) -> FileReport:
        """The report that `to_row` was called on."""
        path, size, lines, classes, documentable, documented, imports, functions, error = row
        reports = tuple(FunctionReport(*function) for function in functions)
        return cls(path, size, lines, classes, documentable, documented, imports, reports, error)


@dataclass(frozen=True, slots=True)
class Census:
    """Many files together; `importers` counts, for each module, the files that import it."""

    files: int
    bytes: int
    lines: int
    classes: int
    documentable: int
    documented: int
    functions: tuple[FunctionReport, ...]
    importers: Counter[str] = field(default_factory=Counter)
    failures: tuple[FileReport, ...] = ()

    @property
    def docstring_coverage(self) -> float:
        """The documented share of the documentable definitions, 0 to 1."""
        return self.documented / self.documentable if self.documentable else 0.0

    @property
    def mean_complexity(self) -> float:
        """The mean cyclomatic complexity of a function."""
        return sum(f.complexity for f in self.functions) / len(self.functions) if self.functions else 0.0

    def longest(self, count: int) -> list[FunctionReport]:
        """The functions with the most lines, longest first."""
        return sorted(self.functions, key=lambda f: (-f.lines, f.path, f.first_line))[:count]

    def most_complex(self, count: int) -> list[FunctionReport]:
        """The functions with the highest complexity, highest first."""
        return sorted(self.functions, key=lambda f: (-f.complexity, f.path, f.first_line))[:count]


def analyse_source(path: str, source: bytes) -> FileReport:
    """Parse one file and count what is in it.

    Parameters
    ----------
    path
        The file's name relative to the library, with forward slashes; its first part is its own package.
    source
        The file's bytes; the parser honours an encoding declaration in them.

    Returns
    -------
    FileReport
        For a file that does not parse: its size, its number of lines and `error`.
    """
    lines = len(source.splitlines())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape is the file's business, not the census's
            tree = ast.parse(source, filename=path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        return FileReport(path, len(source), lines, error=_reason(exc))
    survey = _Survey(path)
    survey.walk(tree)
    own_package = path.split("/")[0].removesuffix(".py")
    return FileReport(
        path=path,
        bytes=len(source),
        lines=lines,
        classes=survey.classes,
        documentable=survey.documentable,
        documented=survey.documented,
        imports=tuple(sorted(survey.imports - {own_package})),
        functions=tuple(survey.reports()),
    )


def summarise(reports: Iterable[FileReport]) -> Census:
    """Add up the reports of many files; their order makes no difference."""
    ordered = sorted(reports, key=lambda report: report.path)
    parsed = [report for report in ordered if report.error is None]
    return Census(
        files=len(ordered),
        bytes=sum(report.bytes for report in ordered),
        lines=sum(report.lines for report in ordered),
        classes=sum(report.classes for report in parsed),
        documentable=sum(report.documentable for report in parsed),
        documented=sum(report.documented for report in parsed),
        functions=tuple(function for report in parsed for function in report.functions),
        importers=Counter(module for report in parsed for module in report.imports),
        failures=tuple(report for report in ordered if report.error is not None),
    )


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class _Function:
    """A function while it is being counted."""

    __slots__ = ("complexity", "name", "node")

    def __init__(self, name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.name = name
        self.node = node
        self.complexity = 1


class _Scope(NamedTuple):
    """Where a node stands: the dotted name around it, and the function that its branches belong to."""

    name: str
    function: _Function | None
    public: bool


class _Survey:
    """One walk over a syntax tree, with its own stack: generated code nests deeper than Python recurses."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._functions: list[_Function] = []
        self.classes = 0
        self.documentable = 0
        self.documented = 0
        self.imports: set[str] = set()

    def walk(self, tree: ast.Module) -> None:
        """Count everything in `tree`."""
        self._count_docstring(tree)
        stack: list[tuple[ast.AST, _Scope]] = [(tree, _Scope("", None, True))]
        while stack:
            node, scope = stack.pop()
            inner = self._visit(node, scope)
            for name, child in _children(node):
                stack.append((child, inner if name == "body" else scope))

    def reports(self) -> Iterator[FunctionReport]:
        """The functions found, in the order of their first lines."""
        for function in sorted(self._functions, key=lambda function: function.node.lineno):
            node = function.node
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            yield FunctionReport(self._path, function.name, node.lineno, lines, function.complexity)

    def _visit(self, node: ast.AST, scope: _Scope) -> _Scope:
        """Count one node; returns the scope of its body."""
        if isinstance(node, _Definition):
            return self._enter(node, scope)
        if isinstance(node, ast.Import):
            self.imports.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module:
                self.imports.add(node.module.split(".")[0])
        elif scope.function is not None:
            scope.function.complexity += _branches(node)
        return scope

    def _enter(self, node: _Definition, scope: _Scope) -> _Scope:
        name = f"{scope.name}.{node.name}" if scope.name else node.name
        public = scope.public and not node.name.startswith("_")
        if public:
            self._count_docstring(node)
        if isinstance(node, ast.ClassDef):
            self.classes += 1
            return _Scope(name, None, public)
        function = _Function(name, node)
        self._functions.append(function)
        return _Scope(name, function, False)  # what is defined inside a function is nobody's interface

    def _count_docstring(self, node: ast.Module | _Definition) -> None:
        self.documentable += 1
        self.documented += ast.get_docstring(node, clean=False) is not None


def _branches(node: ast.AST) -> int:
    """How many ways through the code this node adds (T. J. McCabe, "A Complexity Measure", 1976).

    Every branch, loop, handler and case adds one, and so does every further operand of `and` and `or`. A case
    that always matches adds nothing: it is the `else`.
    """
    match node:
        case ast.If() | ast.IfExp() | ast.For() | ast.AsyncFor() | ast.While() | ast.ExceptHandler():
            return 1
        case ast.BoolOp(values=values):
            return len(values) - 1
        case ast.comprehension(ifs=conditions):
            return 1 + len(conditions)
        case ast.match_case(pattern=ast.MatchAs(pattern=None), guard=None):
            return 0
        case ast.match_case():
            return 1
    return 0


def _children(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The nodes directly below `node`, each with the name of the field that holds it."""
    for name, value in ast.iter_fields(node):
        if isinstance(value, ast.AST):
            yield name, value
        elif isinstance(value, list):
            yield from ((name, item) for item in value if isinstance(item, ast.AST))


def _reason(exc: Exception) -> str:
    if isinstance(exc, SyntaxError):
        return f"line {exc.lineno}: {exc.msg}" if exc.lineno else str(exc.msg)
    if isinstance(exc, RecursionError | MemoryError):
        return "nested too deeply for the parser"
    return str(exc)
