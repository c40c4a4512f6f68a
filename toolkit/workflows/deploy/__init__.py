"""A bundle put on servers of others: TensorFlow Serving, KServe and OpenVINO Model Server."""

from toolkit.workflows.deploy.files import export_tf_serving

__all__ = ["export_tf_serving"]
