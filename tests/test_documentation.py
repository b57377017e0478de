"""Examples in docstrings and in the README run, and print what they say."""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shardinit

README = (Path(__file__).parent.parent / "README.md").read_text()
PUBLIC = [name for name in shardinit.__all__ if not name.endswith("Error")]


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_examples(name):
    thing = getattr(shardinit, name)
    module = sys.modules[thing.__module__]
    tests = doctest.DocTestFinder().find(thing, name, module=module, globs=vars(module).copy())
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("name", ["discover", "plan", "compile", "emulate_cpu", "shard_new_states", "vmap2_new_states"])
def test_functions_have_an_example(name):
    assert ">>> " in getattr(shardinit, name).__doc__


def test_readme_python_runs_and_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", "\n".join(blocks)], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"prints\n\n```\n(.*?)```", README, re.DOTALL)

    def without_times(text):
        return "\n".join(re.sub(r"\d+\.\d\d", "T", line).strip() for line in text.strip().splitlines())

    assert len(printed) == 2
    for text in printed:
        assert without_times(text) in without_times(done.stdout)
