"""Listing networks must answer at once: it loads no framework and no number crunching."""

import os
import re
import subprocess
import sys
from pathlib import Path

import toolkit

ROOT = Path(toolkit.__file__).parents[1]
HEAVY = ("tensorflow", "keras", "jax", "numpy", "PIL", "h5py", "scipy", "sklearn")


def _modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(' '.join(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_listing_and_metadata_import_no_framework():
    code = "import toolkit\nfor name in toolkit.list_models(): assert toolkit.model_info(name).macs > 0"
    modules = _modules_after(code)
    assert "toolkit.models.resnet" in modules
    assert modules.isdisjoint(HEAVY)


def test_arithmetic_imports_no_framework():
    assert _modules_after("import toolkit.arithmetic").isdisjoint(HEAVY)


def test_factory_imports_no_framework_before_it_builds():
    code = (
        "import toolkit\n"
        "try: toolkit.create_model('lenet6')\n"
        "except Exception as error: assert 'lenet5' in str(error), error\n"
        "else: raise SystemExit('built an unknown network')"
    )
    assert _modules_after(code).isdisjoint(HEAVY)


def test_bundles_are_opened_without_what_moves_them_to_and_from_the_hub():
    assert _modules_after("import toolkit.inference").isdisjoint({"toolkit.hub.pull", "toolkit.hub.push"})


def test_openvino_is_imported_without_what_tells_others_of_it():
    modules = _modules_after("from toolkit.lazy import import_openvino\nimport_openvino().Core()")
    assert "openvino" in modules
    assert not any(name.startswith("openvino_telemetry.") for name in modules)
    sources = [*ROOT.glob("toolkit/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    direct = [path for path in sources if re.search(r"^\s*(import|from) openvino\b", path.read_text(), re.MULTILINE)]
    assert not direct


_COMMAND = "from toolkit.lazy import keras, without_companions\nwith without_companions():\n    keras.Model"


def test_a_command_imports_keras_without_the_packages_that_it_only_offers_to_work_with():
    modules = _modules_after(_COMMAND)
    assert {"keras", "tensorflow"} <= modules
    assert modules.isdisjoint({"jax", "matplotlib", "pandas", "sklearn"})


def test_everybody_but_keras_and_tensorflow_still_finds_them():
    assert {"matplotlib", "sklearn.base"} <= _modules_after(
        f"{_COMMAND}\n    import matplotlib\n    import sklearn.base"
    )


def test_keras_on_jax_finds_jax():
    modules = _modules_after(f"import os\nos.environ['KERAS_BACKEND'] = 'jax'\n{_COMMAND}")
    assert "jax" in modules
    assert "pandas" not in modules
