"""cluster.yaml, jobs/rayjob.yaml and the Dockerfile are accepted, and keep what docs promise."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import raymia

REPOSITORY = Path(__file__).parents[2]
CLUSTER_FILE = REPOSITORY / "cluster.yaml"
RAY_JOB_FILE = REPOSITORY / "jobs" / "rayjob.yaml"
CONSTRAINTS = REPOSITORY / "jobs" / "constraints.txt"
DOCKERFILE = REPOSITORY / "Dockerfile"
DOCKERIGNORE = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
YAML = re.compile(r"```yaml\n(.*?)```", re.S)
POOLS = ("target", "paraphraser", "reference")


@pytest.fixture
def cluster() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(CLUSTER_FILE.read_text(encoding="utf-8"))
    return content


def check_with_ray(content: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(content))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    kinds = check_with_ray(cluster)["available_node_types"]
    assert set(kinds) == {"head", "cpu", *POOLS}
    assert all(kind["max_workers"] > 0 for name, kind in kinds.items() if name != "head")


def test_ray_would_refuse_a_key_it_does_not_know(cluster: dict[str, Any]) -> None:
    cluster["max_worker"] = 3
    with pytest.raises(Exception, match="max_worker"):
        check_with_ray(cluster)


def test_the_head_takes_no_tasks_and_is_not_a_spot_machine(cluster: dict[str, Any]) -> None:
    head = cluster["available_node_types"][cluster["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert "InstanceMarketOptions" not in head["node_config"]


def test_ray_starts_with_token_authentication_and_a_dashboard_on_loopback(
    cluster: dict[str, Any],
) -> None:
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in cluster[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_each_pool_has_machines_of_its_own_that_come_and_go(cluster: dict[str, Any]) -> None:
    kinds = {name: cluster["available_node_types"][name] for name in POOLS}
    assert len({kind["node_config"]["InstanceType"] for kind in kinds.values()}) == len(POOLS)
    for name, kind in kinds.items():
        assert kind["labels"] == {"raymia/pool": name}
        assert kind["min_workers"] == 0 < kind["max_workers"]
        assert kind["idle_timeout_s"] >= 300
    spot = {n for n, kind in kinds.items() if "InstanceMarketOptions" in kind["node_config"]}
    assert spot == {"target", "paraphraser"}  # references are trained on their machines


@pytest.mark.long
def test_what_ec2_is_asked_is_what_it_knows(cluster: dict[str, Any]) -> None:
    """Names and types of RunInstances, from Amazon's own description of its API."""
    for kind in cluster["available_node_types"].values():
        assert ec2_problems(kind["node_config"]) == ""
    wrong = {**kind["node_config"], "InstanceMarketOption": {"MarketType": "spot"}}
    assert "InstanceMarketOption" in ec2_problems(wrong)
    wrong = {**kind["node_config"], "BlockDeviceMappings": [{"Ebs": {"VolumeSize": "200 GB"}}]}
    assert "Invalid type for parameter BlockDeviceMappings[0].Ebs.VolumeSize" in ec2_problems(wrong)


def ec2_problems(node_config: dict[str, Any]) -> str:
    from botocore.session import get_session
    from botocore.validate import ParamValidator

    run = get_session().get_service_model("ec2").operation_model("RunInstances")
    count = {"MinCount": 1, "MaxCount": 1}  # Ray gives these
    report = ParamValidator().validate({**node_config, **count}, run.input_shape)
    return str(report.generate_report())


def test_disks_are_encrypted_and_credentials_are_roles(cluster: dict[str, Any]) -> None:
    for name, kind in cluster["available_node_types"].items():
        config = kind["node_config"]
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"])
        assert config["MetadataOptions"]["HttpTokens"] == "required"
        assert ("IamInstanceProfile" in config) == (name != "head")
    assert "AKIA" not in CLUSTER_FILE.read_text(encoding="utf-8")


# ------------------------------------------------------------------------- the image


def test_machines_start_from_the_image_and_run_no_pip(
    cluster: dict[str, Any], job: dict[str, Any]
) -> None:
    assert "setup_commands" not in cluster
    image = f"registry.example/raymia:{raymia.__version__}"
    docker = cluster["docker"]
    assert (docker["head_image"], docker["worker_image"]) == (f"{image}-cpu", f"{image}-gpu")
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    (head,), *workers = (
        [c["image"] for c in group["template"]["spec"]["containers"]] for group in groups
    )
    assert head == f"{image}-cpu"
    assert workers == [[f"{image}-gpu"]] * len(POOLS)


def test_the_image_is_rays_own_of_the_pinned_version() -> None:
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    (start,) = (line for line in lines if line.startswith("FROM"))
    device, pinned = "${DEVICE}", pins()["ray"]
    assert start == f"FROM rayproject/ray:{pinned}-py311-{device}"
    ray = next(w for w in map(Requirement, PROJECT["dependencies"]) if w.name == "ray")
    assert ray.specifier.contains(pinned)
    assert SpecifierSet(PROJECT["requires-python"]).contains("3.11")


def test_the_image_has_every_package_as_pinned_and_raymia_alone_on_top() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    packages, own = re.findall(r"^RUN (.*?[^\\])$", text, re.M | re.S)
    for file in re.findall(r"source=(\S+?),", packages):
        assert (REPOSITORY / file).is_file()
        assert f"!{file}" in DOCKERIGNORE or f"!{Path(file).parts[0]}" in DOCKERIGNORE
    assert "--constraint /build/constraints.txt --requirement /build/all.txt" in packages
    assert '--no-deps "$HOME/raymia"' in own
    # Ray's image builds as a user who may write to its home, and not to other folders.
    assert re.findall(r"(?:cp -r /build/context|rm -r) (\S+)", own) == ['"$HOME/raymia"'] * 2
    # What the build reads: the project's own description of itself.
    needed = {"pyproject.toml", "raymia", PROJECT["readme"], *PROJECT["license-files"]}
    assert {f"!{name}" for name in needed} <= set(DOCKERIGNORE)


def test_the_ways_to_build_it_are_those_of_the_files_that_name_it() -> None:
    for page in (DOCKERFILE, REPOSITORY / "docs" / "clusters.md"):
        text = page.read_text(encoding="utf-8")
        for device in ("cpu", "gpu"):
            tag = f"registry.example/raymia:{raymia.__version__}-{device}"
            assert f"docker build --build-arg DEVICE={device} --tag {tag} ." in text


def test_machines_without_the_image_install_the_same() -> None:
    """The trial of docs/clusters.md, as Ray takes it."""
    page = (REPOSITORY / "docs" / "clusters.md").read_text(encoding="utf-8")
    (shown,) = (yaml.safe_load(b) for b in YAML.findall(page) if "setup_commands" in b)
    (setup,) = shown["setup_commands"]
    assert "--constraint jobs/constraints.txt" in setup
    for image in (shown["docker"]["head_image"], shown["docker"]["worker_image"]):
        assert image.startswith(f"rayproject/ray:{pins()['ray']}-py311-")
    content = yaml.safe_load(CLUSTER_FILE.read_text(encoding="utf-8"))
    check_with_ray({**content, **shown, "docker": {**content["docker"], **shown["docker"]}})


def pins() -> dict[str, str]:
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


# ------------------------------------------------------------------------- Kubernetes

RAY_JOB = {
    "entrypoint": str, "shutdownAfterJobFinishes": bool, "ttlSecondsAfterFinished": int,
    "backoffLimit": int, "rayClusterSpec": dict, "runtimeEnvYAML": str, "submissionMode": str,
    "activeDeadlineSeconds": int, "suspend": bool,
}  # fmt: skip
RAY_CLUSTER = {
    "rayVersion": str, "enableInTreeAutoscaling": bool, "autoscalerOptions": dict,
    "authOptions": dict, "headGroupSpec": dict, "workerGroupSpecs": list,
}  # fmt: skip
AUTOSCALER = {"version": str, "upscalingMode": str, "idleTimeoutSeconds": int, "resources": dict}
HEAD_GROUP = {"rayStartParams": dict, "template": dict, "serviceType": str, "labels": dict}
WORKER_GROUP = {
    "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "labels": dict,
    "idleTimeoutSeconds": int, "rayStartParams": dict, "template": dict,
}  # fmt: skip
POD = {
    "serviceAccountName": str, "restartPolicy": str, "nodeSelector": dict, "tolerations": list,
    "containers": list, "volumes": list,
}  # fmt: skip
CONTAINER = {
    "name": str, "image": str, "resources": dict, "volumeMounts": list, "env": list,
}  # fmt: skip
"""Fields of ray.io/v1 and of pods that the manifest may use, with their types; as the definition of
KubeRay 1.6 has them, against which the whole manifest was validated when it was written."""


@pytest.fixture
def job() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(RAY_JOB_FILE.read_text(encoding="utf-8"))
    return content


def check_fields(found: dict[str, Any], known: dict[str, type], where: str) -> None:
    for key, value in found.items():
        assert key in known, f"{where}.{key} is no field of it"
        assert type(value) is known[key], f"{where}.{key} is a {type(value).__name__}"


def check_pod(template: dict[str, Any], where: str) -> None:
    assert set(template) <= {"metadata", "spec"}
    check_fields(template["spec"], POD, where)
    for container in template["spec"]["containers"]:
        check_fields(container, CONTAINER, f"{where}.containers")
        for amounts in container["resources"].values():
            assert all(isinstance(amount, str) for amount in amounts.values())


def test_the_ray_job_has_fields_of_its_definition_alone(job: dict[str, Any]) -> None:
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_fields(job["spec"], RAY_JOB, "spec")
    cluster = job["spec"]["rayClusterSpec"]
    check_fields(cluster, RAY_CLUSTER, "rayClusterSpec")
    check_fields(cluster["autoscalerOptions"], AUTOSCALER, "autoscalerOptions")
    check_fields(cluster["headGroupSpec"], HEAD_GROUP, "headGroupSpec")
    check_pod(cluster["headGroupSpec"]["template"], "head")
    for group in cluster["workerGroupSpecs"]:
        check_fields(group, WORKER_GROUP, group["groupName"])
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= set(group)
        check_pod(group["template"], group["groupName"])
        for params in (group["rayStartParams"], cluster["headGroupSpec"]["rayStartParams"]):
            assert all(isinstance(value, str) for value in params.values())


def test_the_ray_job_keeps_what_docs_promise(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"  # the first does not know labels
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == set(POOLS)
    for name, group in groups.items():
        assert group["labels"] == {"raymia/pool": name}
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        for container in group["template"]["spec"]["containers"]:
            assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
            assert container["resources"]["limits"] == container["resources"]["requests"]
