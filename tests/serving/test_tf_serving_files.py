"""The files for TensorFlow Serving say what they should, in the form that server reads."""

import re
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

APP = Path(__file__).parents[2] / "apps" / "tf_serving"


def test_models_config_is_one():
    config = text_format.Parse((APP / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
    for model in config.model_config_list.config:
        assert model.base_path == f"/models/{model.name}"
        assert model.model_version_policy.latest.num_versions == 1


def test_compose_names_files_that_exist():
    files = re.findall(r"=/config/(\S+)", (APP / "compose.yaml").read_text())
    assert sorted(files) == ["batching.config", "models.config"]
    assert all((APP / file).is_file() for file in files)
