"""Scripts, manifests, Dockerfiles and the workflow, by their linters; and each linter on a file that is broken."""

import copy
import re

import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError
from typer.main import get_command

from shardinit.cli.commands import app
from shardinit.launch.detect import detect
from shardinit.launch.exits import NEVER_CAME, PREEMPTED, RETRY_HELPS
from tests.system.manifests import SkyPilotTask, check_kubernetes
from tests.system.processes import ROOT, attempt

SHELL = sorted([*ROOT.glob("scripts/*.sh"), ROOT / "scripts/slurm.sbatch", ROOT / "docker/healthy"])
DOCKERFILES = sorted(ROOT.glob("docker/*.Dockerfile"))
WORKFLOW = ROOT / ".github/workflows/ci.yml"
COMPOSE = ROOT / "docker/compose.yaml"
YAML = sorted([*ROOT.glob("scripts/**/*.yaml"), COMPOSE, WORKFLOW])
YAMLLINT = "{extends: default, rules: {line-length: {max: 120}, document-start: disable, truthy: {check-keys: false}}}"
SCHEMAS = {COMPOSE: "vendor.compose-spec", WORKFLOW: "vendor.github-workflows"}
LINTERS = {
    "shellcheck": ("shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--shell=bash"),
    "hadolint": ("hadolint", "--no-color"),
    "yamllint": ("yamllint", "--strict", "--config-data", YAMLLINT),
    **{schema: ("check-jsonschema", "--builtin-schema", schema) for schema in SCHEMAS.values()},
}
# Each is nearly right, so that what rejects it is the rule and not the form.
BROKEN = {
    "shellcheck": ("a.sh", "#!/usr/bin/env bash\nrm -r $1/cache\n"),
    "hadolint": ("a.Dockerfile", "FROM debian\nRUN cd /tmp && ls\n"),
    "yamllint": ("a.yaml", "one: 1\none: 2\n"),
    "vendor.compose-spec": ("a.yaml", "services:\n  a:\n    image: b\n    read_onl: true\n"),
    "vendor.github-workflows": ("a.yml", "on: push\njobs:\n  a:\n    runs_on: ubuntu-24.04\n    steps: []\n"),
}


def documents(name):
    return list(yaml.safe_load_all((ROOT / "scripts" / name).read_text()))


def set_by(pod):
    """Environment of the second pod, as Kubernetes makes it."""
    return {"JOB_COMPLETION_INDEX": "1", **{v["name"]: v["value"] for v in pod["containers"][0]["env"]}}


def options_of_run(arguments):
    """Read arguments of ``shardinit run`` as the command line does, without running it."""
    return get_command(app).commands["run"].make_context("run", list(arguments)).params


@pytest.mark.parametrize("path", SHELL + DOCKERFILES + YAML, ids=lambda p: p.name)
def test_linters_find_nothing(path):
    linter = "yamllint" if path in YAML else "hadolint" if path in DOCKERFILES else "shellcheck"
    done = attempt(*LINTERS[linter], path)
    assert done.returncode == 0, done.stdout
    assert done.stdout == ""


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda p: p.name)
def test_schemas_are_kept(path):
    done = attempt(*LINTERS[SCHEMAS[path]], path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("linter", LINTERS)
def test_a_broken_file_is_rejected(linter, tmp_path):
    name, text = BROKEN[linter]
    (tmp_path / name).write_text(text)
    done = attempt(*LINTERS[linter], tmp_path / name)
    assert done.returncode == 1, done.stdout
    assert name in done.stdout


@pytest.mark.parametrize("name", ["k8s/indexed-job.yaml", "k8s/jobset.yaml"])
def test_manifests_are_valid(name):
    for document in documents(name):
        check_kubernetes(document)


def _rename(old, new):
    def change(holder):
        holder[new] = holder.pop(old)

    return change


@pytest.mark.parametrize(
    ("name", "path", "change"),
    [
        ("k8s/indexed-job.yaml", [0, "spec"], _rename("publishNotReadyAddresses", "publishUnreadyAddresses")),
        ("k8s/indexed-job.yaml", [1, "spec"], _rename("podFailurePolicy", "failurePolicy")),
        ("k8s/indexed-job.yaml", [1, "spec", "template", "spec"], lambda s: s.update(restartPolicy=None, containers=0)),
        ("k8s/indexed-job.yaml", [1], lambda document: document.update(kind="IndexedJob")),
        ("k8s/jobset.yaml", [0], lambda document: document.update(kind="JobSets")),
        ("k8s/jobset.yaml", [0], lambda document: document.update(apiVersion="jobset.x-k8s.io/v1")),
        ("k8s/jobset.yaml", [0, "spec", "failurePolicy"], lambda policy: policy.update(maxRestarts="3")),
        ("k8s/jobset.yaml", [0, "spec", "failurePolicy", "rules", 0], lambda rule: rule.update(action="Fail")),
        ("k8s/jobset.yaml", [0, "spec", "replicatedJobs", 0, "template", "spec"], _rename("completions", "complete")),
    ],
)
def test_a_broken_manifest_is_rejected(name, path, change):
    broken = copy.deepcopy(documents(name))
    holder = broken
    for key in path:
        holder = holder[key]
    change(holder)
    with pytest.raises((kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError, ValidationError)):
        list(map(check_kubernetes, broken))


def test_pods_of_the_indexed_job_find_each_other_and_retry_where_it_helps():
    service, job = documents("k8s/indexed-job.yaml")
    pod = job["spec"]["template"]["spec"]
    spec = detect(set_by(pod))
    assert (spec.processes, spec.process_id) == (job["spec"]["completions"], 1)
    assert job["spec"]["parallelism"] == spec.processes
    assert spec.coordinator_address.host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    open_ports = [port["port"] for port in service["spec"]["ports"]]
    assert open_ports == [spec.coordinator_address.port, spec.control_port]
    fail, _, count = job["spec"]["podFailurePolicy"]["rules"]
    assert not set(fail["onExitCodes"]["values"]) & RETRY_HELPS
    assert set(count["onExitCodes"]["values"]) == RETRY_HELPS
    assert options_of_run(pod["containers"][0]["args"][1:])["grace"] < pod["terminationGracePeriodSeconds"]


def test_pods_of_the_jobset_find_each_other_and_retry_where_it_helps():
    (jobset,) = documents("k8s/jobset.yaml")
    (jobs,) = jobset["spec"]["replicatedJobs"]
    job = jobs["template"]["spec"]
    pod = job["template"]["spec"]
    spec = detect(set_by(pod))
    assert (spec.processes, spec.process_id) == (job["completions"], 1)
    assert job["parallelism"] == spec.processes
    first = f"{jobset['metadata']['name']}-{jobs['name']}-0-0.{jobset['spec']['network']['subdomain']}"
    assert spec.coordinator_address.host == first
    ports = [port["containerPort"] for port in pod["containers"][0]["ports"]]
    assert ports == [spec.coordinator_address.port, spec.control_port]
    (rule,) = job["podFailurePolicy"]["rules"]
    assert not set(rule["onExitCodes"]["values"]) & RETRY_HELPS
    assert options_of_run(pod["containers"][0]["args"][1:])["grace"] < pod["terminationGracePeriodSeconds"]


def test_both_manifests_run_the_same_pod():
    (_, job), (jobset,) = documents("k8s/indexed-job.yaml"), documents("k8s/jobset.yaml")
    one = job["spec"]["template"]["spec"]
    other = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    del one["subdomain"]
    for pod in (one, other):
        pod["containers"][0]["env"][0]["value"] = "the coordinator"
    assert one == other


def test_skypilot_task():
    (task,) = documents("skypilot.yaml")
    SkyPilotTask.model_validate(task)
    assert set(task["resources"]["job_recovery"]["recover_on_exit_codes"]) == RETRY_HELPS
    for stage in ("setup", "run"):
        done = attempt(*LINTERS["shellcheck"], "-", stdin=None, input=task[stage])
        assert done.returncode == 0, done.stdout
    with pytest.raises(ValidationError, match="num_node"):
        SkyPilotTask.model_validate({**task, "num_node": 2})
    with pytest.raises(ValidationError, match="NUMBER"):
        SkyPilotTask.model_validate({**task, "envs": {"NUMBER": 64}})


def test_the_images_differ_in_what_runs_on_them_alone():
    texts = []
    for path in DOCKERFILES:
        lines = path.read_text().partition("FROM ")[2].splitlines()
        own = ("ARG EXTRAS", "ENV JAX_PLATFORMS", "ENV NVIDIA_", "    NVIDIA_", "    TPU_", "# Where there is no ")
        texts.append([line for line in lines if not line.startswith(own)])
    assert texts[0] == texts[1] == texts[2]


def test_the_workflow_runs_every_combination_and_the_scripts():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    told = [(c["combination"], c["python"]) for c in jobs["stacks"]["strategy"]["matrix"]["include"]]
    lines = re.findall(r"^(py\S+) (3\.\d+) jax", (ROOT / "scripts/matrix.sh").read_text(), re.MULTILINE)
    assert told == lines
    assert len(lines) == 5
    assert jobs["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    text = WORKFLOW.read_text()
    for script in ("scripts/test.sh", "scripts/local.sh", "scripts/demo.sh", "scripts/system.sh"):
        assert script in text
        assert (ROOT / script).is_file()


def test_exit_codes_that_the_documentation_names():
    text = (ROOT / "docs/processes.md").read_text()
    for code in (2, 3, 4, 12, *RETRY_HELPS):
        assert f"| {code} |" in text
    assert {NEVER_CAME, PREEMPTED} < RETRY_HELPS
