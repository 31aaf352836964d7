"""The result as a picture: CPU a request and what a hop adds, a bar for each proxy. SVG, written by hand.

The colours are of Okabe and Ito's palette, which people with any colour vision tell apart; kernel and user mode differ
in lightness too, and every bar has its number. The white ground is there for pages that are dark.
"""

from xml.sax.saxutils import escape

import report
import stats

KERNEL, USER, PLAIN, INK, FAINT = "#0072b2", "#e69f00", "#009e73", "#1a1a1a", "#6b6b6b"
WIDTH, LEFT, RIGHT = 860, 90, 70
BAR, GAP, HEAD = 20, 9, 58


def svg(run):
    """A panel above the other for each figure that was measured."""
    results = run["results"]
    panels = [
        ("CPU per request at saturation, 1 core (µs)", cpu(results, "one core")),
        ("CPU per request at saturation, 2 cores (µs)", cpu(results, "two cores")),
        ("Added to the upstream's own p50 at 1,000 requests/s (µs)", added(results, "1,000/s")),
        ("Added to the upstream's own p50 at 5,000 requests/s (µs)", added(results, "5,000/s")),
    ]
    drawn, top = [], 44
    for title, bars in panels:
        if bars:
            drawn.append(panel(title, bars, top))
            top += HEAD + len(bars) * (BAR + GAP)
    height = top + 20
    what = f"mxgate beside other gateways on {run['date']}, medians of all rounds ({run['rounds']}). Less is better."
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title" font-family="system-ui, sans-serif" font-size="14">\n'
        f'<title id="title">{escape(what)}</title>\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f"{text(20, 30, what, size=16, weight=600)}\n" + "\n".join(drawn) + "\n</svg>\n"
    )


def cpu(results, stage):
    """Rows of (proxy, [(length, colour)...]): kernel mode, then user mode."""
    rows = []
    for proxy in report.proxies_in(results):
        whole, user = (middle(results, stage, proxy, figure) for figure in ("cpu_us", "user_us"))
        if whole is not None:
            rows.append((proxy, [(whole - user, KERNEL), (user, USER)]))
    return rows


def added(results, stage):
    rows = []
    for proxy in report.proxies_in(results):
        value = middle(results, stage, proxy, "added_p50_us")
        if value is not None:
            rows.append((proxy, [(max(value, 0), PLAIN)]))
    return rows


def middle(results, stage, proxy, figure):
    return stats.median(report.by_round(results, stage, proxy, figure).values())


def panel(title, rows, top):
    """A title, a legend where there are two colours, the bars on one scale from 0."""
    longest = max(sum(length for length, _ in parts) for _, parts in rows) or 1
    scale = (WIDTH - LEFT - RIGHT) / longest
    shapes = [text(20, top + 24, title, weight=600)]
    if any(len(parts) > 1 for _, parts in rows):
        for x, colour, label in ((560, KERNEL, "kernel mode"), (690, USER, "user mode")):
            shapes.append(f'<rect x="{x}" y="{top + 13}" width="13" height="13" fill="{colour}"/>')
            shapes.append(text(x + 19, top + 24, label))
    y = top + 38
    for proxy, parts in rows:
        own = proxy == report.OWN
        shapes.append(text(LEFT - 10, y + 15, report.TITLES[proxy], anchor="end", weight=700 if own else 400))
        x = LEFT
        for length, colour in parts:
            shapes.append(f'<rect x="{x:.1f}" y="{y}" width="{length * scale:.1f}" height="{BAR}" fill="{colour}"/>')
            x += length * scale
        whole = sum(length for length, _ in parts)
        shapes.append(text(x + 7, y + 15, f"{whole:,.{1 if whole < 100 else 0}f}", weight=700 if own else 400))
        y += BAR + GAP
    shapes.append(f'<line x1="{LEFT}" y1="{top + 34}" x2="{LEFT}" y2="{y - GAP + 4}" stroke="{FAINT}"/>')
    return "\n".join(shapes)


def text(x, y, what, size=14, weight=400, anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{INK}">{escape(what)}</text>'
    )
