"""A pytest plugin: brainstate's modules and tests get our functions for theirs. ``upstream_tests.sh`` runs it."""

import sys
from collections import Counter

import brainstate

import shardinit

NAMES = ("vmap2_new_states", "pmap2_new_states")
THEIRS = {name: getattr(brainstate.transform, name) for name in NAMES}
# What holds only where init runs twice, eagerly first. Ours runs it once.
TWO_PASSES = {
    "test_probe_true_only_during_discovery": "wants a first pass that in_new_state_probe() tells apart",
    "test_one_shot_consumer_without_guard_binds_probe_state": "wants what the first pass cached to be lost",
    "test_vmap2_new_states_failure_restores_rng": "its init fails when it is called a second time",
}
calls: Counter[str] = Counter()
results: dict[str, Counter[str]] = {}
bad: list[str] = []


def counting(name):
    """Our function, counted."""
    ours = getattr(shardinit, name)

    def function(*args, **kwargs):
        calls[name] += 1
        return ours(*args, **kwargs)

    return function


def pytest_collection_finish(session):
    """Put ours in place, wherever a module of brainstate names theirs."""
    modules = [m for n, m in sys.modules.items() if n.partition(".")[0] == "brainstate"]
    for name in NAMES:
        ours = counting(name)
        for module in modules:
            if vars(module).get(name) is THEIRS[name]:
                setattr(module, name, ours)


def pytest_runtest_logreport(report):
    """Count outcomes by file."""
    if report.when != "call" and report.passed:
        return
    file, _, test = report.nodeid.partition("::")
    outcome = report.outcome
    if report.failed:
        outcome = "two passes" if test.rpartition("::")[2] in TWO_PASSES else "failed"
        if outcome == "failed":
            bad.append(report.nodeid)
    results.setdefault(file.rpartition("/")[2], Counter())[outcome] += 1


def pytest_sessionfinish(session):
    """Fail for what fails beyond two passes, and if nothing was put in place."""
    session.exitstatus = 1 if bad or not all(calls[name] for name in NAMES) else 0


def pytest_terminal_summary(terminalreporter):
    """Print the table."""
    line = terminalreporter.write_line
    columns = ("passed", "failed", "two passes", "skipped")
    line(f"{f'brainstate {brainstate.__version__}':<32}" + "".join(f"{c:>12}" for c in columns))
    for file, counts in sorted(results.items()):
        line(f"{file:<32}" + "".join(f"{counts[c]:>12}" for c in columns))
    line(", ".join(f"{name} was called {calls[name]} times" for name in NAMES))
    for name, reason in TWO_PASSES.items():
        line(f"two passes: {name}: {reason}")
    for name in bad:
        line(f"failed: {name}")
