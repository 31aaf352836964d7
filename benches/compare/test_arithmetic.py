"""The arithmetic of the comparison: `python3 -m unittest discover benches/compare`."""

import collections
import dataclasses
import os
import subprocess
import sys
import unittest

import measure
import procfs
import report
import scene
import stats
import upstream


class Percentiles(unittest.TestCase):
    def test_lie_between_neighbours(self):
        self.assertEqual(stats.percentile([4, 1, 3, 2], 50), 2.5)
        self.assertEqual(stats.percentile([4, 1, 3, 2], 75), 3.25)
        self.assertEqual(stats.percentile([1, 2, 3], 0), 1)
        self.assertEqual(stats.percentile([1, 2, 3], 100), 3)
        self.assertEqual(stats.percentile([7], 99), 7)

    def test_of_nothing_is_nothing_and_of_no_percentage_a_fault(self):
        self.assertIsNone(stats.percentile([], 50))
        with self.assertRaises(ValueError):
            stats.percentile([1], 101)

    def test_the_worst_quartile_is_the_dear_end(self):
        self.assertEqual(stats.worst_quartile([1.0, 1.1, 0.9, 1.2, 0.8]), 1.1)
        self.assertNotEqual(stats.worst_quartile([1.0, 1.1, 0.9, 1.2, 0.8]), 0.9)


class Ratios(unittest.TestCase):
    def test_compare_the_same_round(self):
        self.assertEqual(stats.ratios({0: 10, 1: 30}, {0: 20, 1: 20}), [0.5, 1.5])

    def test_leave_out_rounds_that_one_lacks_or_that_were_nothing(self):
        self.assertEqual(stats.ratios({0: 10, 1: 30, 2: 1}, {1: 20, 2: 0}), [1.5])

    def test_are_not_the_ratio_of_medians(self):
        own, other = {0: 1, 1: 2, 2: 30}, {0: 1, 1: 4, 2: 20}
        self.assertEqual(stats.median(stats.ratios(own, other)), 1.0)
        self.assertNotEqual(stats.median(own.values()) / stats.median(other.values()), 1.0)


class ProcessStat(unittest.TestCase):
    LINE = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 150 250 30 40 20 0 3 0 100 1000 200 18446744073709551615\n"

    def test_a_name_with_spaces_and_parentheses(self):
        stat = procfs.parse_stat(self.LINE)
        self.assertEqual(stat, procfs.Stat(parent=7, user=150, system=250, children_user=30, children_system=40))

    def test_a_line_that_is_none(self):
        for text in ("", "42 nginx S 7", "42 (nginx) S 7"):
            with self.assertRaises((ValueError, IndexError)):
                procfs.parse_stat(text)

    def test_descendants_of_every_depth_and_no_others(self):
        self.assertEqual(procfs.below(10, {10: 1, 11: 10, 12: 11, 13: 12, 20: 1, 21: 20}), [10, 11, 12, 13])

    def test_time_of_a_process_and_its_child_is_seen(self):
        burn = "import time\nwhile time.process_time() < 0.25: pass\nprint(flush=True); input()"
        nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
        with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
            busy.stdout.readline()
            self.assertEqual(len(procfs.processes(busy.pid)), 2)
            self.assertGreaterEqual(procfs.cpu(busy.pid).total, 0.15)
            self.assertNotIn(os.getpid(), procfs.processes(busy.pid))
            busy.communicate(b"\n")

    def test_memory_of_a_roll_up(self):
        text = "5580-7ffd ---p 00000000 00:00 0 [rollup]\nRss:  2048 kB\nPss:  1024 kB\nPss_Dirty:  1 kB\n"
        self.assertEqual(procfs.parse_smaps_rollup(text), procfs.Memory(2.0, 1.0))
        with self.assertRaises(KeyError):
            procfs.parse_smaps_rollup("Rss: 2048 kB\n")


Named = collections.namedtuple("Named", "name")


class Rounds(unittest.TestCase):
    def test_the_order_shifts(self):
        self.assertEqual(
            [measure.rotated(["a", "b", "c"], n) for n in (0, 1, 2, 3)],
            [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]],
        )

    def test_a_turn_that_goes_wrong_leaves_a_gap_and_is_counted(self):
        def turn(_, peer):
            if peer.name == "envoy":
                raise scene.Fault("it fell over")
            return {"cpu_us": 1.0}

        said = []
        stages = [measure.Stage("one core", turn)]
        results, wrong = measure.rounds(
            None, [Named("nginx"), Named("envoy")], stages, 2, lambda *seen: said.append(seen)
        )
        self.assertEqual([(one["round"], one["proxy"]) for one in results], [(0, "nginx"), (1, "nginx")])
        self.assertEqual(wrong, 2)
        self.assertIn((0, "one core", "envoy", "FAILED: it fell over"), said)

    def test_what_a_proxy_adds_is_against_the_same_round(self):
        turns = {"direct": {"p50_us": 70}, "nginx": {"p50_us": 160}}
        measure.add_what_each_adds(turns)
        self.assertEqual(turns["nginx"]["added_p50_us"], 90)
        self.assertNotIn("added_p50_us", turns["direct"])

    def test_every_line_and_bar_names_a_stage_that_exists(self):
        stages = {stage.name for stage in measure.FULL} | {"binary"}
        self.assertLessEqual({one.stage for one in report.LINES + report.BARS}, stages)
        with self.assertRaises(scene.Fault):
            measure.named(["no such stage"])

    def test_answers_have_exactly_their_size(self):
        for size in scene.BODY_BYTES.values():
            self.assertEqual(len(upstream.body(size)), size)


def results(**figures):
    """One figure of one stage for each proxy, a value a round."""
    return [
        {"round": number, "stage": "one core", "proxy": proxy, "figures": {"cpu_us": value}}
        for proxy, values in figures.items()
        for number, value in enumerate(values)
    ]


class Report(unittest.TestCase):
    def test_medians_and_the_ratio_of_each_round(self):
        table = report.table(results(mxgate=[10, 20, 30], nginx=[20, 20, 20]))
        self.assertIn("| CPU a request, 1 core (µs) | 20.0 | 20.0 | 1.00 (1.25) |", table)

    def test_what_was_not_measured_is_not_in_it(self):
        table = report.table(results(mxgate=[10], nginx=[20]))
        self.assertNotIn("Envoy", table)
        self.assertNotIn("p50", table)

    def test_a_firm_bar_holds_in_the_worst_quartile_too(self):
        self.assertIn("| 1.00 | 0.50 (0.50) | kept |", report.bars(results(mxgate=[10, 10, 10], nginx=[20, 20, 20])))
        # The median keeps it, the worst quartile does not.
        missed = report.bars(results(mxgate=[10, 20, 30], nginx=[20, 20, 20]))
        self.assertIn("| 1.00 | 1.00 (1.25) | **missed** |", missed)

    def test_other_bars_hold_in_the_median(self):
        bar = report.Bar("", "", "", 1.0, "nginx")
        self.assertTrue(report.kept(bar, [0.5, 1.0, 1.5]))
        self.assertFalse(report.kept(bar, [0.5, 1.1, 1.5]))
        self.assertFalse(report.kept(dataclasses.replace(bar, firm=True), [0.5, 1.0, 1.5]))

    def test_more_requests_are_better(self):
        self.assertEqual(report.ratio({0: 1, 1: 2, 2: 3}, {0: 2, 1: 2, 2: 2}, more_is_better=True), "1.00 (0.75)")

    def test_only_the_marked_section_is_replaced(self):
        document = "before\n<!-- compare:begin -->\nold\n<!-- compare:end -->\nafter\n"
        replaced = report.between(document, "new\n")
        self.assertEqual(replaced, "before\n<!-- compare:begin -->\nnew\n<!-- compare:end -->\nafter\n")
        with self.assertRaises(ValueError):
            report.between("no markers", "new\n")


if __name__ == "__main__":
    unittest.main()
