import pytest


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
