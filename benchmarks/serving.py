"""The server beside the same network used offline, and beside an older tree's server: answers a second, latencies.

    python benchmarks/serving.py saved_models/flowers --images data/flowers --base ../older-tree
    python benchmarks/serving.py saved_models/flowers --images data/flowers --seconds 2
    python benchmarks/serving.py saved_models/flowers --images data/flowers --requests 20000 --swaps 100 --fuzz 10000

In one run, by turns: pictures decoded and answered offline, each server under as many clients as pause only when
they are refused (closed loop), and the new ones at 70 % of what each then carried and at three times that (open loop).
Every answer is compared with the offline one. Each server is a process of its own; its clients are this one, over
loopback.

With ``--requests``, ``--swaps`` or ``--fuzz`` the server is made to endure these instead, and its memory is looked at:
so many requests; so many new versions under load; so many requests of nonsense by schemathesis.
"""

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from command import given, write_record

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
    """An answered request: its status, its seconds, which picture it had, the answer, and the pause it asks for."""

    status: int
    seconds: float
    picture: int
    body: bytes
    version: str = ""
    pause: float = 0.0


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
    parser.add_argument("--requests", type=int, default=0, help="answer so many, and tell the memory on the way")
    parser.add_argument("--swaps", type=int, default=0, help="publish so many versions under load, and tell the memory")
    parser.add_argument("--fuzz", type=int, default=0, help="send about so many requests of nonsense")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    report = endure(arguments) if arguments.requests or arguments.swaps or arguments.fuzz else measure(arguments)
    print(json.dumps(report, indent=1))
    write_record(report, arguments.out)


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
        **given(),
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
    for kind, (tree, workers) in kinds.items():
        if kind == "base":
            continue
        with Server(tree, arguments.bundle, offline["facts"]["engine"], workers) as server:
            for name, share in (("at_70_percent", 0.7), ("at_300_percent", 3.0)):
                asked = share * median(rows[kind], "per_s")
                outcomes, facts = asyncio.run(open_loop(server, requests, asked, arguments.clients, arguments.seconds))
                facts["p99_of_closed_loop"] = round(facts["p99_ms"] / median(rows[kind], "p99_ms"), 2)
                report.setdefault(name, {})[kind] = facts | compared(outcomes, offline["answers"])
    return report


def endure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Answer many requests, see many versions come and go, be sent nonsense: failures, and memory by and by."""
    paths = sorted(arguments.images.rglob("*.jpg"))[: arguments.num_images]
    numbers = [int(path.name) for path in arguments.bundle.iterdir() if path.name.isdecimal()]
    version = arguments.bundle / str(max(numbers))
    offline = run_offline(version, arguments.engine, 0.01, paths)
    engine, expected = offline["facts"]["engine"], offline["answers"]
    requests = [as_request(arguments.bundle.name, path.read_bytes()) for path in paths]
    report: dict[str, Any] = {
        **given(),
        "processor": processor(),
        "clients": arguments.clients,
    }
    if arguments.requests:
        with Server(ROOT, arguments.bundle, engine, arguments.workers[0]) as server:
            report["requests"] = asyncio.run(many(server, requests, expected, arguments.requests, arguments.clients))
    if arguments.swaps:
        with tempfile.TemporaryDirectory() as scratch:
            bundle = Path(scratch, arguments.bundle.name)
            shutil.copytree(version, bundle / "1")
            with Server(ROOT, bundle, engine, 1) as server:
                report["swaps"] = asyncio.run(swap(server, bundle, requests, expected, arguments.swaps))
    if arguments.fuzz:
        with Server(ROOT, arguments.bundle, engine, arguments.workers[0]) as server:
            report["fuzz"] = fuzz(server, arguments.bundle.name, max(numbers), arguments.fuzz)
    return report


async def many(
    server: "Server", requests: list[bytes], expected: list[list[float]], number: int, clients: int
) -> dict[str, Any]:
    """Answer so many requests in ten parts, after one to warm up, and look at the memory after each."""
    sizes, worst, statuses = [], Counter(), Counter()
    for _ in range(11):
        left = itertools.count()
        outcomes: list[Outcome] = []

        async def client(left: Any = left, outcomes: list[Outcome] = outcomes) -> None:
            connection = Connection(server.port)
            while (turn := next(left)) < max(1, number // 10):
                outcomes.append(await connection.ask(requests[turn % len(requests)], turn % len(requests)))
            connection.close()

        await asyncio.gather(*[client() for _ in range(clients)])
        sizes.append(server.megabytes())
        statuses.update(str(outcome.status) for outcome in outcomes)
        facts = compared(outcomes, expected)
        worst = Counter(
            max_difference=max(worst["max_difference"], facts["max_difference"]),
            other_first_class=worst["other_first_class"] + facts["other_first_class"],
        )
    return {"statuses": dict(statuses)} | dict(worst) | flatness(sizes)


async def swap(
    server: "Server", bundle: Path, requests: list[bytes], expected: list[list[float]], number: int
) -> dict[str, Any]:
    """Publish so many versions under load, each when the one before answers; the one before that is removed."""
    outcomes: list[Outcome] = []
    sizes, seconds, statuses = [], [], Counter()
    is_over = False
    others, largest = 0, 0.0

    async def client(first: int) -> None:
        connection = Connection(server.port)
        for turn in itertools.count(first):
            if is_over:
                return connection.close()
            outcomes.append(await connection.ask(requests[turn % len(requests)], turn % len(requests)))

    clients = [asyncio.create_task(client(first)) for first in range(4)]
    for new in range(2, number + 2):
        staging = bundle / f".staging-{new}"
        await asyncio.to_thread(shutil.copytree, bundle / "1" if new == 2 else bundle / str(new - 1), staging)
        staging.rename(bundle / str(new))
        if new > 2:
            shutil.rmtree(bundle / str(new - 2))
        start = time.perf_counter()
        while not outcomes or outcomes[-1].version != str(new):
            if time.perf_counter() - start > 120:
                raise SystemExit(f"version {new} does not answer")
            await asyncio.sleep(0.02)
        seconds.append(time.perf_counter() - start)
        await asyncio.sleep(0.5)  # what was dropped is given back
        sizes.append(server.megabytes())
        statuses.update(str(outcome.status) for outcome in outcomes)
        facts = compared(outcomes, expected)
        largest, others = max(largest, facts["max_difference"]), others + facts["other_first_class"]
        del outcomes[:-1]
    is_over = True
    await asyncio.gather(*clients)
    took = {"median_s": round(statistics.median(seconds), 2), "longest_s": round(max(seconds), 2)}
    return {"statuses": dict(statuses), "max_difference": largest, "other_first_class": others} | took | flatness(sizes)


def fuzz(server: "Server", name: str, version: int, number: int) -> dict[str, Any]:
    """Have schemathesis send about so many requests, drawn from the server's own description, to a bundle there is."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/openapi.json") as reply:
        document = json.load(reply)
    if shutil.which("schemathesis") is None:
        raise SystemExit("--fuzz needs schemathesis: pip install schemathesis")
    known = {"name": [name, "nobody"], "version": [version, 10**9], "label": ["stable"]}
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for parameter in itertools.chain(*(operation.get("parameters", ()) for operation in operations)):
        if parameter["in"] == "path":
            parameter["schema"] = {"enum": known[parameter["name"]]}
    before = server.megabytes()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "openapi.json").write_text(json.dumps(document))
        command = ["schemathesis", "run", "openapi.json", "--url", f"http://127.0.0.1:{server.port}", "--seed", "1"]
        command += ["--no-color", "--checks", "not_a_server_error", "--continue-on-failure"]
        command += ["--phases", "coverage,fuzzing", "--max-examples", str(max(1, number // len(operations)))]
        told = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
    counts: Counter[str] = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as reply:
        for code, count in re.findall(r'toolkit_requests_total{code="(\d+)".*} (\S+)', reply.read().decode()):
            counts[code] += int(float(count))
    if told.returncode:
        print(told.stdout, told.stderr, file=sys.stderr)
    return {
        "requests": sum(counts.values()),
        "statuses": dict(sorted(counts.items())),
        "server_errors": counts["500"],
        "passed": told.returncode == 0,
        "megabytes": [before, server.megabytes()],
    }


def flatness(sizes: list[float]) -> dict[str, Any]:
    change = round(100 * (sizes[-1] / sizes[0] - 1), 1)
    return {"megabytes": sizes[:: max(1, len(sizes) // 10)], "last_megabytes": sizes[-1], "change_percent": change}


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
        return sum(self._ticks().values()) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Memory of the process and all below it, what they share counted once."""
        kilobytes = 0
        for pid in self._ticks():
            with contextlib.suppress(OSError):
                kilobytes += int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])
        return round(kilobytes / 1024, 1)

    def _ticks(self) -> dict[int, int]:
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
        return {pid: ticks.get(pid, 0) for pid in own}


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
            headers = dict(line.split(": ", 1) for line in head.decode("latin-1").lower().split("\r\n")[1:-2])
            body = await reader.readexactly(int(headers["content-length"]))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Outcome(0, time.perf_counter() - start, picture, b"")
        if headers.get("connection") == "close":
            self.close()
        version, pause = headers.get("x-model-version", ""), float(headers.get("retry-after", 0))
        return Outcome(int(head[9:12]), time.perf_counter() - start, picture, body, version, pause)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def closed_loop(
    server: Server, requests: list[bytes], clients: int, seconds: float
) -> tuple[list[Outcome], dict[str, float]]:
    """Let clients ask without a pause, but for the one that a refusal asks for, after a second to warm up."""
    outcomes: list[Outcome] = []
    numbers = itertools.count()

    async def client(until: float) -> None:
        connection = Connection(server.port)
        while time.perf_counter() < until:
            picture = next(numbers) % len(requests)
            outcome = await connection.ask(requests[picture], picture)
            outcomes.append(outcome)
            if outcome.pause:
                await asyncio.sleep(min(outcome.pause, max(0.0, until - time.perf_counter())))
        connection.close()

    for length in (min(1.0, seconds), seconds):
        outcomes.clear()
        cpu, start = server.cpu_seconds(), time.perf_counter()
        await asyncio.gather(*[client(start + length) for _ in range(clients)])
    return outcomes, told(outcomes, time.perf_counter() - start, server.cpu_seconds() - cpu)


async def open_loop(
    server: Server, requests: list[bytes], rate: float, clients: int, seconds: float
) -> tuple[list[Outcome], dict[str, float]]:
    """Send requests at even intervals, whether or not those before are answered, after clients have warmed it up."""
    await closed_loop(server, requests, clients, 0.5)
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
