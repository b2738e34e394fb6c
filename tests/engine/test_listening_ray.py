"""A Ray that raymia starts listens on this machine's own address alone."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import pytest
from ray_fixtures import child_environment, ended

PROGRAM = """
import os, ray, sys
from raymia.engine.on_ray.cluster import connected
from raymia.spec import ResourcesSpec

sys.path.append("{folder}")
from test_listening_ray import addresses

before = dict(os.environ)
with connected(ResourcesSpec(engine="ray", cpus=1)):
    ray.get(ray.remote(num_cpus=0)(lambda: 0).remote())
    print("LISTENING:", sorted(addresses("{mark}")))
changed = before.items() ^ os.environ.items()
print("CHANGED:", sorted(changed))
"""
LISTENS = "0A"


def addresses(mark: str) -> set[str]:
    """Addresses that processes listen at whose environment has a text."""
    sockets: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                process.name != str(os.getpid())
                and mark.encode() not in (process / "environ").read_bytes()
            ):
                continue
            sockets |= {str(one.readlink()) for one in (process / "fd").iterdir()}
        except OSError:  # it is another user's, or has ended
            continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            place, _, state = line.split()[1:4]
            if state == LISTENS and f"socket:[{line.split()[9]}]" in sockets:
                found.add(_address(place.partition(":")[0]))
    return found


def _address(written: str) -> str:
    """From the kernel's words of four bytes, each with the last byte first."""
    words = [bytes.fromhex(written[n : n + 8])[::-1] for n in range(0, len(written), 8)]
    return str(ip_address(b"".join(words)))


def is_own(address: str) -> bool:
    one = ip_address(address)
    mapped = one.ipv4_mapped if isinstance(one, IPv6Address) else None
    return (mapped or one).is_loopback


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc to look into")
@pytest.mark.usefixtures("own_ray")
def test_no_process_of_it_listens_on_another_address(tmp_path: Path) -> None:
    environment, mark = child_environment()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=Path(__file__).parent, mark=mark))
    with ended(mark):
        done = subprocess.run(
            [sys.executable, str(program)],
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    listening = ast.literal_eval(said["LISTENING"])
    assert listening, "the processes of Ray are found"
    assert [one for one in listening if not is_own(one)] == []
    assert said["CHANGED"] == "[]"
