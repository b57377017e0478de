"""A plan as one HTML page that needs nothing else: the mesh, memory over time, and every group of states."""

import functools
import json
from collections.abc import Iterable
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from shardinit.report.plan import Group, groups_of, specs_text
from shardinit.spec.certificate import Certificate
from shardinit.spec.plan import InitPlan, Rejected
from shardinit.wording import counted, size_text

NOT_TRIED, CANNOT_BE = "not computed", "cannot be"


def plan_page(plan: InitPlan, certificate: Certificate | None = None, *, target: str = "", date: str = "") -> str:
    """Draw a plan as a page that loads nothing from elsewhere.

    Parameters
    ----------
    plan
        The plan.
    certificate
        What the compiler of the target said of it, shown in a section of its own; None if it was not asked.
    target, date
        What was planned, and when, for the head of the page.

    Returns
    -------
    str
        HTML to be written as UTF-8.

    Examples
    --------
    >>> from shardinit import LeafSpec, StateSpec, Topology, plan
    >>> state = StateSpec(("v",), "ShortTermState", (LeafSpec((8,), "float32", 4),))
    >>> p = plan([state], Topology("cpu", 8), axis_size=16)
    >>> plan_page(p).startswith("<!doctype html>")
    True
    """
    page = _template().render(
        title=f"Initialization plan: {f'{target}, ' * bool(target)}{counted(plan.axis_size, 'lane')} on {_where(plan)}",
        target=target,
        where=_where(plan),
        made=f"Made by shardinit {version('shardinit')}{f', {date}' if date else ''}.",
        reason=plan.reason,
        facts=_facts(plan),
        rejected=_rejected(plan),
        certificate=_certificate_head(certificate),
        style=_part("plan.css"),
        script=_part("plan.js"),
        data=_script_json(_data(plan, certificate)),
    )
    # A path may hold a lone surrogate, which no UTF-8 file can.
    return page.encode("utf-8", "replace").decode("utf-8")


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("shardinit", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("plan.html.jinja")


@functools.cache
def _part(name: str) -> Markup:
    """Style or script of the page; neither has a closing tag in it."""
    return Markup((files("shardinit.report") / name).read_text(encoding="utf-8"))


def _where(plan: InitPlan) -> str:
    topology = plan.topology
    return topology.name or counted(topology.devices, f"{topology.platform.upper()} device")


def _script_json(data: Any) -> Markup:
    """Write JSON that cannot end the script element it stands in."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _mesh_text(axes: Iterable[tuple[str, int]]) -> str:
    return " × ".join(f"{name} {size:,}" for name, size in axes) or "no mesh"


def _facts(plan: InitPlan) -> list[tuple[str, str, str]]:
    """Name, value and a remark of each figure of the headline."""
    topology = plan.topology
    own = [state for state in plan.states if state.spec.kind != "attribute"]
    arrays = counted(sum(len(state.leaves) for state in own), "array")
    outside = len(plan.states) - len(own)
    padded = plan.padded_axis_size
    lanes = f"padded to {padded:,}" if padded > plan.axis_size else f"numerics: {plan.numerics}"
    joined = f", {topology.fast_devices:,} joined by the fast network" if topology.fast else ""
    idle = f", {plan.idle_devices:,} idle" if plan.idle_devices else ""
    facts = [
        ("States", f"{len(own):,}", f"{arrays}, {outside:,} more in attributes" if outside else arrays),
        ("Lanes", f"{plan.axis_size:,}", lanes),
        ("Devices", f"{topology.devices:,}", f"{topology.platform.upper()}{joined}{idle}"),
        ("Mesh", _mesh_text(plan.mesh_axes), f"remainder: {plan.remainder}"),
        ("Held per device", size_text(plan.bytes_per_device), f"{plan.bytes_per_device:,} bytes"),
    ]
    if plan.steps:
        facts.append(("Peak per device", size_text(plan.peak_bytes), f"{plan.peak_bytes:,} bytes"))
    if plan.memory_budget is not None:
        facts.append(("Budget per device", size_text(plan.memory_budget), f"{plan.memory_budget:,} bytes"))
    return [*facts, ("Fingerprint", plan.fingerprint, "equal for equal plans")]


def _rejected(plan: InitPlan) -> list[dict[str, str]]:
    return [
        {
            "mesh": _mesh_text(other.mesh_axes),
            "held": CANNOT_BE if other.bytes_per_device is None else size_text(other.bytes_per_device),
            "peak": _rejected_peak(other),
            "reason": other.reason,
        }
        for other in plan.rejected
    ]


def _rejected_peak(other: Rejected) -> str:
    if other.peak_bytes is not None:
        return size_text(other.peak_bytes)
    return CANNOT_BE if other.bytes_per_device is None else NOT_TRIED


def _data(plan: InitPlan, certificate: Certificate | None) -> dict[str, Any]:
    """Everything that the script of the page draws."""
    groups, reasons = _groups(plan)
    return {
        "lanes": plan.axis_size,
        "padded": plan.padded_axis_size,
        "lanesAxis": plan.lanes_axis,
        "lanesPerDevice": plan.lanes_per_device,
        "held": plan.bytes_per_device,
        "peak": plan.peak_bytes,
        "budget": plan.memory_budget,
        "usable": plan.topology.usable_bytes,
        "idle": plan.idle_devices,
        "axes": _axes(plan),
        "stateCount": len(plan.states),
        "steps": [[len(s.pieces), s.state, s.held, s.made, s.temporaries, s.peak, s.slices] for s in plan.steps],
        "groups": groups,
        "reasons": reasons,
        "certificate": _certificate_pieces(certificate),
    }


def _axes(plan: InitPlan) -> list[dict[str, Any]]:
    """Name and size of each mesh axis, and what is split over it."""
    count = {name: 0 for name, _ in plan.mesh_axes}
    held = dict(count)
    for state in plan.states:
        for name in {name for leaf in state.leaves for name in leaf.partition_spec if name}:
            count[name] += 1
            held[name] += state.bytes_per_device
    return [{"name": name, "size": size, "states": count[name], "bytes": held[name]} for name, size in plan.mesh_axes]


def _groups(plan: InitPlan) -> tuple[list[list[Any]], list[str]]:
    """Rows of groups, largest first; and the reasons that they refer to."""
    reasons: dict[str, int] = {}
    rows = [_row(group, reasons) for group in sorted(groups_of(plan), key=lambda g: -g.bytes_per_device)]
    return rows, list(reasons)


def _row(group: Group, reasons: dict[str, int]) -> list[Any]:
    first, spec = group.first, group.first.spec
    return [
        group.name,
        group.count,
        spec.state_class if spec.kind == "new" else f"{spec.state_class} ({spec.kind})",
        ", ".join(map(str, spec.leaves)) or "-",
        "None" if spec.out_axis is None else str(spec.out_axis),
        first.strategy,
        specs_text(first),
        group.bytes_per_device,
        reasons.setdefault(first.reason, len(reasons)),
    ]


def _certificate_head(certificate: Certificate | None) -> dict[str, Any] | None:
    if certificate is None:
        return None
    return {
        "passed": bool(certificate.passed),
        "topology": certificate.topology,
        "compiler": certificate.compiler,
        "peak": size_text(certificate.peak_bytes),
        "predicted": size_text(certificate.predicted_peak_bytes),
        "pieces": len(certificate.pieces),
        "seconds": sum(piece.seconds for piece in certificate.pieces),
        "failures": list(certificate.failures),
        "notes": list(certificate.notes),
    }


def _certificate_pieces(certificate: Certificate | None) -> list[list[Any]]:
    return [
        [
            piece.state,
            piece.count,
            piece.strategy,
            piece.seconds,
            piece.output_bytes,
            piece.temporary_bytes,
            piece.peak_bytes,
            piece.predicted_peak_bytes,
            piece.error or ", ".join(piece.collectives) or "none",
        ]
        for piece in (certificate.pieces if certificate is not None else ())
    ]
