"""The paper's Tables 4-8 and the schematic of its protocol in the report of its own tables."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from tests.race import race
from timetrial.tracking.report import write_paper_report
from timetrial.tracking.report.cells import Cell, Table
from timetrial.tracking.report.paper import published, read
from timetrial.tracking.report.results import ReportOptions, results_of
from timetrial.tracking.report.section import Section, Text
from timetrial.tracking.report.sections import paper_tables, protocol
from timetrial.tracking.scores.resampling import Bootstrap


@pytest.fixture(scope="module")
def section() -> Section:
    found = paper_tables.section(published())
    assert found is not None
    return found


def row(table: Table, *names: str) -> list[str]:
    """The texts of the row that starts with these cells."""
    texts = [[cell.text for cell in cells] for cells in table.body]
    return next(line for line in texts if line[: len(names)] == list(names))


def test_every_table_has_its_number_and_all_its_rows(section: Section):
    titles = [table.title.split(":")[0] for table in section.tables]
    assert titles == [f"Table {number}" for number in range(4, 9)]
    assert [len(table.body) for table in section.tables] == [4, 4, 8, 8, 5]
    for table in section.tables:
        assert all(len(cells) == len(table.header) for cells in table.body)
        assert not table.spans or sum(n for _, n in table.spans) == len(table.header) - 1
    source = section.blocks[0]
    assert isinstance(source, Text)
    assert "https://arxiv.org/abs/2310.18191" in source.text


def test_tables_4_to_8_hold_the_papers_numbers(section: Section):
    four, five, six, seven, eight = section.tables
    assert row(four, "criteo1tb")[1:5] == ["nadamw", "10,667", "10,666", "7,703"]
    assert row(four, "criteo1tb")[5] == "0.7221"  # 0.7221336833 in appendix A
    assert row(five, "ogbg")[1:] == ["4,000", "743", "0.185745", "666", "0.1665", "1",
                                     "14,859", "14,859"]  # fmt: skip
    assert row(six, "imagenet_resnet", "time control")[2:] == ["81,783 s", "accuracy", "0.98709",
                                                               "0.71012"]  # fmt: skip
    assert row(six, "criteo1tb", "step control")[2:] == ["7,000 steps", "CE loss", "0.1225",
                                                         "0.12408"]  # fmt: skip
    assert row(seven, "fastmri", "2")[2:] == ["2", "65,576", "17,863", "0.2724014883", "37,841",
                                              "38,034", "37,160", "27,870"]  # fmt: skip
    # What the paper's code told VeLO Short.
    short = {cells[0].text: cells[-1].text for cells in seven.body}
    assert short == {"criteo1tb": "5,658", "fastmri": "27,870", "imagenet_resnet": "117,720",
                     "ogbg": "56,229"}  # fmt: skip
    assert row(eight, "nadamw")[1:] == ["0.01", "0.004", "0.9", "0.999", "–", "warmup cosine",
                                        "0.05", "0.0001"]  # fmt: skip
    assert row(eight, "nesterov")[1:] == ["0.05", "–", "–", "–", "0.9", "constant", "–", "–"]


def test_the_printed_steps_of_fastmri_are_marked_and_explained(section: Section):
    four = section.tables[0]
    bad = [cells[0].text for cells in four.body if any(cell.kind == "bad" for cell in cells)]
    assert bad == ["fastmri"]
    assert next(c for c in four.body if c[0].text == "fastmri")[2] == Cell("38,189", kind="bad")
    first, second, _ = paper_tables.remarks(read("hardware_calibration.csv"))
    assert first.startswith("4 of 4 budgets of Table 5 follow")
    assert "prints 38,189 steps, AlgoPerf’s step hint is 36,189" in second
    assert "budget of 10,308 s follows from the printed number" in second
    assert "would give 9,768 s" in second  # 36,189 steps of 0.2699386503 s
    assert math.floor(36_189 * 0.2699386503) == 9_768


def test_a_budget_that_does_not_follow_is_counted():
    rows = read("hardware_calibration.csv")
    rows.loc[0, "max_allowed_time_s"] += 1
    assert paper_tables.remarks(rows)[0].startswith("3 of 4 budgets")


def test_a_race_has_neither_section():
    results = results_of(race(conditions=("step",)), ReportOptions(bootstrap=Bootstrap(samples=9)))
    assert paper_tables.section(results) is None
    assert protocol.section(results) is None


def test_the_schematic_follows_the_protocol():
    standing = protocol.example()
    end, rate = protocol.EXAMPLES["1"]["A"]
    assert standing.targets["1"] == pytest.approx(end + (1 - end) * math.exp(-0.75 * rate))
    times = standing.times
    assert times.loc["A"].to_dict() == {"1": 0.75, "2": 1.0, "3": 0.75, "4": 1.0}
    assert times.loc["B"].to_dict() == {"1": 0.95, "2": 0.75, "3": math.inf, "4": 0.75}
    # By hand, up to 1.5: A has ratios 1, 4/3, 1, 4/3 and B 19/15, 1, never, 1.
    assert standing.scores.to_dict() == pytest.approx({"A": 2 / 3, "B": (1 + 7 / 30) / 2})
    for name, curves in protocol.EXAMPLES.items():
        at_cut = {label: protocol._at(curve, 0.75) for label, curve in curves.items()}
        assert min(at_cut.values()) == standing.targets[name]


def test_the_panels_show_target_times_ratios_and_profile():
    first, second, third, fourth = protocol.panels()
    standing = protocol.example()
    assert first.target == second.target == standing.targets["1"]
    assert [line.name for line in first.lines] == ["A", "B", "75 % of the budget"]
    assert min(y for _, x, y in first.marks if x == 0.75) == first.target
    assert [(name, x) for name, x, _ in second.marks] == [("A", 0.75), ("B", 0.95)]
    assert all(y <= second.target for _, _, y in second.marks)
    assert "ratio 1.27" in second.title
    assert len(third.marks) == 7  # one of eight is never
    assert max(ratio for *_, ratio in third.marks) == pytest.approx(4 / 3)
    assert fourth.title == "Profile over 4 workloads; scores: A 0.67, B 0.62"


def test_the_papers_report_has_the_files_of_both_sections(tmp_path: Path):
    page = write_paper_report(tmp_path).read_text()
    assert page.index('id="protocol"') < page.index('id="times"') < page.index('id="paper-setup"')
    assert "after Figure 1" in page
    for number in range(4, 9):
        assert (tmp_path / "tables" / f"paper_table_{number}.tex").stat().st_size
        assert (tmp_path / "tables" / f"paper_table_{number}.md").stat().st_size
    assert (tmp_path / "plots" / "protocol.svg").stat().st_size
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "paper_step_estimates.csv"), read("velo_step_estimate.csv")
    )
