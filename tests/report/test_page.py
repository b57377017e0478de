"""The page of a plan loads nothing from elsewhere, and survives hostile names."""

import html.parser
import json
import re
from importlib.metadata import version

import pytest

from shardinit import Topology
from shardinit.report.page import plan_page
from tests.report.plans import HOSTILE, PLANS, certificate, plan_of


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
