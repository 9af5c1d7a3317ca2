"""Figures: measurements, their summary, and their targets."""

import dataclasses
import statistics


@dataclasses.dataclass
class Target:
    """The highest allowed value of a row: its median, or its ratio to the reference row."""

    most: float
    of: str = "median"


@dataclasses.dataclass
class Row:
    """One thing that was measured, once or in turns with the other rows of its section. Without a sample it could not be
    measured, and the note says why."""

    name: str
    samples: list
    unit: str = "ms"
    target: Target | None = None
    note: str = ""

    @property
    def median(self):
        return statistics.median(self.samples) if self.samples else None

    @property
    def quartiles(self):
        """The first and the third; none for a single measurement."""
        if len(self.samples) < 2:
            return None
        first, _, third = statistics.quantiles(self.samples, n=4)
        return first, third

    def ratio(self, reference):
        """The median of the ratios within a turn; of the medians if their numbers of turns differ."""
        if reference is None or reference is self or not reference.median or not self.samples:
            return None
        if len(self.samples) != len(reference.samples):
            return self.median / reference.median
        return statistics.median(one / other for one, other in zip(self.samples, reference.samples, strict=True))


@dataclasses.dataclass
class Section:
    """Rows that belong together. With a reference, the name of one of them, each has its ratio to it."""

    title: str
    rows: list
    reference: str | None = None

    def reference_row(self):
        return next((row for row in self.rows if row.name == self.reference), None)

    def figures(self):
        """As plain data."""
        reference = self.reference_row()
        rows = []
        for row in self.rows:
            ratio = row.ratio(reference)
            figures = {"name": row.name, "unit": row.unit, "median": row.median, "n": len(row.samples)}
            if row.quartiles:
                figures["q1"], figures["q3"] = row.quartiles
            if ratio is not None:
                figures["ratio"] = ratio
            if row.target:
                figures["target"] = dataclasses.asdict(row.target)
                figures["met"] = is_met(row, ratio)
            if row.note:
                figures["note"] = row.note
            rows.append(figures)
        return {"title": self.title, "reference": self.reference, "rows": rows}


def is_met(row, ratio):
    value = ratio if row.target.of == "ratio" else row.median
    return value is not None and value <= row.target.most


def number(value):
    """With about three significant digits."""
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}" if value < 10 else f"{value:.1f}"


def table(sections):
    """Lines for people, with the same columns in all sections."""
    for section in sections:
        reference = section.reference_row()
        over = f"/ {reference.name}" if reference else ""
        yield f"{section.title:44}{'median':>12}{'quartiles':>18}{'n':>5}{over:>10}"
        for row in section.rows:
            quartiles = "-".join(number(value) for value in row.quartiles) if row.quartiles else ""
            ratio = row.ratio(reference)
            ratio_text = f"{ratio:.2f}" if ratio is not None else ""
            median = f"{number(row.median)} {row.unit}".strip() if row.samples else "-"
            remarks = [row.note] if row.note else []
            if row.target:
                unit = "" if row.target.of == "ratio" else f" {row.unit}".rstrip()
                kind = "ratio " if row.target.of == "ratio" else ""
                met = "met" if is_met(row, ratio) else "MISSED"
                remarks.append(f"target {kind}{row.target.most:g}{unit}: {met}")
            yield f"  {row.name:42}{median:>12}{quartiles:>18}{len(row.samples):5}{ratio_text:>10}  {'; '.join(remarks)}"
        yield ""


def milliseconds(nanoseconds):
    return [value / 1e6 for value in nanoseconds]
