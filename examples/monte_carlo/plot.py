"""A line with a band around it, drawn in braille: eight dots to a character, and nothing needed but rich.

`draw` is a pure function from points to text, so it can be called as often as the terminal refreshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot of a braille character, by row and column (Unicode, block 2800)."""

LABEL_WIDTH = 10


class Point(NamedTuple):
    """An estimate after `x` samples, and the half-width of its confidence interval."""

    x: float
    mean: float
    margin: float


def draw(points: Sequence[Point], width: int, height: int, x_end: float, exact: float | None = None) -> Text:
    """Draw the points from x = 0 to `x_end` on `width` by `height` characters, axes included.

    The scale of y follows the later points: the wide band of the first few would flatten all the rest.
    A dashed line marks `exact`, where it is known and falls into the picture.
    """
    columns, rows = 2 * max(width - LABEL_WIDTH - 2, 10), 4 * max(height - 2, 3)
    low, high = _range(points, x_end)
    canvas = _Canvas(columns, rows)

    def row_of(value: float) -> int:
        return round((high - value) / (high - low) * (rows - 1))

    for column, point in _by_column(points, columns, x_end):
        top, bottom = row_of(point.mean + point.margin), row_of(point.mean - point.margin)
        canvas.shade(column, top, bottom)
        canvas.line(column, row_of(point.mean))
    if exact is not None and low <= exact <= high:
        canvas.rule(row_of(exact))
    labels = {0: high, canvas.lines // 2: (low + high) / 2, canvas.lines - 1: low}
    text = Text(no_wrap=True)
    for line in range(canvas.lines):
        label = f"{labels[line]:>{LABEL_WIDTH}.5g}" if line in labels else " " * LABEL_WIDTH
        text.append(f"{label} │", style="dim")
        text.append_text(canvas.render(line)).append("\n")
    end = f"{x_end:,.0f} samples"
    text.append(f"{'':>{LABEL_WIDTH}} └{'─' * (columns // 2)}\n", style="dim")
    text.append(f"{'':>{LABEL_WIDTH}}  0{end:>{columns // 2 - 1}}", style="dim")
    return text


def _range(points: Sequence[Point], x_end: float) -> tuple[float, float]:
    """The lowest and highest y: that of the bands of the points after the first twentieth of the axis."""
    settled = [point for point in points if point.x >= x_end / 20] or points[-1:]
    if not settled:
        return 0.0, 1.0
    low = min(point.mean - point.margin for point in settled)
    high = max(point.mean + point.margin for point in settled)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _by_column(points: Sequence[Point], columns: int, x_end: float) -> list[tuple[int, Point]]:
    """For each column of dots the last point at or before it."""
    found: list[tuple[int, Point]] = []
    index = -1
    for column in range(columns):
        x = (column + 1) / columns * x_end
        while index + 1 < len(points) and points[index + 1].x <= x:
            index += 1
        if index >= 0 and (index + 1 < len(points) or x <= points[index].x + x_end / columns):
            found.append((column, points[index]))
    return found


class _Canvas:
    """Dots, and for each character the most important thing drawn in it: its colour."""

    STYLES = ("", "blue", "green", "bold yellow")
    BAND, RULE, LINE = 1, 2, 3

    def __init__(self, columns: int, rows: int) -> None:
        self._columns, self._rows = columns, rows
        self.lines = (rows + 3) // 4
        width = (columns + 1) // 2
        self._bits = [[0] * width for _ in range(self.lines)]
        self._kinds = [[0] * width for _ in range(self.lines)]
        self._last: tuple[int, int] | None = None

    def shade(self, column: int, top: int, bottom: int) -> None:
        """Draw the two edges of the band, and every fourth dot between them."""
        for row in range(max(top, 0), min(bottom, self._rows - 1) + 1):
            if row in (top, bottom) or (column % 4, row % 4) in ((0, 0), (2, 2)):
                self._dot(column, row, self.BAND)

    def line(self, column: int, row: int) -> None:
        """Draw the estimate, joined to where it was one column before."""
        _, before = self._last if self._last and self._last[0] == column - 1 else (column, row)
        for between in range(min(before, row), max(before, row) + 1):
            self._dot(column, between, self.LINE)
        self._last = (column, row)

    def rule(self, row: int) -> None:
        """Draw a dashed horizontal line."""
        for column in range(self._columns):
            if column % 4 < 2:
                self._dot(column, row, self.RULE)

    def render(self, line: int) -> Text:
        """One line of characters."""
        text = Text()
        for bits, kind in zip(self._bits[line], self._kinds[line], strict=True):
            text.append(chr(0x2800 + bits) if bits else " ", style=self.STYLES[kind])
        return text

    def _dot(self, column: int, row: int, kind: int) -> None:
        if 0 <= row < self._rows and 0 <= column < self._columns:
            line, cell = row // 4, column // 2
            self._bits[line][cell] |= DOTS[row % 4][column % 2]
            self._kinds[line][cell] = max(self._kinds[line][cell], kind)
