"""Pictures as data URLs, so that no folder of the server has to be opened to the browser."""

import base64
import io

from PIL import Image


def image_url(image: Image.Image, kind: str, *, quality: int = 80) -> str:
    """Encode a picture in a format that browsers show.

    Args:
        image: the picture.
        kind: ``png``, which keeps every pixel, or ``webp``.
        quality: of ``webp``, 0 to 100.
    """
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)  # which PNG passes over
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
