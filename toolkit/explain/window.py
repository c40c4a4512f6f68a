"""The part of a picture that a network sees, in the picture's own pixels."""

from dataclasses import dataclass

from toolkit.data.pixels.sizes import resized_size
from toolkit.spec import Preprocessing


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a picture; they need not be whole."""

    top: float
    left: float
    height: float
    width: float

    def inner(self, part: "Box", size: tuple[int, int]) -> "Box":
        """Translate ``part``, in pixels of a grid of ``size`` laid over this box, to the picture's own."""
        down, across = self.height / size[0], self.width / size[1]
        return Box(self.top + part.top * down, self.left + part.left * across, part.height * down, part.width * across)

    def __str__(self) -> str:
        return f"{round(self.width)}×{round(self.height)} pixels at {round(self.left)}, {round(self.top)}"


def seen_box(height: int, width: int, preprocessing: Preprocessing) -> Box:
    """Find the part of a picture of this size that is left after resizing and cropping.

    >>> seen_box(448, 896, Preprocessing((224, 224)))
    Box(top=0.0, left=224.0, height=448.0, width=448.0)
    """
    resized = resized_size(height, width, preprocessing)
    down, across = height / resized[0], width / resized[1]
    top, left = ((whole - side) // 2 for whole, side in zip(resized, preprocessing.size, strict=True))
    return Box(top * down, left * across, preprocessing.size[0] * down, preprocessing.size[1] * across)
