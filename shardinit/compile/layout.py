"""How lanes lie on devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@dataclass(frozen=True, slots=True)
class Layout:
    """How lanes lie on devices; ``mesh`` None is the default device.

    Attributes
    ----------
    mesh
        The mesh.
    lanes_axis
        Mesh axis that splits the lanes; None if every device has all of them.
    axis_size
        Number of lanes that are computed.
    kept
        Number of lanes that are kept, and that a key is split into: fewer where they are padded.
    axis_name
        Name of the mapped axis that collectives in init use.
    exact
        Whether XLA must not fuse over operation boundaries.
    rounds_by_place
        Whether last bits depend on the loop around an operation, as on a CPU.
    """

    mesh: Mesh | None
    lanes_axis: str | None
    axis_size: int
    kept: int
    axis_name: Any
    exact: bool
    rounds_by_place: bool

    @property
    def shards(self) -> int:
        """Into how many parts the lanes are split."""
        return self.mesh.shape[self.lanes_axis] if self.mesh is not None and self.lanes_axis else 1

    @property
    def shares_lanes(self) -> bool:
        """Whether several devices compute the same lane, or lanes that are cut off."""
        return self.mesh is not None and (self.mesh.size > self.shards or self.axis_size > self.kept)

    @property
    def replicated(self) -> NamedSharding | None:
        """One value, the same on every device."""
        return None if self.mesh is None else NamedSharding(self.mesh, P())

    def sharding(self, spec: Sequence[str | None]) -> NamedSharding | None:
        """Sharding of a PartitionSpec on this mesh."""
        return None if self.mesh is None else NamedSharding(self.mesh, P(*spec))

    def unsplit(self) -> "Layout":
        """Give every device all lanes."""
        return replace(self, lanes_axis=None, axis_size=self.kept)

    def on_default_device(self) -> "Layout":
        """Leave the mesh."""
        return replace(self, mesh=None, lanes_axis=None)


def table_spec(layout: Layout) -> tuple[str | None, ...]:
    """Key tables are ``[rows, lanes, words]``, split over the lanes."""
    return (None, layout.lanes_axis, None)
