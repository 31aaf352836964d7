"""Results as Markdown: a table of medians with ratios round by round, and the bars that mxgate sets itself."""

import dataclasses

import stats

OWN = "mxgate"
# Ratios are shown to these, where they were measured.
AGAINST = ("nginx", "envoy")
TITLES = {"mxgate": "mxgate", "nginx": "nginx", "haproxy": "HAProxy", "envoy": "Envoy", "caddy": "Caddy"}


@dataclasses.dataclass(frozen=True)
class Line:
    """One figure of the table."""

    label: str
    stage: str
    figure: str
    decimals: int = 1
    more_is_better: bool = False


@dataclasses.dataclass(frozen=True)
class Bar:
    """What mxgate has to keep in the median of rounds. `against`: it is a ratio to that proxy. `firm`: the worst quartile has to
    keep it as well."""

    label: str
    stage: str
    figure: str
    most: float
    against: str | None = None
    firm: bool = False


LINES = [
    Line("CPU a request, 1 core (µs)", "one core", "cpu_us"),
    Line("… of it user mode", "one core", "user_us"),
    Line("CPU a request, 2 cores (µs)", "two cores", "cpu_us"),
    Line("… of it user mode", "two cores", "user_us"),
    Line("CPU a request at 5,000/s (µs)", "5,000/s", "cpu_us"),
    Line("Cores busy, 1 core", "one core", "busy_cores", 2, more_is_better=True),
    Line("Requests/s, 1 core", "one core", "rate", 0, more_is_better=True),
    Line("Requests/s, 2 cores", "two cores", "rate", 0, more_is_better=True),
    Line("CPU per GB, 64 KB answers (s)", "64 KB", "s_per_gb", 2),
    Line("CPU per GB, 1 MB answers (s)", "1 MB", "s_per_gb", 2),
    Line("p50 at 1,000/s (µs)", "1,000/s", "p50_us", 0),
    Line("… added to the upstream's own", "1,000/s", "added_p50_us", 0),
    Line("p99 at 1,000/s (µs)", "1,000/s", "p99_us", 0),
    Line("p50 at 5,000/s (µs)", "5,000/s", "p50_us", 0),
    Line("… added to the upstream's own", "5,000/s", "added_p50_us", 0),
    Line("p99 at 5,000/s (µs)", "5,000/s", "p99_us", 0),
    Line("RSS idle (MiB)", "memory", "idle_rss"),
    Line("PSS idle (MiB)", "memory", "idle_pss"),
    Line("RSS, 2,000 idle connections (MiB)", "memory", "held_rss"),
    Line("PSS, 2,000 idle connections (MiB)", "memory", "held_pss"),
    Line("Cold start (ms)", "cold start", "cold_start_ms", 0),
    Line("Binary (MB)", "binary", "megabytes"),
]

BARS = [
    *(
        Bar(f"CPU a request, {cores}", stage, "cpu_us", most, peer, firm=True)
        for stage, cores in (("one core", "1 core"), ("two cores", "2 cores"))
        for peer, most in (("nginx", 1.0), ("envoy", 0.5))
    ),
    Bar("CPU per GB, 1 MB answers", "1 MB", "s_per_gb", 1.1, "nginx"),
    Bar("Added p50 at 1,000/s", "1,000/s", "added_p50_us", 1.0, "nginx"),
    Bar("Added p50 at 5,000/s", "5,000/s", "added_p50_us", 1.0, "nginx"),
    Bar("RSS idle (MiB)", "memory", "idle_rss", 12),
    Bar("RSS, 2,000 idle connections (MiB)", "memory", "held_rss", 28),
    Bar("Cold start (ms)", "cold start", "cold_start_ms", 50),
    Bar("Binary (MB)", "binary", "megabytes", 15),
]


def by_round(results, stage, proxy, figure):
    """One figure of one proxy: a mapping of round to value."""
    return {
        one["round"]: one["figures"][figure]
        for one in results
        if (one["stage"], one["proxy"]) == (stage, proxy) and figure in one["figures"]
    }


def proxies_in(results):
    """The proxies that were measured, in the order of `TITLES`."""
    measured = {one["proxy"] for one in results}
    return [proxy for proxy in TITLES if proxy in measured]


def table(results):
    """Medians of all proxies; then mxgate's ratios, as "median (worst quartile)" of those of each round."""
    proxies = proxies_in(results)
    against = [proxy for proxy in AGAINST if proxy in proxies]
    rows = [["", *(TITLES[proxy] for proxy in proxies), *(f"{OWN} / {TITLES[proxy]}" for proxy in against)]]
    for line in LINES:
        values = {proxy: by_round(results, line.stage, proxy, line.figure) for proxy in proxies}
        if any(values.values()):
            rows.append(
                [
                    line.label,
                    *(middle(values[proxy], line.decimals) for proxy in proxies),
                    *(ratio(values[OWN], values[proxy], line.more_is_better) for proxy in against),
                ]
            )
    return markdown(rows)


def bars(results):
    """Each bar with what was measured, and whether it was kept."""
    rows = [["bar", "at most", "measured (worst quartile)", ""]]
    for bar in BARS:
        own = by_round(results, bar.stage, OWN, bar.figure)
        if bar.against:
            each = stats.ratios(own, by_round(results, bar.stage, bar.against, bar.figure))
            label, most = f"{bar.label}, to {TITLES[bar.against]}", f"{bar.most:.2f}"
        else:
            each = list(own.values())
            label, most = bar.label, f"{bar.most:g}"
        if each:
            rows.append(
                [
                    label,
                    most,
                    f"{stats.median(each):.2f} ({stats.worst_quartile(each):.2f})",
                    "kept" if kept(bar, each) else "**missed**",
                ]
            )
    return markdown(rows) if len(rows) > 1 else ""


def kept(bar, each):
    return (stats.worst_quartile(each) if bar.firm else stats.median(each)) <= bar.most


def middle(values, decimals):
    return f"{stats.median(values.values()):,.{decimals}f}" if values else ""


def ratio(own, other, more_is_better=False):
    each = stats.ratios(own, other)
    if not each:
        return ""
    worst = stats.percentile(each, 25) if more_is_better else stats.worst_quartile(each)
    return f"{stats.median(each):.2f} ({worst:.2f})"


def markdown(rows):
    """The first row is the heads; all columns but the first are set right."""
    ruled = [rows[0], ["---"] + ["---:"] * (len(rows[0]) - 1), *rows[1:]]
    return "".join("| " + " | ".join(row) + " |\n" for row in ruled)


def section(run):
    """What stands between the markers of docs/performance.md."""
    machine, versions = run["machine"], run["versions"]
    shown = ", ".join(f"{TITLES[proxy]} {versions[proxy]}" for proxy in proxies_in(run["results"]))
    return (
        f"Measured on {run['date']}: {machine['cores']} cores of an {machine['cpu']}, Linux {machine['kernel']}, "
        f"{machine['system']}; {shown}. {run['rounds']} rounds, {run['seconds']} s each load. "
        f"Load average before: {machine['load']:.2f}.\n\n"
        f"{table(run['results'])}\n{bars(run['results'])}"
    )


def between(document, text, begin="<!-- compare:begin -->", end="<!-- compare:end -->"):
    """The document with its marked section replaced."""
    head, found, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{begin} and {end} are not both there")
    return f"{head}{begin}\n{text}{end}{tail}"
