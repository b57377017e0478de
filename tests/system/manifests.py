"""What the manifests in scripts/ may say. For what no installable tool checks: those fields that we use, strictly."""

from typing import Annotated, Any, Literal

import kubernetes_validate
from pydantic import BaseModel, ConfigDict, Field

KUBERNETES = "1.31"  # the oldest that the manifests are for
ExitCode = Annotated[int, Field(ge=1, le=255)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


# JobSet is no part of Kubernetes. Names and values are those of its v1alpha2.


class Metadata(Strict):
    name: str = Field(pattern="^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")


class Network(Strict):
    enableDNSHostnames: bool
    subdomain: str
    publishNotReadyAddresses: bool


class FailureRule(Strict):
    name: str
    action: Literal["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]
    onJobFailureReasons: list[
        Literal[
            "BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "MaxFailedIndexesExceeded", "PodFailurePolicy"
        ]
    ]


class FailurePolicy(Strict):
    maxRestarts: int = Field(ge=0)
    rules: list[FailureRule]


class ReplicatedJob(Strict):
    name: str
    replicas: int = Field(ge=1)
    template: dict[str, Any]  # of a Job: checked as one


class JobSetSpec(Strict):
    network: Network
    ttlSecondsAfterFinished: int
    failurePolicy: FailurePolicy
    replicatedJobs: list[ReplicatedJob] = Field(min_length=1)


class JobSet(Strict):
    apiVersion: Literal["jobset.x-k8s.io/v1alpha2"]
    kind: Literal["JobSet"]
    metadata: Metadata
    spec: JobSetSpec


class Recovery(Strict):
    strategy: Literal["FAILOVER", "EAGER_NEXT_REGION"]
    max_restarts_on_errors: int = Field(ge=0)
    recover_on_exit_codes: list[ExitCode]


class Resources(Strict):
    accelerators: str = Field(pattern="^[A-Za-z0-9-]+(:[0-9]+)?$")
    job_recovery: Recovery


class SkyPilotTask(Strict):
    name: str
    num_nodes: int = Field(ge=1)
    workdir: str
    resources: Resources
    envs: dict[str, str]
    setup: str
    run: str


def check_kubernetes(document: dict[str, Any]) -> None:
    """Raise if a manifest, or a Job within one, is not valid. An unknown kind is not."""
    if document.get("kind") != "JobSet":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    for job in JobSet.model_validate(document).spec.replicatedJobs:
        metadata = {"name": job.name, **job.template.get("metadata", {})}
        template = {"apiVersion": "batch/v1", "kind": "Job", **job.template, "metadata": metadata}
        kubernetes_validate.validate(template, KUBERNETES, strict=True)
