"""Configuration of other model servers, written for one bundle and what was measured of it."""

import json
import logging
import math
import re
import shutil
from pathlib import Path
from typing import Any

from toolkit.bundle import (
    SAVED_MODEL,
    complete_versions,
    find_bundle,
    read_manifest,
    read_version_labels,
    verify_files,
)
from toolkit.engines import open_engine
from toolkit.engines.timing import BUSY, processor_share
from toolkit.errors import UserError
from toolkit.files import new_folder, require_writable
from toolkit.inference.compare import engine_bytes
from toolkit.machine import processor
from toolkit.progress import step
from toolkit.workflows.deploy.batching import Batching, choose_batching, time_batches
from toolkit.workflows.deploy.model_server import why_not, write_model

log = logging.getLogger("toolkit")

_GIB = 1 << 30


def export_tf_serving(bundle: str | Path, directory: str | Path) -> dict[str, Any]:
    """Write what puts a bundle on TensorFlow Serving, on KServe and on OpenVINO Model Server.

    In ``directory`` then stand ``compose.yaml``, ``models.config``, ``batching.config`` from batches of the bundle's
    SavedModel that were timed here, ``kserve.yaml``, and in ``openvino`` a ``config.json`` with the network in
    OpenVINO's format; without the last where OpenVINO is not installed or the bundle is an ensemble. Where the bundle
    has versions with labels, those are served, under their labels; else the highest.

    Args:
        bundle: ``NAME`` or ``NAME/VERSION``, which is the one that is timed.
        directory: must not exist, or be empty.

    Returns:
        ``{"directory", "files", "milliseconds", "batching", "openvino"}``: the files' names; by batch size, how long it
        took; what was chosen; the engine behind OpenVINO's file and the largest difference from it, or None.

    Raises:
        UserError: not a numbered version of a bundle, it is damaged, or ``directory`` is not empty.
        WriteError: it cannot be written.
    """
    version_dir, directory = find_bundle(bundle, shipped=True).resolve(), Path(directory)
    if not version_dir.name.isdecimal():
        raise UserError(f"{version_dir}: not a numbered version of a bundle; servers look for NAME/VERSION")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: is there already; name a new folder")
    require_writable(directory, "--tf-serving")
    manifest = read_manifest(version_dir)
    labels = read_version_labels(version_dir.parent)
    versions = complete_versions(version_dir.parent)
    labels = {label: number for label, number in labels.items() if number in versions}
    verify_files(version_dir, manifest, SAVED_MODEL)
    with step("loading the SavedModel"):
        engine = open_engine("savedmodel", version_dir, manifest.preprocessing)
    shares = [processor_share()]
    milliseconds = time_batches(engine, manifest.preprocessing.size)
    shares.append(processor_share())
    batching = choose_batching(milliseconds)
    name, missing, found = version_dir.parent.name, why_not(version_dir), None
    with new_folder(directory) as folder:
        if not missing:
            place = folder / "openvino" / name / version_dir.name
            place.mkdir(parents=True)
            try:
                with step("writing the network for OpenVINO Model Server"):
                    found = write_model(version_dir, manifest, place / "model.xml")
            except UserError as error:  # which is no reason to lose the files for the others
                missing = str(error)
                shutil.rmtree(folder / "openvino")
        texts = {
            "compose.yaml": _compose(version_dir.parent.parent, batching, with_openvino=not missing),
            "models.config": _models_config(name, labels),
            "batching.config": _batching_config(batching, milliseconds, version_dir, min(shares)),
            "kserve.yaml": _kserve(name, batching, engine_bytes(version_dir, "savedmodel")),
        }
        if missing:
            log.info("nothing written for OpenVINO Model Server: %s", missing)
        else:
            texts["openvino/config.json"] = _openvino_config(name)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        "directory": str(directory),
        "files": files,
        "milliseconds": milliseconds,
        "batching": vars(batching),
        "openvino": found,
    }


def _compose(saved_models: Path, batching: Batching, *, with_openvino: bool) -> str:
    source = json.dumps(str(saved_models).replace("$", "$$"))  # JSON is YAML, and $ begins a variable
    batched = """
      - --enable_batching=true
      - --batching_parameters_file=/config/batching.config"""
    text = f"""# docker compose up: TensorFlow Serving, REST on port 8501 and gRPC on port 8500.
services:
  tf_serving:
    # Pin the version, at least that of the TensorFlow which wrote the bundle.
    image: tensorflow/serving:${{TF_SERVING_TAG:-latest}}
    command:
      - --model_config_file=/config/models.config
      - --model_config_file_poll_wait_seconds=30
      # A label may be given before its version has loaded.
      - --allow_version_labels_for_unavailable_models=true{batched if batching.size > 1 else ""}
    ports:
      # Loopback only: the server asks nobody who they are.
      - "127.0.0.1:8501:8501"
      - "127.0.0.1:8500:8500"
    volumes:
      - type: bind
        source: {source}
        target: /models
        read_only: true
      - type: bind
        source: .
        target: /config
        read_only: true
    restart: unless-stopped
"""
    if not with_openvino:
        return text
    return f"""{text}
  # docker compose --profile openvino up: OpenVINO Model Server instead or beside it, REST on port 8000, gRPC on 9000.
  openvino:
    profiles: [openvino]
    image: openvino/model_server:${{OVMS_TAG:-latest}}
    command: [--config_path=/models/config.json, --rest_port=8000, --port=9000]
    ports:
      - "127.0.0.1:8000:8000"
      - "127.0.0.1:9000:9000"
    volumes:
      - type: bind
        source: ./openvino
        target: /models
        read_only: true
    restart: unless-stopped
"""


def _models_config(name: str, labels: dict[str, int]) -> str:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    document = model_server_config_pb2.ModelServerConfig()
    model = document.model_config_list.config.add(name=name, base_path=f"/models/{name}", model_platform="tensorflow")
    if labels:
        model.model_version_policy.specific.versions.extend(sorted(set(labels.values())))
        model.version_labels.update(labels)
        said = "# The versions that have a label; write this file anew when one is promoted."
    else:
        model.model_version_policy.latest.num_versions = 1
        said = "# The highest version; to stay at version 3, model_version_policy { specific { versions: 3 } }."
    return f"{said}\n# It is read again every 30 seconds.\n{text_format.MessageToString(document)}"


def _batching_config(batching: Batching, milliseconds: dict[int, float], version_dir: Path, share: float) -> str:
    rows = [f"#   {count:>3} {taken:>9.2f} {1000 * count / taken:>9.1f}" for count, taken in milliseconds.items()]
    gains = "the smallest batch that is within 5 % of the fastest"
    if batching.size == 1:
        gains = "batches gain nothing here, so that compose.yaml does not turn them on"
    if share < BUSY:
        rows.append(
            f"# The machine was busy: {100 * share:.0f} % of its processors' time was free. Measure again later."
        )
    table = "\n".join(rows)
    return f"""# Measured: {version_dir.parent.name}/{version_dir.name}, SavedModel, {processor()}.
#   size        ms  pictures/s
{table}
# Taken: {gains}. On another machine, write this file anew there.
max_execution_batch_size {{ value: {batching.size} }}
# A single request may hold more; it is split.
max_batch_size {{ value: {max(256, batching.size)} }}
enable_large_batch_splitting {{ value: true }}
# A picture waits at most half as long for company as it takes alone.
batch_timeout_micros {{ value: {round(1000 * batching.wait_ms)} }}
num_batch_threads {{ value: {batching.threads} }}
# What waits is answered within a second or so; more is refused.
max_enqueued_batches {{ value: {batching.queue} }}
"""


def _kserve(name: str, batching: Batching, num_bytes: int) -> str:
    service = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-") or "bundle"
    service = service if service[0].isalpha() else f"b-{service}"
    storage = json.dumps(f"pvc://saved-models/{name}")
    batcher = f"""
    # Of requests by REST alone. If one picture of a batch cannot be decoded, all of its requests fail.
    batcher:
      maxBatchSize: {batching.size}
      maxLatency: {math.ceil(batching.wait_ms)}"""
    return f"""# kubectl apply -f kserve.yaml: POST /v1/models/{service}:predict, as TensorFlow Serving takes it.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {service}
spec:
  predictor:
    minReplicas: 1
    maxReplicas: 4
    # Requests that one replica works on before another is started.
    scaleMetric: concurrency
    scaleTarget: {2 * batching.size}{batcher if batching.size > 1 else ""}
    model:
      modelFormat:
        name: tensorflow
      # Where the bundle's directory lies, with its versions: pvc://CLAIM/PATH, s3://…, gs://…
      storageUri: {storage}
      resources:
        requests:
          cpu: "1"
          memory: {1 + math.ceil(4 * num_bytes / _GIB)}Gi
"""


def _openvino_config(name: str) -> str:
    plugin = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
    model = {"name": name, "base_path": f"/models/{name}", "target_device": "CPU", "plugin_config": plugin}
    return json.dumps({"model_config_list": [{"config": model}]}, indent=1, ensure_ascii=False) + "\n"
