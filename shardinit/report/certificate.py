"""A certificate as text."""

from rich import box
from rich.table import Table

from shardinit.report.plan import rendered, short_names
from shardinit.report.terminal import for_terminal
from shardinit.spec.certificate import Certificate, PieceCertificate
from shardinit.wording import size_text


def certificate_text(certificate: Certificate) -> str:
    """The verdict, the table of programs, and the moments of the highest peak."""
    c = certificate
    budget = "no memory_budget" if c.memory_budget is None else f"memory_budget={size_text(c.memory_budget)}"
    ratio = f", {c.predicted_peak_bytes / c.peak_bytes:.3f} of it predicted" if c.peak_bytes else ""
    lines = [
        f"{'PASS' if c.passed else 'REFUSED'}: {c.topology}, axis_size={c.axis_size}, {c.compiler}",
        f"peak {size_text(c.peak_bytes)} per device ({c.peak_bytes} bytes){ratio}; {budget}; plan {c.fingerprint}",
        *(f"refused: {failure}" for failure in c.failures),
        *(f"note: {note}" for note in c.notes),
    ]
    return "\n".join([*lines, "", rendered(_programs(c)), "", "memory of one device over time", rendered(_moments(c))])


def _programs(certificate: Certificate) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("program", overflow="fold", min_width=16)
    table.add_column("strategy", min_width=9)
    for name in ("compile", "output", "temporary", "peak", "planned"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("collectives", overflow="fold", min_width=11)
    names = short_names(p.state for p in certificate.pieces)
    for p in certificate.pieces:
        label = for_terminal(names[p.state] + (f" ×{p.count}" if p.count > 1 else ""))
        planned = "-" if p.predicted_peak_bytes is None else size_text(p.predicted_peak_bytes)
        where = "does not compile" if p.error else _communication(p)
        sizes = ["-" if p.error else size_text(n) for n in (p.output_bytes, p.temporary_bytes, p.peak_bytes)]
        table.add_row(label, p.strategy, "-" if p.error else f"{p.seconds:.2f} s", *sizes, planned, where)
    return table


def _communication(piece: PieceCertificate) -> str:
    if piece.is_shard_local:
        return "none: shard-local"
    return ", ".join(piece.collectives) + (": collects what other devices made" if piece.gathers else "")


def _moments(certificate: Certificate) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("from", overflow="fold", min_width=16)
    for name in ("held before", "peak", "planned"):
        table.add_column(name, justify="right", no_wrap=True)
    top = certificate.peak_bytes
    names = short_names(m.state for m in certificate.moments)
    for m in certificate.moments:
        mark = "  <- the peak" if m.peak_bytes == top else ""
        table.add_row(
            for_terminal(names[m.state]),
            size_text(m.held_bytes),
            size_text(m.peak_bytes),
            size_text(m.predicted_peak_bytes) + mark,
        )
    return table
