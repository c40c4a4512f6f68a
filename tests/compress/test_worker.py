import importlib.util
import os
import signal
import subprocess
import sys
import time

import pytest

if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("needs toolkit[compress]", allow_module_level=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_worker_ends_with_its_parent(tmp_path, how):
    """Even if the parent is killed and can say nothing; on Ctrl+C it leaves no file either."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import logging, sys\n"
        "import numpy as np\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
        "from toolkit import create_model, model_info\n"
        "from toolkit.compress import Retraining, quantize_aware_train\n"
        "pixels, labels = np.zeros((2000, 32, 32, 3), np.uint8), np.zeros(2000, int)\n"
        "quantize_aware_train(create_model('lenet5'), preprocessing=model_info('lenet5').preprocessing,\n"
        "    train=(pixels, labels), retraining=Retraining(epochs=10_000))\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, text=True)
    with parent.stdout:
        assert any("epoch   1/10000" in line for line in parent.stdout)
    (worker,) = children_of(parent.pid)
    os.kill(parent.pid, how)
    parent.wait()
    deadline = time.monotonic() + 20
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not running(worker)
    if how == signal.SIGINT:
        assert list(tmp_path.glob("toolkit-compress-*")) == []


def children_of(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    return [int(line) for line in listed.stdout.split()]


def running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")
