"""What starts processes and numbers them of its own accord: mpirun, srun, SkyPilot, a TPU slice, Kubernetes.

A pure function of the variables cannot ask a metadata server or an API server. So a GCE TPU pod is found by the
variables that ``scripts/tpu_pod.sh`` exports from the VM's metadata, and a Kubernetes Job by those in its manifest.
"""

import zlib

from shardinit.launch.launch_spec import Address
from shardinit.launch.nodelist import expand_nodelist, expand_tasks
from shardinit.launch.variables import PORT, Found, Launcher, Setting, Variables
from shardinit.wording import counted

# Above Linux's ephemeral ports, so that no outgoing connection takes them; even, since the next one is used as well.
FIRST_PORT = 61440
PORT_PAIRS = 2047
# Numbers from here on are steps that srun did not start: the batch script, an interactive shell.
FIRST_RESERVED_STEP = 0xFFFFFFF0


def _port_of(number: int) -> int:
    return FIRST_PORT + 2 * (number % PORT_PAIRS)


class OpenMpi(Launcher):
    """Open MPI's mpirun, 4 (ORTE) and 5 (PRRTE)."""

    name, kind = "openmpi", "starter"
    needs = "OMPI_COMM_WORLD_SIZE and OMPI_COMM_WORLD_RANK"

    def is_present(self, env: Variables) -> bool:
        return env.text("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK") is not None

    def read(self, env: Variables) -> Found:
        processes, on_node = env.whole("OMPI_COMM_WORLD_SIZE"), env.whole("OMPI_COMM_WORLD_LOCAL_SIZE")
        local_rank = env.whole("OMPI_COMM_WORLD_LOCAL_RANK")
        is_local = bool(processes and on_node and processes.value == on_node.value)
        job = env.text("OMPI_MCA_orte_hnp_uri", "PMIX_NAMESPACE")
        number = zlib.crc32(job.value.partition(";")[0].encode()) if job else 0
        here = env.text("PMIX_HOSTNAME")
        return Found(
            launcher=self.name,
            coordinator=Setting(Address("127.0.0.1"), "all processes are on this node: OMPI_COMM_WORLD_LOCAL_SIZE")
            if is_local
            else self._orte(env) or self._prrte(env),
            processes=processes,
            process_id=env.whole("OMPI_COMM_WORLD_RANK"),
            port=env.whole(PORT) or (Setting(_port_of(number), job.source) if job else None),
            nodes=1 if is_local else None,
            processes_on_node=on_node.value if on_node else None,
            local_rank=local_rank.value if local_rank else None,
            counts_processes=True,
            this_host=here.value if here and not is_local and self._orte(env) is None else None,
        )

    def _orte(self, env: Variables) -> Setting[Address] | None:
        """Where mpirun of Open MPI 4 runs: ``1531576320.0;tcp://10.96.0.1,10.148.0.1:34911``."""
        uri = env.text("OMPI_MCA_orte_hnp_uri")
        if uri is None:
            return None
        for part in uri.value.split(";")[1:]:
            hosts = part.partition("://")[2].rpartition(":")[0].strip("[]")
            if hosts:
                return Setting(Address(hosts.split(",")[0]), uri.source)
        return None

    def _prrte(self, env: Variables) -> Setting[Address] | None:
        """Where mpirun of Open MPI 5 runs: ``prterun-n1-12345@1``.

        PMIX_SERVER_URI will not do: it names the daemon of this node, so it differs from node to node.
        """
        namespace = env.text("PMIX_NAMESPACE")
        if namespace is None:
            return None
        host, _, pid = namespace.value.partition("@")[0].partition("-")[2].rpartition("-")
        return Setting(Address(host), namespace.source) if host and pid.isdigit() else None


class SkyPilot(Launcher):
    """SkyPilot's run stage: one process per node."""

    name, kind = "skypilot", "starter"
    needs = "SKYPILOT_NODE_IPS, SKYPILOT_NUM_NODES and SKYPILOT_NODE_RANK"

    def is_present(self, env: Variables) -> bool:
        return env.has("SKYPILOT_NODE_RANK")

    def read(self, env: Variables) -> Found:
        addresses, nodes = env.text("SKYPILOT_NODE_IPS"), env.whole("SKYPILOT_NUM_NODES")
        first = addresses.value.split()[0] if addresses else None
        return Found(
            launcher=self.name,
            coordinator=Setting(Address(first), "SKYPILOT_NODE_IPS") if first else None,
            processes=nodes,
            process_id=env.whole("SKYPILOT_NODE_RANK"),
            port=env.whole(PORT),
            nodes=nodes.value if nodes else None,
            processes_on_node=1,
            local_rank=0,
        )


class Slurm(Launcher):
    """A job step of SLURM. What only sbatch or salloc started is one process."""

    name, kind = "slurm", "starter"
    needs = "SLURM_JOB_ID and, from srun, SLURM_STEP_ID"

    def is_present(self, env: Variables) -> bool:
        return env.text("SLURM_JOB_ID", "SLURM_JOBID") is not None

    def read(self, env: Variables) -> Found:
        step = env.whole("SLURM_STEP_ID", "SLURM_STEPID")
        if step is None or step.value >= FIRST_RESERVED_STEP:
            return self._outside_a_step(env)
        nodelist = env.text("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
        host = next(expand_nodelist(nodelist.value, nodelist.source)) if nodelist else None
        job, nodes = env.whole("SLURM_JOB_ID", "SLURM_JOBID"), env.whole("SLURM_STEP_NUM_NODES", "SLURM_NNODES")
        local_rank, here = env.whole("SLURM_LOCALID"), env.text("SLURMD_NODENAME")
        number = (job.value if job else 0) + 7 * step.value
        return Found(
            launcher=self.name,
            coordinator=Setting(Address(host), nodelist.source) if nodelist and host else None,
            processes=env.whole("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
            process_id=env.whole("SLURM_PROCID"),
            port=env.whole(PORT) or Setting(_port_of(number), "SLURM_JOB_ID and SLURM_STEP_ID"),
            nodes=nodes.value if nodes else None,
            processes_on_node=self._tasks_on_node(env),
            local_rank=local_rank.value if local_rank else None,
            counts_processes=True,
            this_host=here.value if here else None,
        )

    def _tasks_on_node(self, env: Variables) -> int | None:
        tasks, node = env.text("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), env.whole("SLURM_NODEID")
        if tasks is None:
            return None
        counts = expand_tasks(tasks.value, tasks.source)
        index = node.value if node else 0
        return counts[index] if 0 <= index < len(counts) else None

    def _outside_a_step(self, env: Variables) -> Found:
        tasks = env.whole("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_JOB_NUM_NODES", "SLURM_NNODES")
        if tasks is None or tasks.value == 1:
            one = "SLURM_JOB_ID, outside of srun" if tasks is None else tasks.source
            return Found(launcher=self.name, processes=Setting(1, one), process_id=Setting(0, one))
        return Found(
            launcher=self.name,
            cannot_tell=f"this SLURM job is of several processes ({tasks}), but srun did not start this one: "
            "SLURM_STEP_ID names no step of srun. Start it with `srun --kill-on-bad-exit=1 shardinit run ...`, or "
            "pass --launcher none to run it alone.",
        )


class Tpu(Launcher):
    """TPU slices, on GKE or, by ``scripts/tpu_pod.sh``, on GCE: one process per host."""

    name, kind = "tpu", "starter"
    needs = (
        "TPU_WORKER_HOSTNAMES and TPU_WORKER_ID: GKE sets them, and on GCE scripts/tpu_pod.sh exports them from the "
        "VM's metadata"
    )

    def is_present(self, env: Variables) -> bool:
        return env.text("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES") is not None

    def read(self, env: Variables) -> Found:
        hosts = env.text("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
        names = [name.strip() for name in hosts.value.split(",") if name.strip()] if hosts else []
        slices, of_slice = env.whole("MEGASCALE_NUM_SLICES"), env.whole("MEGASCALE_SLICE_ID")
        worker, meeting = env.whole("TPU_WORKER_ID"), env.address("MEGASCALE_COORDINATOR_ADDRESS")
        source = hosts.source if hosts else self.name
        number = slices.value if slices else 1
        if number == 1 and meeting is None and names:
            # The port in TPU_PROCESS_ADDRESSES belongs to the TPU runtime.
            meeting = Setting(Address(names[0].partition(":")[0]), source)
        rank = self._rank(len(names), number, worker, of_slice)
        missing = "TPU_WORKER_ID" if worker is None else "MEGASCALE_SLICE_ID"
        return Found(
            launcher=self.name,
            coordinator=Setting(Address(meeting.value.host), meeting.source) if meeting else None,
            processes=Setting(len(names) * number, f"{source} x MEGASCALE_NUM_SLICES" if number > 1 else source),
            process_id=rank,
            port=env.whole(PORT),
            nodes=len(names) * number,
            processes_on_node=1,
            local_rank=0,
            counts_processes=True,
            cannot_tell=f"{hosts} has {counted(len(names), 'host')} in {counted(number, 'slice')}, but {missing} is "
            "not set. GKE sets it; on GCE export it from the VM's metadata as scripts/tpu_pod.sh does, or pass "
            "--process-id."
            if rank is None
            else None,
        )

    def _rank(
        self, hosts: int, slices: int, worker: Setting[int] | None, of_slice: Setting[int] | None
    ) -> Setting[int] | None:
        if hosts * slices == 1:
            return Setting(0, "the only host")
        if worker is None or (slices > 1 and of_slice is None):
            return None
        if slices == 1 or of_slice is None:
            return worker
        return Setting(
            of_slice.value * hosts + worker.value, f"{of_slice.source} x {hosts} hosts of a slice + {worker.source}"
        )


class Kubernetes(Launcher):
    """An Indexed Job or a JobSet. It gives the number of the pod; the manifest must state the rest.

    The Job controller injects JOB_COMPLETION_INDEX. JobSet injects no variables, only annotations: JOB_INDEX and
    PROCESSES_IN_JOB are names that manifests give to them.
    """

    name, kind = "kubernetes", "starter"
    needs = "JOB_COMPLETION_INDEX"

    def is_present(self, env: Variables) -> bool:
        return env.has("JOB_COMPLETION_INDEX")

    def read(self, env: Variables) -> Found:
        rank, job = rank_in_jobs(env), env.text("JOB_INDEX", "JOB_GLOBAL_INDEX")
        return Found(
            launcher=self.name,
            process_id=rank,
            port=env.whole(PORT),
            processes_on_node=1,
            local_rank=0,
            is_weak=True,
            cannot_tell=f"{job} says that there are several Jobs, but PROCESSES_IN_JOB is not set, so the process id "
            "cannot be worked out from JOB_COMPLETION_INDEX. Set PROCESSES_IN_JOB in the manifest to the pods of one "
            "Job, such as PROCESSES_IN_JOB=2."
            if rank is None
            else None,
        )


def rank_in_jobs(env: Variables) -> Setting[int] | None:
    """Number a pod among those of several replicated Jobs of equal size."""
    pod, pods = env.whole("JOB_COMPLETION_INDEX"), env.whole("PROCESSES_IN_JOB")
    job = env.whole("JOB_INDEX", "JOB_GLOBAL_INDEX")
    if pod is None or job is None or job.value == 0:
        return pod
    if pods is None:
        return None
    return Setting(job.value * pods.value + pod.value, f"{job.source} x {pods.source} + {pod.source}")
