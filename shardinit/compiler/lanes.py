"""Which lanes a device computes, and by which rule they get their keys."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """How lanes are laid out on devices; ``mesh`` None is the default device.

    Attributes
    ----------
    mesh
        The mesh.
    lanes_axis
        Mesh axis that splits the lanes; None if every device has all of them.
    computed
        Number of lanes that are computed.
    axis_size
        Number of lanes that are kept, and that keys are split into: fewer where lanes are padded.
    axis_name
        Name of the mapped axis that collectives in init use.
    exact
        Whether XLA must not fuse over operation boundaries.
    rounds_by_place
        Whether last bits depend on the loop around an operation, as on a CPU.
    """

    mesh: Mesh | None
    lanes_axis: str | None
    computed: int
    axis_size: int
    axis_name: Hashable
    exact: bool
    rounds_by_place: bool

    @property
    def shards(self) -> int:
        """Into how many parts the lanes are split."""
        return self.mesh.shape[self.lanes_axis] if self.mesh is not None and self.lanes_axis else 1

    @property
    def replicated(self) -> NamedSharding | None:
        """One value, the same on every device."""
        return self.sharding(())

    def sharding(self, spec: Sequence[str | None]) -> NamedSharding | None:
        """Sharding of a PartitionSpec on this mesh."""
        return None if self.mesh is None else NamedSharding(self.mesh, P(*spec))

    def unsplit(self) -> "LaneLayout":
        """Give every device all lanes."""
        return replace(self, lanes_axis=None, computed=self.axis_size)

    def on_default_device(self) -> "LaneLayout":
        """Leave the mesh."""
        return replace(self.unsplit(), mesh=None)


def table_spec(layout: LaneLayout) -> tuple[str | None, ...]:
    """Key tables are ``[rows, lanes, words]``, split over the lanes."""
    return (None, layout.lanes_axis, None)
