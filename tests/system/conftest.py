"""A real SLURM and a real Docker engine, for those tests that ask for them."""

import os
import shutil
import sys

import pytest

from tests.system.engine import Engine
from tests.system.slurm import Cluster

CANNOT = "a real SLURM and a real Docker engine need root on Linux"
IS_ROOT_ON_LINUX = sys.platform == "linux" and os.geteuid() == 0


def pytest_terminal_summary(terminalreporter):
    if not IS_ROOT_ON_LINUX and terminalreporter.stats.get("skipped"):
        terminalreporter.section(f"NOT TESTED: {CANNOT}", red=True, bold=True)


def _started(kind, folder):
    if not IS_ROOT_ON_LINUX:
        pytest.skip(CANNOT)
    made = kind(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    yield from _started(Cluster, tmp_path_factory.mktemp("slurm"))


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    yield from _started(Engine, tmp_path_factory.mktemp("docker"))
