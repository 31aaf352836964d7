"""Medians and ratios as a Markdown table."""

import stats

# Label, stage, figure, decimals. More is worse in every line but the rates'.
LINES = [
    ("CPU a request, 1 core (µs)", "one core", "cpu_us", 1),
    ("… of it user mode", "one core", "user_us", 1),
    ("CPU a request, 2 cores (µs)", "two cores", "cpu_us", 1),
    ("… of it user mode", "two cores", "user_us", 1),
    ("Requests/s, 1 core", "one core", "rate", 0),
    ("Requests/s, 2 cores", "two cores", "rate", 0),
    ("CPU per GB, 64 KB answers (s)", "64 KB", "s_per_gb", 2),
    ("CPU per GB, 1 MB answers (s)", "1 MB", "s_per_gb", 2),
    ("RSS idle (MiB)", "memory", "idle_rss", 1),
    ("PSS idle (MiB)", "memory", "idle_pss", 1),
    ("RSS, 2,000 idle connections (MiB)", "memory", "held_rss", 1),
    ("PSS, 2,000 idle connections (MiB)", "memory", "held_pss", 1),
    ("Cold start (ms)", "cold start", "cold_start_ms", 0),
]


def by_round(results, stage, proxy, figure):
    """One figure of one proxy: a mapping of round to value."""
    return {one["round"]: one["figures"][figure] for one in results
            if (one["stage"], one["proxy"]) == (stage, proxy) and figure in one["figures"]}


def table(results, proxies, own="mxgate", against=("nginx", "envoy")):
    """Medians of all proxies; then mxgate's ratio to some, as "median (worst quartile)" of the ratios of each round."""
    against = [proxy for proxy in against if proxy in proxies]
    heads = ["", *proxies, *(f"{own} / {proxy}" for proxy in against)]
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    for label, stage, figure, decimals in LINES:
        values = {proxy: by_round(results, stage, proxy, figure) for proxy in proxies}
        if not any(values.values()):
            continue
        row = [label]
        for proxy in proxies:
            middle = stats.median(values[proxy].values())
            row.append("" if middle is None else f"{middle:,.{decimals}f}")
        for proxy in against:
            row.append(ratio(values[own], values[proxy]))
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def ratio(own, other):
    each = stats.ratios(own, other)
    return f"{stats.median(each):.2f} ({stats.worst_quartile(each):.2f})" if each else ""
