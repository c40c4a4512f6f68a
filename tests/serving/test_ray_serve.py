"""Replicas on Ray, one of which is killed under load."""

import importlib.util
import os
import shutil
import signal
import socket
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from toolkit.bundle import move_label, share_traffic
from toolkit.serving.models import ModelTable

APP = Path(__file__).resolve().parents[2] / "apps" / "ray_serve"
MARK = "TOOLKIT_TEST_RUN"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "grpc_reflection")), reason="needs toolkit[ray]"
    ),
]


@pytest.fixture(scope="module")
def served(bundle):
    """The application on a cluster of two nodes, two replicas at least: its address, and a function for their ids."""
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    os.environ[MARK] = mark = uuid.uuid4().hex
    os.environ["PYTHONPATH"] = os.pathsep.join([str(APP), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(APP))
    node = {"num_cpus": 2, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        from replicas import Settings, build

        cluster.add_node(**node)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ray.init(cluster.address, log_to_driver=False)
        serve.start(http_options={"host": "127.0.0.1", "port": port, "location": "HeadOnly"})
        settings = Settings(directory=str(bundle.parent.parent), engine="litert", min_replicas=2, max_replicas=3)
        serve.run(build(settings), name="digits")
        yield f"http://127.0.0.1:{port}", lambda: replicas(mark)
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        sys.path.remove(str(APP))
        del os.environ[MARK]


def replicas(mark: str) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_own = mark.encode() in (process / "environ").read_bytes()
            if is_own and b"ServeReplica" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_replica_loads_all_versions_that_have_a_share(models_dir, monkeypatch):
    monkeypatch.syspath_prepend(APP)
    import replicas as app

    shutil.copytree(models_dir / "digits" / "1", models_dir / "digits" / "2")
    move_label(models_dir / "digits", "stable", 1)
    move_label(models_dir / "digits", "canary", 2)
    share_traffic(models_dir / "digits", 0.25)
    asked_for = []
    monkeypatch.setattr(ModelTable, "get", lambda table, *which: asked_for.append(which))
    app._loaded(app.Settings(directory=str(models_dir)))
    assert sorted(asked_for) == [("digits", 1), ("digits", 2)]


def test_a_replica_killed_under_load_costs_only_its_own_requests(served, images, b64):
    base, pids = served
    ended, codes = threading.Event(), Counter()
    assert httpx.get(f"{base}/readyz", timeout=60).json()["ready"]
    v1 = httpx.post(f"{base}/v1/models/digits:predict", json={"instances": [b64(images[0])]}, timeout=60)
    assert len(v1.json()["predictions"][0]["probabilities"]) == 10

    def client() -> None:
        with httpx.Client(timeout=60) as session:
            while not ended.is_set():
                answer = session.post(f"{base}/predict/digits", content=images[0])
                codes[answer.status_code if answer.status_code == 200 else answer.text[:80]] += 1

    def wait_until(condition) -> None:
        deadline = time.monotonic() + 180
        while not condition():
            assert time.monotonic() < deadline, codes
            time.sleep(0.1)

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        try:
            wait_until(lambda: codes[200] > 20)
            before = pids()
            assert len(before) == 2
            os.kill(before[0], signal.SIGKILL)
            so_far = codes[200]
            wait_until(lambda: codes[200] > so_far + 20)  # the other one goes on
            wait_until(lambda: len(set(pids()) - {before[0]}) == 2)
            so_far = codes[200]
            wait_until(lambda: codes[200] > so_far + 20)
        finally:
            ended.set()
        for each in clients:
            each.result()
    assert sum(codes.values()) - codes[200] <= 4, codes  # one a client at most
