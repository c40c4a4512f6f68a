import numpy as np
from PIL import Image

from toolkit.report.page import document, plot_style, table, thumbnails
from toolkit.report.plots import plot_confusion


def luminance(rgb: np.ndarray) -> np.ndarray:
    """WCAG 2.2's relative luminance."""
    values = rgb / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


def test_plots_are_read_on_white_and_on_black(tmp_path):
    with plot_style():
        plot_confusion(np.eye(3, dtype=int), ["ant", "bee", "wasp"], tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGBA"))
    assert (pixels[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()
    names = pixels[:, : pixels.shape[1] // 20]  # left of the matrix there is nothing but letters
    (ink,) = {tuple(pixel[:3]) for pixel in names[names[..., 3] == 255]}
    own = luminance(np.array(ink))
    assert min(1.05 / (own + 0.05), (own + 0.05) / 0.05) > 3  # for graphics, WCAG 2.2's 1.4.11


def test_page_follows_the_system_and_escapes_what_it_shows():
    body = table("Classes", ["class", "pictures", "recall %"], [["<b>", 1200, 0.5]])
    page = document("A & B", body + thumbnails([np.zeros((4, 4, 3), np.uint8)], "<i>"))
    assert "color-scheme: light dark" in page
    assert "@media (prefers-color-scheme: dark)" in page
    assert "<title>A &amp; B</title>" in page
    assert '<td>&lt;b&gt;</td><td class="number">1200</td><td class="number">50.00</td>' in page
    assert "<figcaption>&lt;i&gt;</figcaption>" in page
