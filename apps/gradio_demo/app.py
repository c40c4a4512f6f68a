"""The demo as a Hugging Face Space, or for any other place that starts a Python file."""

import os

from toolkit.demo import launch


def main() -> None:
    """Serve the bundles in ``$TOOLKIT_BUNDLES``, or in ``./saved_models``."""
    host = "0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1"  # a Space's proxy comes from outside
    launch(os.environ.get("TOOLKIT_BUNDLES", "saved_models"), host=host)  # on $PORT


if __name__ == "__main__":
    main()
