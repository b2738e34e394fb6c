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

RAY = str(Path(sys.executable).with_name("ray"))
HEAD_NODE = "f" * 51 + "00000"
GROUPS = {
    "target": {"CPU": 1, "GPU": 1, "accelerator_type:A10G": 1},
    "paraphraser": {"CPU": 1, "GPU": 1, "accelerator_type:T4": 1},
}
ADDED = r"Adding (\d+) node\(s\) of type (\w+)\."
MEMORY = 100 * 2**20
SEEN = """
import json, logging, ray
ray.init(log_to_driver=False, logging_level=logging.ERROR)
print(json.dumps([n["Labels"].get("ray.io/node-group") for n in ray.nodes() if n["Alive"]]))
"""


@dataclass(frozen=True)
class Growing:
    """A head that starts machines of two GPU types; environment of its drivers, and its logs."""

    environment: dict[str, str]
    logs: Path

    def groups(self) -> Counter[str]:
        """How many machines of each group are up, without the head."""
        done = subprocess.run(
            [sys.executable, "-c", SEEN], env=self.environment, capture_output=True, text=True,
            timeout=120, check=True,
        )  # fmt: skip
        return Counter(g for g in json.loads(done.stdout.splitlines()[-1]) if g in GROUPS)

    def started(self) -> Counter[str]:
        """How many machines of each group the autoscaler has started so far."""
        log = "".join(path.read_text() for path in self.logs.glob("monitor*.log"))
        return sum(
            (Counter({name: int(n)}) for n, name in re.findall(ADDED, log)), start=Counter[str]()
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Growing]:
    folder, port = tmp_path_factory.mktemp("autoscaling"), free_port()
    address = f"127.0.0.1:{port}"
    environment, mark = child_environment(
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=uuid.uuid4().hex, RAY_FAKE_CLUSTER="1",
        AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_NODE,
    )  # fmt: skip
    kinds: dict[str, Any] = {
        name: {
            "resources": {**resources, "object_store_memory": MEMORY}, "node_config": {},
            "labels": {"raymia/pool": name}, "min_workers": 0, "max_workers": 2,
        }
        for name, resources in GROUPS.items()
    }  # fmt: skip
    kinds["ray.head.default"] = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}
    config = {
        "cluster_name": "growing", "max_workers": 4, "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True, "gcs_address": address,
        },
        "available_node_types": kinds, "head_node_type": "ray.head.default",
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
    drivers = {k: v for k, v in environment.items() if k != "RAY_OVERRIDE_NODE_ID_FOR_TESTING"}
    growing = Growing(
        {**drivers, "RAY_ADDRESS": address, "PYTHONUNBUFFERED": "1"},
        Path(environment["RAY_TMPDIR"], "session_latest", "logs"),
    )
    output = folder / "head.txt"
    with ended(mark):
        process = start(command, environment, output)

        def ready() -> bool:
            assert process.poll() is None, output.read_text()
            return "Ray runtime started" in output.read_text()

        wait_until(ready, 120, "the head runs")
        yield growing


def audit_file(folder: Path, models: Models, **resources: Any) -> Path:
    texts = passages()
    return write_small_audit(
        folder, models, members=texts[:4], non_members=texts[24:28], references=None,
        resources={"block_records": 2, **resources},
    )  # fmt: skip


def test_machines_of_the_right_types_come_up_for_the_pools_and_go_afterwards(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    file = audit_file(
        tmp_path, models,
        target={"gpus": 1, "accelerator_type": "A10G", "actors": 1, "most_actors": 2},
        paraphraser={"gpus": 1, "accelerator_type": "T4", "labels": {"raymia/pool": "paraphraser"}},
    )  # fmt: skip
    content = yaml.safe_load(file.read_text())
    content["targets"][0]["dtype"] = "float32"
    file.write_text(yaml.safe_dump(content))
    assert cluster.groups() == {}
    audit = subprocess.Popen(
        [sys.executable, "-m", "raymia", "audit", str(file)], env=cluster.environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    printed, _ = audit.communicate(timeout=400)
    assert audit.returncode == 0, printed
    waiting = "s): neighbors needs 1 GPU, a GPU of type T4, the label raymia/pool: paraphraser, and"
    assert waiting in printed
    started = cluster.started()
    assert started["paraphraser"] == 1
    assert started["target"] >= 2  # one that idles for six seconds goes, and is asked for again
    wait_until(lambda: cluster.groups() == {}, 180, "the machines go when nobody needs them")


def test_what_no_group_can_hold_is_refused_at_once(
    cluster: Growing, tmp_path: Path, models: Models
) -> None:
    file = audit_file(
        tmp_path, models, target={"actors": 3, "gpus": 1, "accelerator_type": "A10G"},
        paraphraser={"gpus": 1, "accelerator_type": "H100"},
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "raymia", "audit", str(file)], env=cluster.environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    assert (
        "resources: neighbors needs 1 GPU, a GPU of type H100, and no machine has that type "
        "(types here: A10G, T4)" in done.stderr
    )
    assert (
        "resources: target:tuned needs 3 actors with 1 GPU, a GPU of type A10G each, and there is "
        "room for 2" in done.stderr
    )
    assert cluster.groups() == {}
