"""A mistyped path, name or option is told in one line before any framework is imported, whatever the command."""

import json
import subprocess
import sys

import pytest

COMMANDS = [
    "check nowhere",
    "check digits --model lenet6",
    "check digits --augment-preview gone/a.png",
    "check digits --augment foo --augment-preview a.png",
    "train nowhere --model lenet5 --out run",
    "train digits --model lenet6 --out run",
    "train digits --model lenet5 --out run --set optimizer.lrr=1",
    "train digits --model lenet5 --out run --recipe foo",
    "train digits --model lenet5 --out run --set epochs=1",
    "train digits --model lenet5 --out run --weights two.txt",
    "tune nowhere --model lenet5 --out runs --search optimizer.lr=log:1e-4:1",
    "train digits --model lenet5 --set data.size=8 --out runs",
    "tune digits --model lenet5 --out runs --set data.size=8 --search optimizer.lr=log:1e-4:1 --trials 1",
    "gradcheck lenet6",
    "gradcheck lenet5 --batch 0",
    "gradcheck lenet5 --seed -1",
    "finetune nowhere --model resnet50 --out m/x",
    "finetune digits --model lenet6 --out m/x",
    "finetune digits --model lenet5 --weights gone.keras --out m/x",
    "finetune digits --model resnet50 --head foo --out m/x",
    "finetune digits --model lenet5 --epochs 0 --out m/x",
    "finetune digits --model lenet5 --unfreeze none --budget 1m --out m/x",
    "finetune digits --model lenet5 --unfreeze none --gradual --lr 0.1 --out m/x",
    "finetune digits --model resnet50 --weights resnet20-cifar10 --size 8 --out m/x",
    "finetune digits --model keras.applications:MobileNetV2 --size 64 --out m/x",
    "finetune digits --model auto --weights digits --out m/x",
    "finetune digits --model resnet18-thin --out m/x",
    "finetune digits --model resnet50,lenet6 --out m/x",
    "finetune digits --model auto --max-ms 0 --out m/x",
    "finetune digits --model resnet50 --max-mb 5 --out m/x",
    "evaluate nowhere digits",
    "evaluate lenet5-mnist nowhere",
    "evaluate digits lenet5-mnist",
    "evaluate lenet5-mnist digits --engine foo",
    "evaluate lenet5-mnist digits --imagenet digits",
    "evaluate resnet20-cifar10 digits",
    "predict nowhere x.jpg",
    "predict digits/0/0000.png lenet5-mnist",
    "explain nowhere digits/0/0000.png",
    "explain lenet5 gone.png --weights gone.keras",
    "explain lenet5",
    "explain lenet5-mnist two.txt",
    "explain googlenet digits/0/0000.png --method gradcam",
    "explain lenet5 gone.png --out x.jpg",
    "explain lenet5 gone.png --show nothing",
    "ensemble nowhere --out m/x",
    "compress nowhere --method int8 --data digits",
    "compress nowhere --method int8 --data digits --epochs 0",
    "export nowhere --onnx x.onnx",
    "export lenet5-mnist --onnx x.onnx --images gone.jpg",
    "import googlenet --weights imagenet --labels digits/0/0000.png --out m/x",
    "import googlenet --weights imagenet --labels two.txt --out m/x",
    "import mine.keras --labels two.txt --out m/x",
    "import lenet5-mnist --labels two.txt --out m/x",
    "import mine.onnx --labels digits --out m/x",
    "benchmark nowhere",
    "verify nowhere x.jpg",
    "serve nowhere",
    "serve nowhere --port many",
    "demo nowhere",
    "models lenet6",
    "weights list lenet6",
    "weights verify lenet5 gone.keras",
    "weights convert gone.keras x.safetensors --model lenet5",
    "samples foo x",
    "cache list --cache nowhere",
    "nonsense",
]

SCRIPT = """
import json, sys
from toolkit.cli import commands
from toolkit.cli.parser import build_parser
from toolkit.errors import UserError
for line in sys.stdin.read().splitlines():
    message = None
    try:
        arguments = build_parser().parse_args(line.split())
        getattr(commands, arguments.handler)(arguments)
    except UserError as error:
        message = str(error)
    except SystemExit as error:
        message = f"argparse {error.code}"
    print(json.dumps([message, sorted({"tensorflow", "keras"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def outcomes(digits):
    """The error of each command, and the frameworks imported by then: all in one process."""
    (digits.parent / "two.txt").write_text("ant\nbee\n")
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, input="\n".join(COMMANDS), capture_output=True, text=True, cwd=digits.parent)
    assert done.returncode == 0, done.stderr
    return dict(zip(COMMANDS, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_mistake_is_one_line_and_imports_no_framework(command, outcomes):
    message, frameworks = outcomes[command]
    assert message is not None
    assert "\n" not in message
    assert frameworks == []
