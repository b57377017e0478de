"""The page of a plan in a real browser."""

import contextlib
import shutil

import pytest

from shardinit.report.page import plan_page
from tests.report.plans import PLANS, certificate, plan_of, state

NEEDED = "The browser tests need Chromium and its driver: apt-get install chromium chromium-driver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
MOST_CELLS = 512


def many_states(count=10_000):
    return [state(["core", f"region{i}", f"w{i % 7}"], 1 + i % 997) for i in range(count)]


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


def test_everything_in_the_chart_is_in_its_legend(browser):
    browser.open(plan_page(PLANS["cpu"]()))
    legend = browser.text("#chart-legend")
    for part in ("held", "temporaries", "peak", "the step that is told below"):
        assert part in legend


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
