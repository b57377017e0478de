"""Certificates by the CPU compiler: figures, collectives, refusals, and compilers that fail."""

import importlib.util
import json
import subprocess
import sys
import textwrap
from dataclasses import replace

import brainstate
import jax.numpy as jnp
import pytest
from brainstate import ParamState

import shardinit
from shardinit.certifier import children, export
from shardinit.certifier.targets import read_card
from tests.modules import Draws, Normalized
from tests.test_examples import load as load_example


class Neurons(brainstate.nn.Module):
    def init_state(self):
        self.w = ParamState(brainstate.random.normal(size=(64, 64)))
        self.b = ParamState(jnp.zeros(64))


def planned_for(module, topology="cpu:8", axis_size=64, **options):
    return shardinit.plan(shardinit.discover(module), topology, axis_size=axis_size, **options)


@pytest.mark.parametrize("name", ["mlp96", "deep_rnn", "ei_network"])
@pytest.mark.parametrize("lanes", [1, 8])
def test_prediction_of_the_examples(name, lanes):
    planned = planned_for(load_example(name).build(), axis_size=8 * lanes)
    certificate = planned.certify()
    assert certificate.passed
    assert certificate.prediction_holds, (certificate.predicted_peak_bytes, certificate.peak_bytes)
    assert certificate.predicted_peak_bytes == planned.peak_bytes
    assert all(piece.is_shard_local for piece in certificate.pieces)
    assert {piece.error for piece in certificate.pieces} == {""}


@pytest.mark.parametrize(
    ("axis_size", "options"),
    [(64, {}), (12, {}), (1, {}), (12, {"remainder": "replicate"}), (64, {"strategy": "vmap"})],
)
def test_prediction_of_every_kind_of_draw(axis_size, options):
    certificate = planned_for(Draws(), axis_size=axis_size, **options).certify()
    assert certificate.passed
    assert certificate.predicted_peak_bytes >= certificate.peak_bytes


def test_figures_are_the_compilers():
    planned = planned_for(Neurons(), axis_size=64)
    certificate = planned.certify()
    made = {piece.state: piece for piece in certificate.pieces}
    assert made["w"].output_bytes >= 8 * 64 * 64 * 4 > made["b"].output_bytes
    assert made["w"].temporary_bytes >= 3 * 8 * 64 * 64 * 4
    assert certificate.fingerprint == planned.fingerprint
    assert json.loads(certificate.to_json())["passed"] is True
    text = str(certificate)
    for part in ("PASS: cpu:8", "shard_map", "none: shard-local", "<- the peak", "of it predicted"):
        assert part in text


def test_slices_hold_what_they_promise():
    free = planned_for(Neurons(), axis_size=512)
    budget = int(free.bytes_per_device * 1.2)
    planned = planned_for(Neurons(), axis_size=512, memory_budget=budget)
    certificate = planned.certify()
    assert max(step.slices for step in planned.steps) > 1
    assert certificate.passed
    assert certificate.peak_bytes <= budget < free.certify().peak_bytes


def test_collectives_are_found_and_refused(monkeypatch):
    class Summed(brainstate.nn.Module):
        def init_state(self):
            w = brainstate.random.normal(size=(512, 1024))
            self.w = ParamState(w / jnp.sqrt(jnp.sum(w**2)))

    planned = planned_for(Summed(), axis_size=1)
    certificate = planned.certify()
    (piece,) = (p for p in certificate.pieces if p.strategy == "gspmd")
    assert "all-reduce" in piece.collectives
    assert certificate.passed  # there they are allowed
    real = export._export
    monkeypatch.setattr(export, "_export", lambda number, strategy, *more: real(number, "shard_map", *more))
    refused = planned.certify()
    assert not refused.passed
    assert "communicates (all-reduce)" in refused.failures[0]


def test_a_peak_above_the_budget_is_refused():
    planned = planned_for(Neurons(), axis_size=64)
    certificate = replace(planned, memory_budget=planned.bytes_per_device).certify()
    assert not certificate.passed
    assert "does not fit memory_budget=" in certificate.failures[0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; print('no such chip', file=sys.stderr); sys.exit(3)", "exit code 3: no such chip"),
        ("import time; time.sleep(60)", "did not finish within timeout=2 s"),
    ],
)
def test_compilers_that_fail_are_named_and_the_others_go_on(monkeypatch, tmp_path, body, message):
    real = children.CHILD.read_text()
    broken = tmp_path / "child.py"
    hook = f"    if piece['file'].endswith('1.bin'):\n        {body}\n"
    marker = '    with open(piece["file"], "rb") as file:\n'
    assert marker in real
    broken.write_text(real.replace(marker, hook + marker))
    monkeypatch.setattr(children, "CHILD", broken)
    certificate = planned_for(Neurons()).certify(timeout=2 if "sleep" in body else 60, workers=1)
    assert not certificate.passed
    failed = [piece for piece in certificate.pieces if piece.error]
    assert len(failed) == 1
    assert message in failed[0].error
    assert len([p for p in certificate.pieces if p.peak_bytes]) == len(certificate.pieces) - 1


@pytest.mark.parametrize(("topology", "extra"), [("v5e:4x8", "tpu"), ("h100:1x8", "cuda12")])
def test_compilers_that_are_not_installed(monkeypatch, topology, extra):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(shardinit.CertificateError, match=rf"pip install 'shardinit\[{extra}\]'"):
        planned_for(Neurons(), topology).certify()


def test_what_cannot_be_certified():
    planned = planned_for(Neurons())
    with pytest.raises(ValueError, match="specs alone, or read from JSON"):
        shardinit.InitPlan.from_json(planned.to_json()).certify()
    with pytest.raises(ValueError, match="describes a GPU"):
        planned.certify(card="h100.txtpb")
    with pytest.raises(ValueError, match="by name"):
        planned_for(Neurons(), shardinit.Topology("tpu", 8)).certify()
    with pytest.raises(ValueError, match="no card description"):
        read_card("h100", "missing.txtpb")


def test_the_callers_process_is_left_alone():
    code = """
        import brainstate, shardinit
        from shardinit.backend.private_jax import backends_are_initialized
        class Neurons(brainstate.nn.Module):
            def init_state(self):
                self.w = brainstate.ParamState(brainstate.random.normal(size=(8, 8)))
        planned = shardinit.plan(shardinit.discover(Neurons()), "cpu:512", axis_size=1024)
        print(planned.certify().passed)
        import jax
        print(len(jax.devices()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=180, check=True
    )
    assert done.stdout.split() == ["True", "1"]


def test_sums_over_draws():
    assert planned_for(Normalized(), axis_size=64).certify().passed
