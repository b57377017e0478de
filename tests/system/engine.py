"""A real Docker engine, with all that it keeps in a folder of its own, and the images that the tests need."""

import json
import os
from pathlib import Path

from tests.system.processes import Daemons, attempt, environment, run, wait_until

DEBIAN = "trixie"
BASE = f"debian:{DEBIAN}-slim"
IMAGE = "shardinit:cpu"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LEFT_OUT = ("doc", "info", "locale", "man")  # as in the real one


class Engine:
    """``dockerd`` and its client; nothing of the machine's own network or firewall is changed."""

    def __init__(self, folder: Path):
        self.folder = folder
        socket = f"unix://{folder}/socket"
        self.env = environment(DOCKER_HOST=socket, DOCKER_CONFIG=folder / "config", DOCKER_BUILDKIT="1")
        self.daemons = Daemons(folder, self.env)

    def start(self) -> None:
        places = [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid"]
        network = ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        self.daemons.start("dockerd", "dockerd", *places, *network, "--host", self.env["DOCKER_HOST"])
        wait_until(self._is_up, 60, "dockerd answers")

    def _is_up(self) -> bool:
        self.daemons.check()
        return attempt("docker", "version", env=self.env).returncode == 0

    def stop(self) -> None:
        if self.daemons.started:
            found = attempt("docker", "ps", "--all", "--quiet", env=self.env, seconds=30).stdout.split()
            attempt("docker", "rm", "--force", *found, env=self.env, seconds=60)
            attempt("docker", "network", "prune", "--force", env=self.env, seconds=30)
        self.daemons.stop()
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounted if place.startswith(f"{self.folder}/")]):
            attempt("umount", place)  # or the folder could not be removed

    def docker(self, *arguments: str | Path, seconds: float = 60) -> str:
        return run("docker", *arguments, env=self.env, seconds=seconds)

    def compose(self, *arguments: str | Path, project: str, seconds: float = 90, **variables: str) -> str:
        """Run compose: the plugin of the client, or Debian's program."""
        has_plugin = attempt("docker", "compose", "version", env=self.env).returncode == 0
        program = ["docker", "compose"] if has_plugin else ["docker-compose"]
        env = {**self.env, "COMPOSE_PROJECT_NAME": project, **variables}
        return run(*program, "--file", "docker/compose.yaml", *arguments, env=env, seconds=seconds)

    def make_base(self) -> None:
        """Make, from Debian's packages, what the registry has under the name of ``BASE``."""
        archive = self.folder / "base.tar"
        # Packages from registries may come by a proxy with a certificate that only this machine knows.
        settings = r"[global]\ncert = /etc/machine.crt\n"
        trust = f'cp {CERTIFICATES} "$1/etc/machine.crt"; printf "{settings}" > "$1/etc/pip.conf"'
        run(
            "mmdebstrap",
            "--variant=minbase",
            "--include=usr-is-merged",
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
            f"--customize-hook={trust}",
            DEBIAN,
            archive,
            env=self.env,
            seconds=240,
        )
        self.docker("import", archive, BASE, seconds=120)
        archive.unlink()

    def build(self) -> None:
        """Build the CPU image."""
        if os.environ.get("BASE_IMAGE") == "pull":
            self.docker("pull", BASE, seconds=120)
        else:
            self.make_base()
        options = ["--network=host", "--progress=plain", "--file=docker/cpu.Dockerfile", f"--tag={IMAGE}"]
        self.docker("build", *options, ".", seconds=400)

    def inspect(self, what: str) -> dict:
        return json.loads(self.docker("inspect", what))[0]
