"""A real SLURM cluster of two nodes on this machine, with munge and everything else of its own."""

import os
import re
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.system.processes import Daemons, attempt, environment, free_ports, processes_with, run, wait_until

NODES = ("n1", "n2")
ACTIVE = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING"}
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=3600
NodeName=n1 NodeHostname=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName=n2 NodeHostname=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Job:
    """What is known of a job: ``state`` and ``exit_code`` as SLURM has them, ``log`` as the user sees it."""

    state: str
    exit_code: str
    log: str


class Cluster:
    """The cluster; jobs that are submitted to it see a user's plain environment."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.env = environment(SLURM_CONF=folder / "slurm.conf", TMPDIR=folder)
        self.daemons = Daemons(folder, self.env)

    def start(self) -> None:
        munge, key = self.folder / "munge", self.folder / "munge.key"
        for name in ("munge", "state", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(mode=0o755)
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(128))
        hosts = self.folder / "hosts"
        hosts.write_text(Path("/etc/hosts").read_text() + f"\n127.0.0.1 {' '.join(NODES)}\n")
        text = CONFIGURATION.format(host=socket.gethostname(), folder=self.folder, ports=free_ports(3))
        (self.folder / "slurm.conf").write_text(text)

        places = [f"--socket={munge}/socket", f"--key-file={key}"]
        places += [f"--{name}-file={munge}/{name}" for name in ("pid", "log", "seed")]
        self.daemons.start("munged", "munged", "--foreground", "--force", *places)
        wait_until((munge / "socket").exists, 20, "munged listens")
        self.daemons.start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            # A node has a host name of its own, and finds the others' in a hosts file that nobody else sees.
            script = f"hostname {node} && mount --bind {hosts} /etc/hosts && exec slurmd -D -N {node}"
            self.daemons.start(node, "unshare", "--uts", "--mount", "--propagation", "private", "sh", "-ec", script)
        wait_until(self._is_up, 60, "both nodes are idle")

    def _is_up(self) -> bool:
        self.daemons.check()
        return attempt("sinfo", "--noheader", "--format=%D %t", env=self.env).stdout.split() == ["2", "idle"]

    def stop(self) -> None:
        if shutil.which("scancel", path=self.env["PATH"]) and self.daemons.started:
            attempt("scancel", "--signal=KILL", "--full", "--user=root", env=self.env, seconds=20)
            attempt("scancel", "--user=root", env=self.env, seconds=20)
        self.daemons.stop()

    def submit(self, *arguments: str, tasks_per_node: int = 2) -> int:
        """Submit ``scripts/slurm.sbatch`` on both nodes."""
        options = ["--parsable", f"--ntasks-per-node={tasks_per_node}", f"--output={self.folder}/%j.log"]
        return int(run("sbatch", *options, "scripts/slurm.sbatch", *arguments, env=self.env))

    def job(self, number: int) -> Job:
        text = run("scontrol", "--oneliner", "show", "job", str(number), env=self.env)
        state, code = (re.search(rf"{name}=(\S+)", text)[1] for name in ("JobState", "ExitCode"))
        log = self.folder / f"{number}.log"
        return Job(state, code, log.read_text(errors="replace") if log.exists() else "")

    def finished(self, number: int, seconds: float) -> Job:
        """Wait until a job is over, and nothing of it runs."""
        try:
            wait_until(lambda: self.job(number).state not in ACTIVE, seconds, f"job {number} is over")
            wait_until(lambda: not self.processes(number), seconds, f"no process of job {number} is left")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.job(number)}\n{self.processes(number)}") from None
        return self.job(number)

    def processes(self, number: int) -> list:
        """What runs of a job of this cluster, and not of another one that counts its jobs from 1 too."""
        return list(processes_with(SLURM_JOB_ID=str(number), SLURM_CONF=self.env["SLURM_CONF"]))
