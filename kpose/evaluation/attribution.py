"""Where a difference between two scores comes from: factors switched one after the other, and the table of what each switch made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

# Half of the last digit that papers print: below it the order of the factors is nobody's concern.
NOTEWORTHY = 0.0005


@dataclass(frozen=True)
class Step:
    """A switched factor, see `walk`."""

    factor: str
    before: float
    after: float
    reverse: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        factor: what differs.
        first, second: its setting in A and in B.
        before, after: the score before and after it is switched from A's to B's; None where it was not switched by itself.
        reverse: the difference that it makes on the way back from B to A, as seen from A (the sign is that of `difference`).
    """

    factor: str
    first: str = ""
    second: str = ""
    before: float | None = None
    after: float | None = None
    reverse: float | None = None

    @classmethod
    def of(cls, step: Step, settings: tuple[str, str]) -> Row:
        """The row of a switched factor."""
        return cls(step.factor, *settings, step.before, step.after, step.reverse)

    @property
    def difference(self) -> float | None:
        """What the switch adds to the score."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Explanation:
    """Where the difference between two scores comes from.

    Attributes:
        first, second: what A and B are.
        metric: which score.
        rows: in the order in which factors were switched; each switched one begins with the score that the one before ended with.
        notes: sentences for the reader.
    """

    first: str
    second: str
    metric: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def switched(self) -> list[Row]:
        """The rows with figures."""
        return [row for row in self.rows if row.before is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = [asdict(row) | {"difference": row.difference} for row in self.rows]
        start, end = self.switched[0].before, self.switched[-1].after
        whole = {"before": start, "after": end, "difference": end - start}  # type: ignore[operator]
        return {"first": self.first, "second": self.second, "metric": self.metric} | whole | {"rows": rows, "notes": list(self.notes)}

    def table(self) -> str:
        """The rows as aligned text; printed differences are those of the printed scores, so that they add up as they stand there."""
        depends = any(abs(row.reverse - (row.difference or 0)) >= NOTEWORTHY for row in self.rows if row.reverse is not None)
        whole = self.switched
        last = Row("all", before=whole[0].before, after=whole[-1].after)
        heading = ["factor", "A", "B", "before", "after", "difference", "B to A"]
        lines = [heading] + [_cells(row) for row in self.rows] + [_cells(last)]
        if not depends:
            lines = [line[:-1] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = [
            "  ".join(
                cell.ljust(width) if place < 3 else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(shown[0])
        body = [shown[0], rule, *shown[1:-1], rule, shown[-1]]
        notes = list(self.notes)
        if depends:
            notes.append(
                "B to A: the share of the same factor on the way back; where the two differ, factors act together, and the order decides."
            )
        header = [f"A: {self.first}", f"B: {self.second}", f"score: {self.metric}", ""]
        return "\n".join([*header, *(line.rstrip() for line in body), *([""] if notes else []), *notes])


def _cells(row: Row) -> list[str]:
    if row.before is None or row.after is None:
        return [row.factor, row.first, row.second, "", "", "", ""]
    before, after = round(row.before, 4), round(row.after, 4)
    reverse = "" if row.reverse is None else f"{row.reverse:+.4f}"
    return [row.factor, row.first, row.second, f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}", reverse]


def walk(factors: Sequence[str], score: Callable[[frozenset[str]], float]) -> list[Step]:
    """Switch factors one after the other, there and back.

    Args:
        factors: in the order in which they are switched from A's to B's, and on the way back from B's to A's.
        score: of the variant in which the given factors are B's and all others A's.

    Returns:
        A step a factor: `before` and `after` its switch from A's to B's, and `reverse`, what its switch back takes away. Each sums up to
        the whole difference, and exchanging A and B exchanges the two but for the sign.
    """
    score = functools.cache(score)
    there = [score(frozenset(factors[:count])) for count in range(len(factors) + 1)]
    back = [score(frozenset(factors[count:])) for count in range(len(factors) + 1)]
    return [Step(factor, there[place], there[place + 1], back[place] - back[place + 1]) for place, factor in enumerate(factors)]
