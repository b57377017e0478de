"""Packages of versions that are not supported are named on first use, with what to run."""

import os
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

import shardinit
from shardinit import versions

NEEDED = ["jax<0.13,>=0.10.0", "brainstate<0.7,>=0.5.0", "rich>=13"]


@pytest.fixture
def installed(monkeypatch):
    found = {"shardinit": "0.1.0", "jax": "0.10.2", "brainstate": "0.6.0", "rich": "13.0"}
    monkeypatch.setattr(versions, "version_of", found.get)
    monkeypatch.setattr(versions, "requirements_of", lambda _: [Requirement(text) for text in NEEDED])
    monkeypatch.delenv("SHARDINIT_ANY_VERSION", raising=False)
    versions.check_versions.cache_clear()
    yield found
    versions.check_versions.cache_clear()


def test_what_is_supported_is_let_through(installed):
    versions.check_versions()


def test_a_version_that_is_not_supported_is_named(installed):
    installed.update(jax="0.13.0", brainstate=None)
    with pytest.raises(shardinit.VersionError) as caught:
        versions.check_versions()
    text = str(caught.value)
    assert "jax 0.13.0 (supported: <0.13,>=0.10.0), brainstate missing (supported: <0.7,>=0.5.0)" in text
    assert '-m pip install "jax<0.13,>=0.10.0" "brainstate<0.7,>=0.5.0"' in text
    assert isinstance(caught.value, ImportError)


def test_one_that_is_to_be_tried_is_let_through(installed, monkeypatch):
    installed["jax"] = "0.13.0"
    monkeypatch.setenv("SHARDINIT_ANY_VERSION", "1")
    versions.check_versions()


def test_what_an_extra_needs_is_not_looked_for():
    assert not [each for each in versions.requirements_of("shardinit") if each.name == "selenium"]


BEFORE = """
import atexit, sys
from packaging.requirements import Requirement
from shardinit import versions
versions.requirements_of = lambda package: [Requirement("jax<0.1")]
atexit.register(lambda: print("jax" in sys.modules))
"""
COMMAND = """
from shardinit.cli.main import main
sys.argv = ["shardinit", "plan", "net.py:build", "--axis-size", "1"]
main()
"""


@pytest.mark.parametrize("code", ["import shardinit; shardinit.plan", COMMAND], ids=["import", "command"])
def test_first_use_says_so_before_jax_is_imported(code):
    env = {name: value for name, value in os.environ.items() if name != "SHARDINIT_ANY_VERSION"}
    command = [sys.executable, "-c", BEFORE + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (2 if code == COMMAND else 1)
    assert "(supported: <0.1)" in done.stderr
    assert ("Traceback" in done.stderr) == (code != COMMAND)
    assert done.stdout == "False\n"
