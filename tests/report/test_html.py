"""The page of a plan: it loads nothing from elsewhere, survives hostile names, and works in a real browser."""

import contextlib
import html.parser
import json
import re
import shutil
from importlib.metadata import version
from types import SimpleNamespace

import pytest

from shardinit import LeafSpec, StateSpec, Topology, plan
from shardinit.report.page import plan_page

HOSTILE = (
    "a",
    "</script><script>document.title='broken'</script>",
    "\"'<!--<img src=x onerror=alert(1)>",
    "\u202e\ud800&",
)
NEEDED = "The browser tests need Chromium and its driver: apt-get install chromium chromium-driver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
MOST_CELLS = 512


def state(path, *shape, state_class="ShortTermState", out_axis=0):
    return StateSpec(tuple(path), state_class, (LeafSpec(shape, "float32", 4),), out_axis)


FEW = [state(["v"], 64, 4096), *(state(["layers", str(i), "w"], 30, 30) for i in range(5)), state(HOSTILE, 10)]
PADDABLE = [state(["v"], 64, 4096), state(["w"], 16), state(["layers", "0", "w"], 8)]
ODD = [state([name], 7, 7) for name in "uvw"]


def plan_of(topology, axis_size, states=FEW, **options):
    topology = Topology.named(topology) if isinstance(topology, str) else topology
    return plan(states, topology, axis_size=axis_size, **options)


def many_states(count=10_000):
    return [state(["core", f"region{i}", f"w{i % 7}"], 1 + i % 997) for i in range(count)]


def certificate(passed=True):
    piece = SimpleNamespace(
        state="layers/0/<b>w</b>",
        count=1,
        error="",
        strategy="shard_map",
        seconds=1.25,
        output_bytes=1024,
        temporary_bytes=2048,
        peak_bytes=3072,
        predicted_peak_bytes=None,
        collectives=("all-gather",),
    )
    return SimpleNamespace(
        passed=passed,
        topology="h100:4x8",
        compiler="XLA",
        failures=(),
        pieces=(piece,) * 3,
        peak_bytes=3072,
        predicted_peak_bytes=4096,
        notes=("a note with <i>markup</i>",),
    )


class Page(html.parser.HTMLParser):
    """Elements with their attributes, and the texts of scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.text = [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.elements and self.elements[-1][0] == "script":
            self.scripts[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


PLANS = {
    "cpu": lambda: plan_of("cpu:8", 12),
    "gpu": lambda: plan_of("h100:4x8", 64, memory_budget="1GiB"),
    "pod": lambda: plan_of("v5p:8x16x16", 64),
    "padded": lambda: plan_of("cpu:8", 13, states=PADDABLE, remainder="pad"),
    "idle devices": lambda: plan_of("cpu:8", 7, states=ODD),
    "one device": lambda: plan_of(Topology("cpu", 1, ()), 3),
}


@pytest.mark.parametrize("name", PLANS)
def test_nothing_is_loaded_from_elsewhere(name):
    page = Page(plan_page(PLANS[name](), certificate()))
    assert re.findall(r"https?://[^\s\"']+", page.text) == ["http://www.w3.org/2000/svg"]
    links = [(tag, a) for tag, attrs in page.elements for k, a in attrs.items() if k in ("src", "href", "action")]
    assert links == [("link", "data:,")]
    assert not re.search(r"@import|url\((?!#)", page.text)
    policy = next(attrs["content"] for _, attrs in page.elements if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_the_plans_here_are_what_they_are_called():
    assert PLANS["idle devices"]().idle_devices == 1
    assert PLANS["padded"]().padded_axis_size == 16
    assert PLANS["pod"]().topology.devices == 2048


def test_head():
    page = Page(plan_page(PLANS["cpu"]()))
    attributes = dict(page.elements)
    assert attributes["html"]["lang"] == "en"
    assert ("meta", {"name": "color-scheme", "content": "light dark"}) in page.elements
    assert "<title>Initialization plan: 12 lanes on cpu:8</title>" in page.text


def test_headline():
    planned = PLANS["gpu"]()
    text = plan_page(planned)
    for part in (planned.fingerprint, "h100:4x8", "1.0 GiB", f"{planned.peak_bytes:,} bytes", "lanes 32"):
        assert part in text


def test_what_was_planned_by_which_version_and_when():
    page = Page(plan_page(PLANS["cpu"](), target="a/<b>.py:build", date="2026-11-25 12:00"))
    assert "<h1>Initialization plan: a/&lt;b&gt;.py:build on cpu:8</h1>" in page.text
    assert "<title>Initialization plan: a/&lt;b&gt;.py:build, 12 lanes on cpu:8</title>" in page.text
    assert f"Made by shardinit {version('shardinit')}, 2026-11-25 12:00." in page.text


def test_peaks_of_what_was_rejected_are_told_or_said_to_be_missing():
    page = Page(plan_page(PLANS["cpu"]()))
    cells = re.findall(r'data-label="peak">([^<]*)<', page.text)
    assert cells
    assert all(cell == "not computed" or re.fullmatch(r"[\d.]+ [KMG]?i?B", cell) for cell in cells)


def test_everything_in_the_chart_is_in_its_legend(browser):
    browser.open(plan_page(PLANS["cpu"]()))
    legend = browser.text("#chart-legend")
    for part in ("held", "temporaries", "peak", "the step that is told below"):
        assert part in legend


def test_hostile_names_stay_text():
    page = Page(plan_page(PLANS["cpu"]()))
    assert len(page.scripts) == 2
    assert not [1 for tag, _ in page.elements if tag == "img"]
    names = [row[0] for row in page.data["groups"]]
    assert "/".join(HOSTILE).replace("\ud800", "?") in names  # no UTF-8 file can hold a lone surrogate
    page.text.encode()


def test_hostile_topology_and_reason_are_escaped():
    topology = Topology("cpu", 2, (("<b>lanes", 2),), name="<script>alert(1)</script>")
    page = Page(plan_page(plan_of(topology, 4, lanes_axis="<b>lanes")))
    assert len(page.scripts) == 2
    assert "b" not in {tag for tag, _ in page.elements}


def test_groups_are_whole_and_sorted_by_bytes():
    planned = PLANS["cpu"]()
    rows = Page(plan_page(planned)).data["groups"]
    assert [row[0] for row in rows][:2] == ["v", "layers/*/w"]
    assert sum(row[1] for row in rows) == len(planned.states)
    sizes = [row[7] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == planned.bytes_per_device


def test_certificate():
    assert 'id="certificate"' not in plan_page(PLANS["gpu"]())
    for passed, word in ((True, "passed"), (False, "failed")):
        page = Page(plan_page(PLANS["gpu"](), certificate(passed)))
        assert f">{word}</span>" in page.text
        assert "a note with &lt;i&gt;markup&lt;/i&gt;" in page.text
        assert len(page.data["certificate"]) == 3


def test_same_plan_same_page():
    assert plan_page(PLANS["cpu"]()) == plan_page(PLANS["cpu"]())


class Browser:
    """A headless Chromium that opens pages from files."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def open(self, text, width=1280, scheme="light"):
        path = self.folder / "plan.html"
        path.write_text(text, encoding="utf-8")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(path.as_uri())

    def run(self, script):
        return self.driver.execute_script(f"return {script}")

    def count(self, selector):
        return self.run(f"document.querySelectorAll({selector!r}).length")

    def text(self, selector):
        return self.run(f"document.querySelector({selector!r}).textContent")

    def type(self, selector, text):
        box = self.driver.find_element("css selector", selector)
        box.clear()
        box.send_keys(text)

    def click(self, selector):
        self.driver.find_element("css selector", selector).click()

    def check(self):
        """No errors, and nothing wider than the window."""
        assert self.driver.get_log("browser") == []
        assert self.run("document.documentElement.scrollWidth <= window.innerWidth")


@contextlib.contextmanager
def opened_browser(folder):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if not chromium or not chromedriver:
        pytest.fail(NEEDED)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        yield Browser(driver, folder)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with opened_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_a_missing_browser_is_a_failure_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(pytest.fail.Exception, match="apt-get install chromium chromium-driver"),
        opened_browser(tmp_path),
    ):
        pass


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PLANS)
def test_page_in_a_browser(browser, name, width, scheme):
    planned = PLANS[name]()
    browser.open(plan_page(planned, certificate()), width, scheme)
    browser.check()
    devices = planned.topology.devices - planned.idle_devices
    assert browser.count(".idle") == planned.idle_devices
    assert browser.count(".cell") == devices if devices <= MOST_CELLS else 64 < browser.count(".cell") <= MOST_CELLS
    assert browser.run("[...document.querySelectorAll('.cell')].reduce((n, c) => n + +c.dataset.devices, 0)") == devices
    assert browser.count("#chart svg path.held") == 1
    assert browser.count("#chart svg .peak") == 1
    assert browser.count("#states-table tbody tr") == 3
    assert browser.count("#certificate-table tbody tr") == 3
    assert browser.run("document.title").startswith("Initialization plan: ")


@pytest.mark.parametrize("width", [1280, 390])
def test_search(browser, width):
    browser.open(plan_page(PLANS["cpu"]()), width)
    assert browser.text("#matches") == "3 rows, 7 states"
    for query, rows, found in (
        ("layers", 1, "1 of 3 rows match (5 states)"),
        ("LAYERS/3/w float32", 1, "1 of 3 rows match (5 states)"),
        ("</script>", 1, "1 of 3 rows match (1 state)"),
        ("gspmd", 1, "1 of 3 rows match (1 state)"),
        ("none such", 0, "0 of 3 rows match (0 states)"),
    ):
        browser.type("#search", query)
        assert browser.text("#matches") == found
        assert browser.count("#states-table tbody tr") == rows
        browser.check()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_toggle_flips_the_scheme(browser, scheme, width):
    browser.open(plan_page(PLANS["cpu"]()), width, scheme)
    style = "getComputedStyle(document.body)"
    before = browser.run(f"{style}.backgroundColor"), browser.run(f"{style}.color")
    assert browser.text("#scheme") == ("Light" if scheme == "dark" else "Dark")
    browser.click("#scheme")
    after = browser.run(f"{style}.backgroundColor"), browser.run(f"{style}.color")
    assert browser.text("#scheme") == ("Dark" if scheme == "dark" else "Light")
    assert before[0] != after[0]
    assert before[1] != after[1]
    browser.click("#scheme")
    assert (browser.run(f"{style}.backgroundColor"), browser.run(f"{style}.color")) == before


def test_a_device_tells_its_place_lanes_and_bytes(browser):
    browser.open(plan_page(PLANS["cpu"]()))
    assert browser.run("document.querySelector('#device').value") == "0"
    browser.type("#device", "5")
    text = browser.text("#device-text")
    assert text.startswith("Device 5 at lanes=2, model=1: lanes 6\u20138; holds ")
    browser.type("#device", "8")
    assert browser.text("#device-text") == "There are devices 0 to 7."


def test_a_device_of_a_square_that_stands_for_several(browser):
    browser.open(plan_page(PLANS["pod"]()))
    browser.type("#device", "2047")
    assert browser.text("#device-text").startswith("Device 2047 at lanes=63, model=31: lane 63; holds ")
    assert browser.run(
        "document.querySelector('.cell[aria-current]') === [...document.querySelectorAll('.cell')].at(-1)"
    )


def test_pointing_at_a_square_and_at_the_chart(browser):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(plan_page(PLANS["cpu"]()))
    cells = browser.driver.find_elements("css selector", ".cell")
    ActionChains(browser.driver).move_to_element(cells[6]).perform()
    assert browser.text("#device-text").startswith("Device 6 at lanes=3, model=0: lanes 9\u201311; holds ")
    chart = browser.driver.find_element("css selector", "#chart")
    ActionChains(browser.driver).move_to_element_with_offset(chart, chart.size["width"] // 2 - 20, 0).perform()
    assert browser.text("#readout").startswith("Step 3 of 3. ")


def test_padding_is_told(browser):
    browser.open(plan_page(PLANS["padded"]()))
    browser.type("#device", "6")
    assert "computes lanes 12\u201313, of which 13 is padding" in browser.text("#device-text")


def test_mesh_and_chart_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    planned = PLANS["cpu"]()
    browser.open(plan_page(planned))
    assert browser.count('.cell[tabindex="0"]') == 1
    cell = browser.driver.find_element("css selector", ".cell")
    cell.send_keys(Keys.ARROW_RIGHT)
    assert browser.text("#device-text").startswith("Device 1 at lanes=0, model=1: lanes 0\u20132; ")
    assert browser.run("document.querySelector('#device').value") == "1"
    chart = browser.driver.find_element("css selector", "#chart")
    chart.send_keys(Keys.END)
    assert browser.text("#readout").startswith(f"Step {len(planned.steps)} of {len(planned.steps)}. ")
    chart.send_keys(Keys.HOME)
    assert browser.text("#readout").startswith("Step 1 of ")


def test_a_budget_that_is_near_is_drawn_and_a_far_one_is_told(browser):
    peak = plan_of("h100:4x8", 64).peak_bytes
    browser.open(plan_page(plan_of("h100:4x8", 64, memory_budget=int(1.2 * peak))))
    assert browser.count("#chart line.limit") == 1
    browser.open(plan_page(plan_of("h100:4x8", 64, memory_budget=100 * peak)))
    assert browser.count("#chart line.limit") == 0
    assert "far above" in browser.text("#chart .beyond")


@pytest.mark.parametrize("width", [1280, 390])
def test_ten_thousand_groups(browser, width):
    browser.open(plan_page(plan_of("h100:4x8", 64, states=many_states())), width)
    browser.check()
    assert browser.text("#matches") == "10,000 rows, 10,000 states"
    assert browser.count("#states-table tbody tr") == 100
    browser.click("#states-table .more button")
    assert browser.count("#states-table tbody tr") == 200
    browser.type("#search", "region9999")
    assert browser.text("#matches") == "1 of 10,000 rows match (1 state)"
    assert browser.count("#states-table tbody tr") == 1
    browser.check()


def test_columns_sort(browser):
    browser.open(plan_page(PLANS["cpu"]()))
    assert browser.text('#states-table [aria-sort="descending"]') == "per device"
    browser.run("document.querySelectorAll('#states-table th button')[1].click()")
    assert browser.text("#states-table tbody td") == "layers/*/w"
    browser.run("document.querySelectorAll('#states-table th button')[1].click()")
    assert browser.text("#states-table tbody tr:last-child td") == "layers/*/w"
