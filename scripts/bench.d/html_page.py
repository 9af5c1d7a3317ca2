"""The figures as a page with plots: one file, without a script, for a screen and for paper. The style is that of
mcp-launch compare --html."""

import math
from html import escape
from pathlib import Path

from figures import is_met, number

STYLE = Path(__file__).parents[2] / "src" / "compare" / "page" / "report.css"
# With more than this between the lowest and the highest value of a section, its axis is logarithmic.
WIDE = 30


class Axis:
    """From values to places between 0 and 100."""

    def __init__(self, values):
        known = [value for value in values if value > 0] or [1]
        self.low, self.high = min(known), max(known)
        self.logarithmic = self.high > WIDE * self.low
        if self.logarithmic:
            self.low, self.high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))

    def place(self, value):
        if not self.logarithmic:
            place = value / self.high
        elif value <= 0:
            place = 0
        else:
            place = (math.log10(value) - self.low) / (self.high - self.low)
        return 100 * min(1, max(0, place))

    def text(self):
        if not self.logarithmic:
            return f"0 to {number(self.high)}"
        return f"{number(10**self.low)} to {number(10**self.high)}, logarithmic"


def line(kind, start, end, top, bottom):
    return f'<line class="{kind}" x1="{start:.2f}" y1="{top}" x2="{end:.2f}" y2="{bottom}"/>'


def strip(row, axis, reference):
    """The median, the quartiles and each measurement of a row, beside its target and the median of the reference."""
    marks = ['<line x1="0" y1="0" x2="0" y2="20"/>', line("track", 0, 100, 10, 10)]
    if reference is not None and reference.unit == row.unit and reference.samples:
        marks.append(line("reference", axis.place(reference.median), axis.place(reference.median), 0, 20))
    if row.target and row.target.of == "median":
        marks.append(line("target", axis.place(row.target.most), axis.place(row.target.most), 0, 20))
    for value in row.samples if len(row.samples) > 1 else []:
        marks.append(line("sample", axis.place(value), axis.place(value), 7, 13))
    if row.quartiles:
        first, third = row.quartiles
        marks.append(line("range", axis.place(first), axis.place(third), 10, 10))
    if row.samples:
        marks.append(line("median", axis.place(row.median), axis.place(row.median), 4, 16))
    kind = "second" if row is reference else "first"
    return (
        f'<svg class="{kind}" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">{"".join(marks)}</svg>'
    )


def target(row, ratio):
    if not row.target:
        return ""
    unit = "" if row.target.of == "ratio" else f" {row.unit}"
    kind = "ratio " if row.target.of == "ratio" else ""
    met = "met" if is_met(row, ratio) else "missed"
    return f'{kind}at most {row.target.most:g}{escape(unit)}: <span class="{met}">{met}</span>'


def cells(row, axis, reference):
    ratio = row.ratio(reference)
    quartiles = "–".join(number(value) for value in row.quartiles) if row.quartiles else ""
    remarks = "; ".join(text for text in [escape(row.note), target(row, ratio)] if text)
    yield f"<th>{escape(row.name)}</th>"
    yield f'<td class="strip">{strip(row, axis, reference)}</td>'
    median = f"{number(row.median)} {row.unit}".strip() if row.samples else "–"
    yield f"<td><strong>{escape(median)}</strong></td>"
    yield f"<td>{quartiles}</td><td>{len(row.samples)}</td>"
    yield f"<td>{'' if ratio is None else f'{ratio:.2f}'}</td>"
    yield f'<td class="text">{remarks}</td>'


def shown(row):
    """Every value that its strip has to have room for."""
    yield from row.samples
    if row.target and row.target.of == "median":
        yield row.target.most


def table(section):
    reference = section.reference_row()
    axes = {}
    for unit in {row.unit for row in section.rows}:
        axes[unit] = Axis([value for row in section.rows if row.unit == unit for value in shown(row)])
    scales = "; ".join(f"{unit} {axis.text()}".strip() for unit, axis in sorted(axes.items()))
    over = f"/ {escape(reference.name)}" if reference else ""
    yield f"<h2>{escape(section.title)}</h2>"
    yield '<div class="card scroll"><table class="strips"><thead><tr>'
    yield f'<th></th><th class="strip text">{escape(scales)}</th><th>Median</th><th>Quartiles</th><th>n</th>'
    yield f'<th>{over}</th><th class="text"></th></tr></thead><tbody>'
    for row in section.rows:
        yield f"<tr>{''.join(cells(row, axes[row.unit], reference))}</tr>"
    yield "</tbody></table></div>"


def page(machine, sections):
    """The whole page."""
    title = "What mcp-launch costs and achieves"
    host = f"{machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']}, load {machine['load']:.1f}"
    lines = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title>\n<style>{STYLE.read_text()}</style>\n</head>\n<body>\n<h1>{title}</h1>",
        f'<p class="soft">{escape(host)}</p><p class="soft">{escape(", ".join(machine["versions"]))}</p>',
        '<p class="soft">Thick: the median. Wide: from the first to the third quartile. Thin: each measurement. '
        'Dashed red: the target. Dotted: the median of what it is compared with.</p>',
        *(text for section in sections for text in table(section)),
        "</body>\n</html>\n",
    ]
    return "\n".join(lines)
