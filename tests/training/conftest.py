from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, make_folder) -> Path:
    """28 to train on, in batches of 8, 8, 8 and 4, unevenly divided among the classes; 11 to validate on."""
    return make_folder(tmp_path_factory.mktemp("pictures"), {"train/a": 20, "train/b": 8, "val/a": 6, "val/b": 5})
