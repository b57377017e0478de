"""The launchers whose variables are statements, written by a user, a script or a manifest; and the order of all.

Which variables each one really sets was read from xpk's and AXLearn's manifests, MaxText's and Kubeflow's start-up.
"""

from shardinit.launch.schedulers import Kubernetes, OpenMpi, SkyPilot, Slurm, Tpu, rank_in_jobs
from shardinit.launch.variables import PORT, Found, Launcher, Variables


class Plain(Launcher):
    """JAX's own variables, by hand, by a manifest or by ``shardinit launch``."""

    name, kind = "plain", "plain"
    needs = "JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
    COUNTS = ("JAX_NUM_PROCESSES", "JAX_PROCESS_COUNT")
    RANKS = ("JAX_PROCESS_ID", "JAX_PROCESS_INDEX")

    def is_present(self, env: Variables) -> bool:
        return env.text("JAX_COORDINATOR_ADDRESS", *self.COUNTS, *self.RANKS) is not None

    def read(self, env: Variables) -> Found:
        return Found(
            launcher=self.name,
            coordinator=env.address("JAX_COORDINATOR_ADDRESS"),
            processes=env.agreed(*self.COUNTS),
            process_id=env.agreed(*self.RANKS),
            port=env.whole(PORT),
            counts_processes=True,
            states_coordinator=True,
        )


class Xpk(Launcher):
    """xpk: nodes of a GPU pool (NNODES, NODE_RANK), or the pods of a CPU pool's Jobs."""

    name, kind = "xpk", "statement"
    needs = "JAX_COORDINATOR_ADDRESS with NNODES and NODE_RANK, or with JAX_PROCESS_COUNT and PROCESSES_IN_JOB"

    def is_present(self, env: Variables) -> bool:
        on_gpu = env.has("NNODES", "NODE_RANK")
        on_cpu = env.has("JAX_PROCESS_COUNT", "PROCESSES_IN_JOB", "JOB_COMPLETION_INDEX")
        return env.has("JAX_COORDINATOR_ADDRESS") and (on_gpu or on_cpu)

    def read(self, env: Variables) -> Found:
        on_cpu = env.has("JAX_PROCESS_COUNT", "PROCESSES_IN_JOB", "JOB_COMPLETION_INDEX")
        processes = env.whole("JAX_PROCESS_COUNT" if on_cpu else "NNODES")
        return Found(
            launcher=self.name,
            coordinator=env.address("JAX_COORDINATOR_ADDRESS"),
            processes=processes,
            process_id=rank_in_jobs(env) if on_cpu else env.whole("NODE_RANK"),
            port=env.whole(PORT),
            nodes=processes.value if processes else None,
            processes_on_node=1,
            local_rank=0,
            states_coordinator=True,
        )


class MaxText(Launcher):
    """MaxText on GPUs: one process per node."""

    name, kind = "maxtext", "statement"
    needs = "JAX_COORDINATOR_IP, NNODES and NODE_RANK"

    def is_present(self, env: Variables) -> bool:
        return env.has("JAX_COORDINATOR_IP")

    def read(self, env: Variables) -> Found:
        nodes = env.whole("NNODES")
        return Found(
            launcher=self.name,
            coordinator=env.address("JAX_COORDINATOR_IP"),
            processes=nodes,
            process_id=env.whole("NODE_RANK"),
            port=env.whole(PORT),
            nodes=nodes.value if nodes else None,
            processes_on_node=1,
            local_rank=0,
            states_coordinator=True,
        )


class AXLearn(Launcher):
    """AXLearn's GPU jobs: one process per node; its coordinator comes with a port."""

    name, kind = "axlearn", "statement"
    needs = "DISTRIBUTED_COORDINATOR, NUM_PROCESSES and PROCESS_ID"

    def is_present(self, env: Variables) -> bool:
        return env.has("DISTRIBUTED_COORDINATOR")

    def read(self, env: Variables) -> Found:
        return Found(
            launcher=self.name,
            coordinator=env.address("DISTRIBUTED_COORDINATOR"),
            processes=env.whole("NUM_PROCESSES"),
            process_id=env.whole("PROCESS_ID"),
            port=env.whole(PORT),
            counts_processes=True,
            states_coordinator=True,
        )


class Generic(Launcher):
    """Names without a prefix, such as Kubeflow's JAXJob sets; too common to mean much one by one."""

    name, kind = "generic", "statement"
    needs = "COORDINATOR_ADDRESS, NUM_PROCESSES and PROCESS_ID"

    def is_present(self, env: Variables) -> bool:
        return env.has("COORDINATOR_ADDRESS") and env.text("NUM_PROCESSES", "PROCESS_ID") is not None

    def read(self, env: Variables) -> Found:
        return Found(
            launcher=self.name,
            coordinator=env.address("COORDINATOR_ADDRESS"),
            processes=env.whole("NUM_PROCESSES"),
            process_id=env.whole("PROCESS_ID"),
            port=env.whole("COORDINATOR_PORT", PORT),
            counts_processes=True,
            states_coordinator=True,
        )


class Local(Plain):
    """The children of ``shardinit launch``: plain variables, and nothing of what is around them."""

    name = "local"

    def read(self, env: Variables) -> Found:
        found = Plain.read(self, env)
        rank, count = found.process_id, found.processes
        return Found(
            launcher=self.name,
            coordinator=found.coordinator,
            processes=count,
            process_id=rank,
            port=found.port,
            nodes=1,
            processes_on_node=count.value if count else None,
            local_rank=rank.value if rank else None,
            states_coordinator=True,
        )


# The order of detection. JAX's plain variables come first, then the first statement, then the first starter:
# mpirun and SkyPilot run inside of SLURM jobs and of pods, and whoever started this very process counts.
LAUNCHERS: tuple[Launcher, ...] = (
    Plain(),
    MaxText(),
    Xpk(),
    AXLearn(),
    Generic(),
    OpenMpi(),
    SkyPilot(),
    Slurm(),
    Tpu(),
    Kubernetes(),
)
BY_NAME: dict[str, Launcher] = {launcher.name: launcher for launcher in (*LAUNCHERS, Local())}
