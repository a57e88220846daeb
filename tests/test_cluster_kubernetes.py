"""Kubernetes manifests of ``lit_configs/cluster``: their fields, and the commands of their pods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from tests.helpers.cluster import CONFIG, FOLDER, JOBS, PIPELINE, RAY, Dry, configs, ended

MANIFESTS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture
def dry(tmp_path: Path) -> Dry:
    return Dry(tmp_path)


def test_there_are_manifests():
    assert [path.name for path in MANIFESTS] == ["k8s_array.yaml", "k8s_merge.yaml", "k8s_ray.yaml"]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_a_manifest_has_what_its_kind_requires(manifest: Path):
    """Job: pods that do not restart for ever. RayJob: head and workers. Every mount has a volume of its pod."""
    assert f"#   kubectl apply -f lit_configs/cluster/{manifest.name}\n" in manifest.read_text()
    tree = yaml.safe_load(manifest.read_text())
    spec = tree["spec"]
    assert re.fullmatch("[a-z][a-z-]*", tree["metadata"]["name"])
    if tree["kind"] == "RayJob":
        assert tree["apiVersion"] == "ray.io/v1"
        assert isinstance(spec["entrypoint"], str)
        assert spec["shutdownAfterJobFinishes"] is True
        cluster = spec["rayClusterSpec"]
        assert re.fullmatch(r"2\.\d+\.\d+", cluster["rayVersion"])
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        assert all(all(isinstance(value, str) for value in group["rayStartParams"].values()) for group in groups)
        assert [(g["groupName"], g["minReplicas"] <= g["replicas"] <= g["maxReplicas"]) for g in groups[1:]] == [
            ("gpu", True)
        ]
        pods = [group["template"]["spec"] for group in groups]
        assert ["nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"] for pod in pods] == [False, True]
    else:
        assert (tree["apiVersion"], tree["kind"]) == ("batch/v1", "Job")
        pods = [spec["template"]["spec"]]
        assert pods[0]["restartPolicy"] == "Never"
        assert isinstance(spec["backoffLimitPerIndex" if "completionMode" in spec else "backoffLimit"], int)
    for pod in pods:
        (container,) = pod["containers"]
        assert container.keys() >= {"name", "image", "workingDir", "resources"}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        mounted = [mount["name"] for mount in container["volumeMounts"]]
        assert mounted == [volume["name"] for volume in pod["volumes"]]


def test_the_ray_job_runs_the_pipeline_of_the_slurm_script(dry):
    """KubeRay's submitter has a shell read the entrypoint, and Ray's head another one: as one word if it is quoted."""
    entrypoint = yaml.safe_load((FOLDER / "k8s_ray.yaml").read_text())["spec"]["entrypoint"]
    assert not set('$"\\`') & set(entrypoint)
    ended(dry.start(["bash", "-c", entrypoint]))
    assert dry.log() == [[*PIPELINE, "--set", RAY]]


def test_pods_of_the_indexed_job_and_their_merging(dry, capsys):
    """Index 0 is shard 1; as many shards as completions."""
    spec = yaml.safe_load((FOLDER / "k8s_array.yaml").read_text())["spec"]
    assert spec["completionMode"] == "Indexed"
    for manifest, index in (("k8s_array.yaml", "0"), ("k8s_array.yaml", "15"), ("k8s_merge.yaml", "")):
        (container,) = yaml.safe_load((FOLDER / manifest).read_text())["spec"]["template"]["spec"]["containers"]
        ended(dry.start([*container["command"], *container["args"]], JOB_COMPLETION_INDEX=index))
    last = spec["completions"]
    assert dry.log() == [
        ["sampling", "generate", "--config", CONFIG, "--shard", f"1/{last}", "--output", f"{JOBS}/1"],
        ["sampling", "generate", "--config", CONFIG, "--shard", f"{last}/{last}", "--output", f"{JOBS}/{last}"],
        ["sampling", "generate", "--config", CONFIG, "--reuse_from", f"[{JOBS}/*]"],
    ]
    assert [config["shard"] for config in configs(dry.log(), capsys)] == [f"1/{last}", f"{last}/{last}", None]
