"""The report in a real browser, without a network: it opens, the plots are drawn, the tables sort."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from adatom.report import write_report
from chromium import Visit, visit
from report.fake_run import write

pytestmark = pytest.mark.browser


EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    """One page for all tests, for loading is what takes the time; each test leaves it as it found it."""
    folder = write(tmp_path_factory.mktemp("runs") / "silicon")
    sheet = json.loads((folder / "data.json").read_text())
    sheet["findings"][0]["message"] = EVIL
    (folder / "data.json").write_text(json.dumps(sheet))
    with visit(browser, write_report(folder)) as seen:
        yield seen


def test_the_page_opens_offline_without_error_warning_or_request(opened: Visit) -> None:
    assert opened.problems == []
    assert opened.requests == []
    assert opened.page.title() == "silicon · adatom report"


def test_every_plot_holds_drawn_curves_or_points(opened: Visit) -> None:
    drawn = opened.page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll(".canvas")].map((div) => [div.id, {
            marks: div.querySelectorAll(".trace path.js-line, .trace path.point, .trace .point path").length,
            width: div.querySelector("svg.main-svg")?.getBoundingClientRect().width ?? 0,
        }]))"""
    )
    assert len(drawn) == 6 + 3 + 1 + 2 * 4
    assert {name for name, plot in drawn.items() if plot["marks"] == 0 or plot["width"] < 200} == set()


def test_clicking_a_heading_sorts_largest_first_then_smallest_first(opened: Visit) -> None:
    heading = opened.page.locator("#errors-by-kind th button").nth(2)
    cells = "#errors-by-kind tbody tr td:nth-of-type(2)"

    def values() -> list[float]:
        return [float(v) for v in opened.page.eval_on_selector_all(cells, "all => all.map(c => c.dataset.value)")]

    assert len(values()) == 12
    heading.click()
    assert values() == sorted(values(), reverse=True)
    assert opened.page.locator("#errors-by-kind th[aria-sort=descending]").count() == 1
    heading.click()
    assert values() == sorted(values())
    opened.page.locator("#errors-by-kind th button").first.click()
    names = opened.page.locator("#errors-by-kind tbody th").all_inner_texts()
    assert names[:4] == ["beta-tin", "diamond", "eos", "interstitial"]
    assert names.index("md900") < names.index("md1600")  # numbers inside names count as numbers


def test_sorting_leaves_missing_values_last(opened: Visit) -> None:
    opened.page.locator(
        "#verify-table th button", has_text="Check"
    ).click()  # the row without a figure goes to the middle
    for falling in (True, False):
        opened.page.locator("#verify-table th button", has_text="Figure").click()
        cells = opened.page.eval_on_selector_all(
            "#verify-table tbody tr", "all => all.map(r => r.children[3].dataset.value)"
        )
        assert len(cells) == 14
        assert cells[-1] == ""
        assert [float(v) for v in cells[:-1]] == sorted((float(v) for v in cells[:-1]), reverse=falling)


def test_pointing_at_a_point_names_its_structure(opened: Visit) -> None:
    plot = opened.page.locator("#plot-parity-test-energy")
    plot.scroll_into_view_if_needed()
    box = plot.locator("path.point").first.bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    text = plot.locator("g.hovertext")
    text.wait_for(state="attached")
    assert "test.xyz.xz:" in (text.text_content() or "")


def test_choosing_a_kind_of_structure_sets_it_off(opened: Visit) -> None:
    points = """[...document.querySelectorAll('#plot-parity-test-forces path.point')]
        .filter(p => getComputedStyle(p).fill === 'rgb(194, 86, 10)').length"""
    assert opened.page.evaluate(points) == 0
    opened.page.select_option("select[data-highlight]", "md4000")
    assert opened.settle(points, 9 * 8 * 3) == 9 * 8 * 3
    opened.page.select_option("select[data-highlight]", "")
    assert opened.settle(points, 0) == 0


def test_the_plots_follow_the_colour_scheme(opened: Visit) -> None:
    color = "document.querySelector('#plot-nvt-pairs .xtick text').style.fill"  # the last plot of the page
    assert opened.page.evaluate(color) == "rgb(92, 102, 112)"
    opened.page.emulate_media(color_scheme="dark")
    assert opened.settle(color, "rgb(156, 166, 176)") == "rgb(156, 166, 176)"
    opened.page.emulate_media(color_scheme="light")
    assert opened.settle(color, "rgb(92, 102, 112)") == "rgb(92, 102, 112)"
    assert opened.problems == []


def test_paper_is_white_however_dark_the_screen(opened: Visit) -> None:
    page, fill = opened.page, "document.querySelector('#plot-learning-forces .xtick text').style.fill"
    page.emulate_media(color_scheme="dark")
    assert opened.settle(fill, "rgb(156, 166, 176)") == "rgb(156, 166, 176)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(fill) == "rgb(92, 102, 112)"
    width = page.evaluate("document.querySelector('main').getBoundingClientRect().width")
    widest = "Math.max(...[...document.querySelectorAll('svg.main-svg')].map(s => s.getBoundingClientRect().width))"
    assert page.evaluate(widest) <= width <= 752
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(fill) == "rgb(156, 166, 176)"
    page.emulate_media(color_scheme="light")
    assert opened.settle(fill, "rgb(92, 102, 112)") == "rgb(92, 102, 112)"


def test_a_phone_scrolls_in_one_direction_only(opened: Visit) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    assert opened.settle("document.documentElement.scrollWidth", 390) == 390  # once the plots have followed
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    assert opened.problems == []


def test_texts_from_files_are_shown_and_never_run(opened: Visit) -> None:
    assert opened.page.title() == "silicon · adatom report"
    assert opened.page.locator(".findings img").count() == 0
    assert EVIL in opened.page.locator(".findings").inner_text()
