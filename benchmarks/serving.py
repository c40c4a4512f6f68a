"""The server beside the same network used offline, and beside an older tree's server: answers a second, latencies.

    python benchmarks/serving.py saved_models/flowers --images data/flowers --base ../older-tree
    python benchmarks/serving.py saved_models/flowers --images data/flowers --seconds 2

In one run, by turns: pictures decoded and answered offline, each server under as many clients as never pause
(closed loop), and the new one at 70 % of what it then carried and at three times that (open loop). Every answer is
compared with the offline one. Each server is a process of its own; its clients are this one, over loopback.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from toolkit.machine import processor

ROOT = Path(__file__).resolve().parents[1]
#: Requests in flight at most, whatever load is asked for.
MAX_IN_FLIGHT = 512

OFFLINE = """
import json, sys, time
from pathlib import Path
from toolkit.inference import Predictor
bundle, engine, seconds, *paths = sys.argv[1:]
predictor = Predictor.load(bundle, engine)
pictures = [Path(path).read_bytes() for path in paths]
first = [row.tolist() for row in predictor.probabilities(pictures)]
count, start, cpu = 0, time.perf_counter(), time.process_time()
while time.perf_counter() - start < float(seconds):
    count += len(predictor.probabilities(pictures))
wall, cpu = time.perf_counter() - start, time.process_time() - cpu
facts = {"per_s": count / wall, "cpu_ms": 1e3 * cpu / count, "engine": predictor.engine_name}
print(json.dumps({"facts": facts, "answers": first}))
"""


class Outcome(NamedTuple):
    """An answered request: its status, its seconds, which picture it had, and the answer."""

    status: int
    seconds: float
    picture: int
    body: bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="NAME, with its versions")
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--num-images", type=int, default=64)
    parser.add_argument("--engine", default="recommended")
    parser.add_argument("--base", type=Path, help="an older tree of this project, whose server is measured too")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1, help="of the closed loops, by turns; medians are told")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    report = measure(arguments)
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    paths = sorted(arguments.images.rglob("*.jpg"))[: arguments.num_images]
    version = max(
        (path for path in arguments.bundle.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)
    )
    kinds = {f"new, {number} worker{'s' * (number > 1)}": (ROOT, number) for number in arguments.workers}
    if arguments.base:
        kinds = {"base": (arguments.base.resolve(), 0)} | kinds
    offline_facts, rows = [], {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        offline = run_offline(version, arguments.engine, arguments.seconds, paths)
        offline_facts.append(offline["facts"])
        requests = [as_request(arguments.bundle.name, path.read_bytes()) for path in paths]
        for kind, (tree, workers) in kinds.items():
            with Server(tree, arguments.bundle, offline["facts"]["engine"], workers) as server:
                outcomes, facts = asyncio.run(closed_loop(server, requests, arguments.clients, arguments.seconds))
                rows[kind].append(facts | compared(outcomes, offline["answers"]))
    best = max((kind for kind in kinds if kind != "base"), key=lambda kind: median(rows[kind], "per_s"))
    report: dict[str, Any] = {
        "command": f"python benchmarks/serving.py {arguments.bundle.name} --engine {offline['facts']['engine']}",
        "processor": processor(),
        "clients": arguments.clients,
        "offline": {key: median(offline_facts, key) for key in ("per_s", "cpu_ms")}
        | {"engine": offline["facts"]["engine"]},
        "closed_loop": {kind: {key: median(rows[kind], key) for key in rows[kind][0]} for kind in kinds},
        "best": best,
    }
    rate = median(rows[best], "per_s")
    report["of_offline"] = round(rate / report["offline"]["per_s"], 3)
    if arguments.base:
        report["of_base"] = round(rate / median(rows["base"], "per_s"), 3)
    tree, workers = kinds[best]
    with Server(tree, arguments.bundle, offline["facts"]["engine"], workers) as server:
        for name, share in (("at_70_percent", 0.7), ("at_300_percent", 3.0)):
            outcomes, facts = asyncio.run(open_loop(server, requests, share * rate, arguments.seconds))
            report[name] = facts | compared(outcomes, offline["answers"])
    return report


def run_offline(version: Path, engine: str, seconds: float, paths: list[Path]) -> dict[str, Any]:
    command = [sys.executable, "-c", OFFLINE, str(version.resolve()), engine, str(seconds), *map(str, paths)]
    said = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True
    )
    return json.loads(said.stdout.splitlines()[-1])


def as_request(name: str, picture: bytes) -> bytes:
    body = json.dumps({"instances": [{"b64": base64.b64encode(picture).decode()}]}).encode()
    head = f"POST /v1/models/{name}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """A server in a process of its own, of whichever tree, for the time of a context."""

    def __init__(self, tree: Path, bundle: Path, engine: str, workers: int) -> None:
        self._log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 - closed with the context
        options = ["--workers", str(workers)] if workers else []
        arguments = ["serve", str(bundle.resolve()), "--port", "0", "--engine", engine, *options]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "toolkit", *arguments], cwd=tree, stderr=self._log,
            env=os.environ | {"PYTHONPATH": str(tree)},
        )  # fmt: skip
        self._lines = max(1, workers)

    def __enter__(self) -> "Server":
        deadline = time.monotonic() + 180
        while len(found := re.findall(r"http://127\.0\.0\.1:(\d+)/", Path(self._log.name).read_text())) < self._lines:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(Path(self._log.name).read_text())
            time.sleep(0.1)
        self.port = int(found[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)
        self._log.close()

    def cpu_seconds(self) -> float:
        """Processor time so far of the process and all below it."""
        ticks, parents = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # ended since
                continue
            parents[int(stat.parent.name)] = int(fields[1])
            ticks[int(stat.parent.name)] = int(fields[11]) + int(fields[12])
        own = {self._process.pid}
        while more := {pid for pid, parent in parents.items() if parent in own} - own:
            own |= more
        return sum(ticks.get(pid, 0) for pid in own) / os.sysconf("SC_CLK_TCK")


class Connection:
    """A connection kept alive, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, picture: int) -> Outcome:
        start = time.perf_counter()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].split(maxsplit=1)[0]
            body = await reader.readexactly(int(length))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Outcome(0, time.perf_counter() - start, picture, b"")
        return Outcome(int(head[9:12]), time.perf_counter() - start, picture, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def closed_loop(
    server: Server, requests: list[bytes], clients: int, seconds: float
) -> tuple[list[Outcome], dict[str, float]]:
    """Let clients ask without a pause, after a second to warm up."""
    outcomes: list[Outcome] = []
    numbers = itertools.count()

    async def client(until: float) -> None:
        connection = Connection(server.port)
        while time.perf_counter() < until:
            picture = next(numbers) % len(requests)
            outcomes.append(await connection.ask(requests[picture], picture))
        connection.close()

    for length in (min(1.0, seconds), seconds):
        outcomes.clear()
        cpu, start = server.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*[client(start + length) for _ in range(clients)])
    return outcomes, told(outcomes, time.perf_counter() - start, server.cpu_seconds() - cpu)


async def open_loop(
    server: Server, requests: list[bytes], rate: float, seconds: float
) -> tuple[list[Outcome], dict[str, float]]:
    """Send requests at even intervals, whether or not those before are answered."""
    outcomes: list[Outcome] = []
    free: list[Connection] = []
    start, cpu, running = time.perf_counter(), server.cpu_seconds(), set()

    async def one(picture: int) -> None:
        connection = free.pop() if free else Connection(server.port)
        outcomes.append(await connection.ask(requests[picture], picture))
        free.append(connection)

    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        if len(running) >= MAX_IN_FLIGHT:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(one(number % len(requests)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    for connection in free:
        connection.close()
    return outcomes, {"asked_per_s": round(rate, 1)} | told(
        outcomes, time.perf_counter() - start, server.cpu_seconds() - cpu
    )


def told(outcomes: list[Outcome], seconds: float, cpu: float) -> dict[str, Any]:
    answered = sorted(outcome.seconds * 1e3 for outcome in outcomes if outcome.status == 200) or [0.0]
    codes = Counter(outcome.status for outcome in outcomes)
    return {
        "per_s": round(codes[200] / seconds, 1),
        "mean_ms": round(statistics.fmean(answered), 1),
        "p50_ms": round(answered[len(answered) // 2], 1),
        "p99_ms": round(answered[int(0.99 * len(answered))], 1),
        "refused": codes[429],
        "failed": sum(codes.values()) - codes[200] - codes[429],
        "server_cpu_ms": round(1e3 * cpu / max(1, codes[200]), 2),
    }


def compared(outcomes: list[Outcome], expected: list[list[float]]) -> dict[str, float]:
    """Hold every answer against the offline one: the largest difference of a probability, and other first classes."""
    largest, others = 0.0, 0
    for outcome in outcomes:
        if outcome.status == 200:
            found = json.loads(outcome.body)["predictions"][0]["probabilities"]
            differences = [abs(a - b) for a, b in zip(found, expected[outcome.picture], strict=True)]
            largest = max(largest, *differences)
            others += found.index(max(found)) != expected[outcome.picture].index(max(expected[outcome.picture]))
    return {"max_difference": round(largest, 5), "other_first_class": others}


def median(rows: list[dict[str, Any]], key: str) -> float:
    return round(statistics.median(row[key] for row in rows), 3)


if __name__ == "__main__":
    main()
