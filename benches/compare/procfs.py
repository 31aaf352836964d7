"""What the kernel says about a proxy: CPU time and memory of all its processes.

CPU time is that of whole processes (`/proc/PID/stat`, every thread, those that have ended included), so it holds for a
proxy of one process and one of five alike. The kernel counts it in ticks of 10 ms: a measurement has to burn seconds.
"""

import dataclasses
import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Stat:
    """The fields of one process's `stat` that count here. Times in ticks; `children_*`: of children it waited for."""

    parent: int
    user: int
    system: int
    children_user: int
    children_system: int


@dataclasses.dataclass(frozen=True)
class Cpu:
    """CPU seconds of a process and all below it."""

    user: float
    system: float

    @property
    def total(self):
        return self.user + self.system

    def since(self, earlier):
        return Cpu(self.user - earlier.user, self.system - earlier.system)


@dataclasses.dataclass(frozen=True)
class Memory:
    """MiB. RSS counts a page once for every process that has it; PSS divides it among those that share it."""

    rss: float
    pss: float


def parse_stat(text):
    """One line of `/proc/PID/stat`. The name is in parentheses and may hold spaces and parentheses (proc(5))."""
    fields = text[text.rindex(")") + 1 :].split()
    # proc(5) numbers fields from 1 and the first one here is its field 3.
    parent, user, system, children_user, children_system = (int(fields[n - 3]) for n in (4, 14, 15, 16, 17))
    return Stat(parent, user, system, children_user, children_system)


def parse_smaps_rollup(text):
    """RSS and PSS of one process, of `/proc/PID/smaps_rollup`."""
    kib = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "kB":
            kib[words[0]] = int(words[1])
    return Memory(kib["Rss:"] / 1024, kib["Pss:"] / 1024)


def below(root, parents):
    """The process `root` and all its descendants, by a mapping of each process to its parent."""
    family = {root}
    grew = True
    while grew:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grew = bool(more)
    return sorted(family)


def processes(root):
    """The processes of a proxy that was started as `root`."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = parse_stat((entry / "stat").read_text()).parent
            except OSError:
                continue  # it ended meanwhile
    return below(root, parents)


def cpu(root):
    """CPU time so far of a proxy, children that have ended included."""
    user = system = 0
    for pid in processes(root):
        stat = parse_stat(Path(f"/proc/{pid}/stat").read_text())
        user += stat.user + stat.children_user
        system += stat.system + stat.children_system
    return Cpu(user / TICKS_PER_SECOND, system / TICKS_PER_SECOND)


def memory(root):
    """Memory of a proxy: the sum over its processes."""
    each = [parse_smaps_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in processes(root)]
    return Memory(sum(one.rss for one in each), sum(one.pss for one in each))
