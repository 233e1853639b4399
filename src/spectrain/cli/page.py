"""The pieces of a page that opens offline: one look, tables that sort by a click, figures inside the file."""

import base64
import html
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; color: #222; }
h1 { font-size: 1.6rem; overflow-wrap: anywhere; } h3 { font-size: 1rem; margin: 1.5rem 0 0; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
.one th:nth-child(2), .one td:nth-child(2) { text-align: right; }
.one th:first-child, .one td:first-child { position: sticky; left: 0; background: #fff; }
th { border-bottom: 2px solid #888; } .sortable th { cursor: pointer; user-select: none; }
tr.ours td { background: #eef6fb; } tr.best td { font-weight: 600; }
.wide { overflow-x: auto; } figure { margin: 1rem 0; overflow-x: auto; }
svg, img { max-width: 100%; height: auto; } figure svg { width: 52rem; }
figcaption { font-size: .85rem; color: #555; }
code { font-size: .8rem; background: #f5f5f5; padding: .1rem .3rem; white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .3rem 0; } summary { cursor: pointer; }
@media (max-width: 40rem) {
  figure svg { max-width: none; width: 36rem; } figure img { max-width: 36rem; }
  .one td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
}
"""
SORT = """
document.querySelectorAll('table.sortable th').forEach(th => th.addEventListener('click', () => {
  const body = th.closest('table').tBodies[0], column = th.cellIndex;
  const falling = th.dataset.order === 'rising'; th.dataset.order = falling ? 'falling' : 'rising';
  const value = row => { const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    return text === '' || isNaN(text) ? text : Number(text); };
  [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
    return (x > y ? 1 : x < y ? -1 : 0) * (falling ? -1 : 1); }).forEach(row => body.append(row));
}));
"""


def write_document(path: Path, title: str, body: str) -> Path:
    """Write the page, whole: no other file is needed to show it."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    path.write_text(
        f'<!doctype html><html lang="en"><head>{head}<title>{html.escape(title)}</title><style>{STYLE}</style></head>'
        f"<body>{body}<script>{SORT}</script></body></html>\n",
        encoding="utf-8",
    )
    return path


def table(names: Sequence[str], rows: Iterable[str], kind: str = "sortable") -> str:
    """A table under a head of `names`; `rows` are <tr> elements. It scrolls by itself where the page is narrow."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def row(cells: Iterable[str], kind: str = "") -> str:
    """A <tr> of <td> elements."""
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def text_cell(value: Any) -> str:
    """A <td> of any text."""
    return f"<td>{html.escape(str(value))}</td>"


def number_cell(value: float, shown: str = "") -> str:
    """A <td> of a number, sorted by all its digits; `shown` in place of the first four of them."""
    sorted_by = value if math.isfinite(value) else math.copysign(1e300, value)  # a script knows no "inf"
    return f'<td data-value="{sorted_by}">{shown or number(value)}</td>'


def number(value: float) -> str:
    """Four digits; words for what is not finite: what is to be low was not reached, what is to be high has failed."""
    return f"{value:.4g}" if math.isfinite(value) else {math.inf: "not reached", -math.inf: "failed"}.get(value, "–")


def figure(content: str, caption: str = "") -> str:
    """A figure of an <svg> or <img> element."""
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{content}{below}</figure>"


def image(path: Path) -> str:
    """A PNG or GIF as an <img> element that carries it, as wide as the figure: saved PNGs have two pixels for one.

    Of a file that is no whole picture, as a full disk leaves it, a line that says so.
    """
    try:
        with Image.open(path) as opened:
            width = opened.width // (2 if opened.format == "PNG" else 1)
            opened.load()
        data = base64.b64encode(path.read_bytes()).decode()
    except (OSError, SyntaxError, ValueError):  # what PIL makes of damaged files
        return f"<p>{html.escape(path.name)} is damaged and left out.</p>"
    kind = path.suffix.lstrip(".").lower()
    return f'<img width="{width}" alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{data}">'
