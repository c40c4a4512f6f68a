"""A contact sheet of what augmentation makes of a data set's own pictures."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from toolkit.data import augment as augmentation
from toolkit.data.feed.arrays import TrainingRecipe, load_pixels
from toolkit.data.scan.folder import ImageFolder
from toolkit.errors import UserError
from toolkit.files import replacing
from toolkit.spec import Preprocessing

NUM_ROWS = 8
NUM_DRAWS = 7

_TILE = 112
_GAP = 4
_MAX_LABEL_WIDTH = 300


def write_preview(folder: ImageFolder, preprocessing: Preprocessing, file: str | Path, *, augment: str = "") -> None:
    """Draw originals with seven augmented versions of each beside them, at the network's size.

    Args:
        folder: a scanned data set.
        preprocessing: of the network.
        file: a .png or .jpg file.
        augment: see ``toolkit.data.augment.parse``: a row for each of eight pictures. By default a row for each
            augmentation there is, with its own parameters.

    Raises:
        UserError: an unknown augmentation, or a file that cannot be written.
    """
    file = Path(file)
    if file.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{file}: expected a name that ends in .png or .jpg")
    specs = [augment] * NUM_ROWS if augment else list(augmentation.AUGMENTATIONS)
    chosen = np.random.default_rng(0).permutation(len(folder))[: len(specs)]
    sources = [folder.root / folder.paths[i] for i in chosen]
    rows = []
    for number, spec in enumerate(specs):
        recipe = TrainingRecipe(preprocessing, augmentation.parse(spec), seed=0, num_classes=1)
        # The row's own picture comes first; others only mix with it.
        order = [(number + k) % len(sources) for k in range(len(sources))]
        pixels = load_pixels([sources[k] for k in order], recipe.canvas)
        title = spec if not augment else Path(folder.paths[chosen[order[0]]]).name
        augmented = [_augmented(recipe, pixels, draw, order) for draw in range(NUM_DRAWS)]
        rows.append((title, [_tile(own) for own in (pixels[0], *augmented)]))
    with replacing(file) as partial:
        _sheet(rows).save(partial)


def _augmented(recipe: TrainingRecipe, pixels: np.ndarray, epoch: int, order: list[int]) -> np.ndarray:
    positions = np.array(order)
    augmented = recipe.augment(pixels, epoch, positions)
    if not recipe.is_mixed:
        return augmented[0]
    mixed, _ = recipe.mix(augmented.astype(np.float32), np.zeros(len(pixels), int), epoch, positions)
    return np.rint(mixed[0]).astype(np.uint8)


def _tile(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    kernel = Image.Resampling.BOX if max(image.size) < _TILE else Image.Resampling.BILINEAR
    scale = _TILE / max(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)), kernel)


def _sheet(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    step = _TILE + _GAP
    font = ImageFont.load_default(14)
    labels = [_shortened(title, font) for title, _ in rows]
    left = max(round(font.getlength(label)) for label in labels) + 3 * _GAP
    sheet = Image.new("RGB", (left + step * (1 + NUM_DRAWS), step * len(rows) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (label, (_, tiles)) in enumerate(zip(labels, rows, strict=True)):
        top = _GAP + number * step
        draw.text((_GAP, top + _TILE // 2), label, fill="black", font=font, anchor="lm")
        for column, tile in enumerate(tiles):
            sheet.paste(tile, (left + column * step, top))
    return sheet


def _shortened(title: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    label = title
    while font.getlength(label) > _MAX_LABEL_WIDTH:
        title = title[:-1]
        label = f"{title}…"
    return label
