"""A cluster of Ray's fake nodes grows for a plan's pools by GPU type, and shrinks afterwards."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_fixtures import child_environment, ended, free_port, start, wait_until
from small_audit import Models, passages, write_small_audit

pytestmark = pytest.mark.usefixtures("own_ray")

RAY = str(Path(sys.executable).with_name("ray"))
HEAD_NODE = "f" * 51 + "00000"
HEAD_GROUP = "ray.head.default"
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
GROUPS = {
    "target": {"CPU": 1, "GPU": 1, "accelerator_type:A10G": 1},
    "paraphraser": {"CPU": 1, "GPU": 1, "accelerator_type:T4": 1},
}
LAUNCHING = r"Launching (\d+) nodes, type (\w+)"
MEMORY = 100 * 2**20
SEEN = """
import json, logging, ray

ray.init(log_to_driver=False, logging_level=logging.ERROR)
print(json.dumps([n["Labels"].get("ray.io/node-group") for n in ray.nodes() if n["Alive"]]))
"""


@dataclass(frozen=True)
class Growing:
    """A head that starts machines of two GPU types; environment of its drivers."""

    environment: dict[str, str]

    def up(self) -> Counter[str]:
        """How many machines of each group are up."""
        done = subprocess.run(
            [sys.executable, "-c", SEEN], env=self.environment, capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        return Counter(g for g in json.loads(done.stdout.splitlines()[-1]) if g in GROUPS)

    def started(self) -> Counter[str]:
        """How many machines of each group the autoscaler has started so far."""
        logs = Path(self.environment["RAY_TMPDIR"], "session_latest", "logs")
        found = Counter[str]()
        for log in logs.glob("monitor.log*"):
            for count, group in re.findall(LAUNCHING, log.read_text()):
                found[group] += int(count)
        return found


@pytest.fixture(scope="module")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Growing]:
    """With Ray's first autoscaler, or its second, that of `ray up` and of `jobs/rayjob.yaml`."""
    folder, port = tmp_path_factory.mktemp("autoscaling"), free_port()
    address = f"127.0.0.1:{port}"
    environment, mark = child_environment(
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=uuid.uuid4().hex, RAY_FAKE_CLUSTER="1",
        AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_enable_autoscaler_v2=str(request.param - 1),
    )  # fmt: skip
    of_the_head = {
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE, "RAY_CLOUD_INSTANCE_ID": HEAD_NODE,
        "RAY_NODE_TYPE_NAME": HEAD_GROUP,
    }  # fmt: skip
    kinds: dict[str, Any] = {
        name: {
            "resources": {**resources, "object_store_memory": MEMORY}, "node_config": {},
            "labels": {"raymia/pool": name}, "min_workers": 0, "max_workers": 2,
        }
        for name, resources in GROUPS.items()
    }  # fmt: skip
    kinds[HEAD_GROUP] = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "growing", "max_workers": 4, "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external", "module": PROVIDER, "use_node_id_as_ip": True,
            "disable_node_updaters": True, "disable_launch_config_check": True,
            "gcs_address": address,
        },
        "available_node_types": kinds, "head_node_type": HEAD_GROUP,
        "upscaling_speed": 100.0, "auth": {}, "docker": {}, "file_mounts": {},
        "cluster_synced_files": [], "file_mounts_sync_continuously": False, "rsync_exclude": [],
        "rsync_filter": [], "initialization_commands": [], "setup_commands": [],
        "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }  # fmt: skip
    (folder / "cluster.json").write_text(json.dumps(config))
    command = [
        RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}",
        "--num-cpus=1", "--include-dashboard=false", f"--temp-dir={environment['RAY_TMPDIR']}",
        "--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={MEMORY}",
        "--disable-usage-stats", f"--dashboard-agent-listen-port={free_port()}",
        f"--autoscaling-config={folder / 'cluster.json'}",
    ]  # fmt: skip
    growing = Growing({**environment, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"})
    output = folder / "head.txt"
    with ended(mark):
        process = start(command, environment | of_the_head, output)

        def ready() -> bool:
            assert process.poll() is None, output.read_text()
            return "Ray runtime started" in output.read_text()

        wait_until(ready, 120, "the head runs")
        yield growing


def audit_file(folder: Path, models: Models, **resources: Any) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, engine="ray", members=texts[:4], non_members=texts[24:28], references=None,
        resources={"block_records": 2, **resources},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_machines_of_the_right_types_come_up_for_the_pools_and_go_afterwards(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    file = audit_file(
        tmp_path, models,
        target={"gpus": 1, "accelerator_type": "A10G", "actors": 1, "max_actors": 2},
        paraphraser={"gpus": 1, "accelerator_type": "T4", "labels": {"raymia/pool": "paraphraser"}},
    )  # fmt: skip
    content = yaml.safe_load(file.read_text())
    content["targets"][0]["dtype"] = "float32"
    file.write_text(yaml.safe_dump(content))
    assert cluster.up() == {}
    audit = subprocess.Popen(
        [sys.executable, "-m", "raymia", "audit", str(file)], env=cluster.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    printed, _ = audit.communicate(timeout=400)
    assert audit.returncode == 0, printed
    assert (
        "asking for machines: neighbors needs 1 GPU, a GPU of type T4, the label raymia/pool: "
        "paraphraser, and no machine has it" in printed
    )
    started = cluster.started()
    assert started["paraphraser"] == 1
    assert started["target"] >= 2  # one that idles for six seconds goes, and is asked for again
    assert set(started) == {"paraphraser", "target"}
    wait_until(lambda: cluster.up() == {}, 180, "the machines go when nobody needs them")


@pytest.mark.parametrize("cluster", [1], indirect=True)
def test_what_no_group_can_hold_is_refused_at_once(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    assert refusals(cluster, tmp_path, models) == [
        "resources: neighbors needs 1 GPU, a GPU of type H100, and no machine has that type "
        "(types here: A10G, T4)",
        "resources: target:tuned needs 3 actors with 1 GPU, a GPU of type A10G each, and there is "
        "room for 2",
    ]
    assert cluster.up() == {}


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_what_the_autoscaler_says_it_cannot_start_is_refused(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    """The second says what it cannot start, and not what it can."""
    first, _ = refusals(cluster, tmp_path, models)
    assert first.startswith("resources: neighbors needs 1 GPU, a GPU of type H100, and no machine")
    assert first.endswith(", and the autoscaler can start none")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [2], indirect=True)
def test_a_pool_that_may_grow_beyond_all_machines_runs_on_those_there_can_be(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    """The second autoscaler starts nothing of a request that it cannot start the whole of."""
    file = audit_file(
        tmp_path, models,
        target={"gpus": 1, "accelerator_type": "A10G", "actors": 1, "max_actors": 4},
        paraphraser={"labels": {"raymia/pool": "paraphraser"}},
    )  # fmt: skip
    content = yaml.safe_load(file.read_text())
    content["targets"][0]["dtype"] = "float32"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [sys.executable, "-m", "raymia", "audit", str(file)], env=cluster.environment,
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "asking for machines: neighbors needs" in done.stdout


def refusals(cluster: Growing, folder: Path, models: Models) -> list[str]:
    """What an audit is refused for that wants a type nobody has, and too many of another."""
    file = audit_file(
        folder, models, target={"actors": 3, "gpus": 1, "accelerator_type": "A10G"},
        paraphraser={"gpus": 1, "accelerator_type": "H100"},
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "raymia", "audit", str(file)], env=cluster.environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    return [line.strip() for line in done.stderr.splitlines() if "resources:" in line]
