"""The public names of ``toolkit``: a list that is meant, lazy, and known to editors."""

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import toolkit

CALLS = """
    answer_examples benchmark check compress convert_weights demo doctor download_weights ensemble evaluate explain
    export finetune gradcheck import_model list_bundles list_cache list_weights models predict promote_version
    prune_bundles prune_cache pull push recommend_engine roll_back_version samples serve share_traffic train tune
    verify verify_cache verify_version verify_weights
"""
OTHERS = """
    AsyncClient Client ImageFolder Predictor Preprocessing Source UserError __version__ create_model list_models
    load_weights model_info pipeline preprocessing_of save_weights scan_arrays scan_folder
"""


def test_public_names_are_these():
    assert sorted(toolkit.__all__) == sorted((CALLS + OTHERS).split())


def test_editors_see_every_name():
    tree = ast.parse(Path(toolkit.__file__).read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {(alias.asname, node.module) for node in block.body for alias in node.names}
    assert seen == set(toolkit._HOME.items())
    assert Path(toolkit.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", sorted(toolkit._HOME))
def test_every_name_is_there_and_says_what_it_is(name):
    thing = getattr(toolkit, name)
    assert inspect.getdoc(thing)
    assert name in dir(toolkit)


def test_package_of_the_same_name_is_the_call():
    import toolkit.compress.changes  # what sets the name is the package's import

    assert toolkit.compress.METHODS
    assert "sparsity" in inspect.signature(toolkit.compress).parameters
    with pytest.raises(toolkit.UserError, match="no such bundle"):
        toolkit.compress("nowhere", method="int8", data="nowhere")


def test_names_come_without_a_framework():
    code = (
        "from toolkit import *\nimport sys\nprint(*sorted({'tensorflow', 'keras', 'torch', 'tqdm'} & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(toolkit.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
