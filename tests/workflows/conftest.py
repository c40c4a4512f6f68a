import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory) -> Iterator[Path]:
    """Twenty pictures each of two digits; caches are the module's own."""
    root = tmp_path_factory.mktemp("few") / "digits"
    for name in "01":
        (root / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:20]:
            shutil.copy(path, root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(root.parent / "cache"))
        yield root


@pytest.fixture
def held_out_decoded(monkeypatch) -> list[str]:
    """Paths of the pictures that an export's gate decodes, as often as it does."""
    import toolkit.export.parity

    load_pixels, paths = toolkit.export.parity.load_pixels, []

    def load(sources, preprocessing):
        paths.extend(sources)
        return load_pixels(sources, preprocessing)

    monkeypatch.setattr(toolkit.export.parity, "load_pixels", load)
    return paths
