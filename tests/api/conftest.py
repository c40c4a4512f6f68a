"""Fixtures of the calls' tests."""

import pytest


@pytest.fixture(scope="session")
def few(tmp_path_factory, digits):
    """Twelve digits of each of three classes."""
    import shutil

    root = tmp_path_factory.mktemp("few") / "digits"
    for name in "012":
        (root / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:12]:
            shutil.copy(path, root / name)
    return root
