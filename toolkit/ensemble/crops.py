"""A plan of crops: which rectangles of one picture, at which sizes, mirrored or not. Integers only.

A plan is data: ``toolkit.ensemble.cut`` cuts its crops on the host, ``toolkit.ensemble.cut_graph`` inside TensorFlow
graphs, and a parity test ties the two together. Every crop has the network's own size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from toolkit.data.pixels.sizes import crop_box
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

#: Which part of the resized picture the crops of a scheme lie in: one of the three boxes along its longer side, or all.
Region = Literal["first", "middle", "last", "all"]
#: Down and across, in quarters of the room there is: ``(0, 0)`` is the upper left corner, ``(2, 2)`` the centre.
#: None is the whole region, shrunk to the network's size.
Place = tuple[int, int] | None

_CENTRE: tuple[Place, ...] = ((2, 2),)
_FIVE: tuple[Place, ...] = ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2))
_GRID: tuple[Place, ...] = tuple(product(range(5), range(5)))

#: Crops per scale → (regions, places, whether each is mirrored too).
_SCHEMES: dict[int, tuple[tuple[Region, ...], tuple[Place, ...], bool]] = {
    1: (("middle",), _CENTRE, False),
    10: (("middle",), _FIVE, True),
    50: (("all",), _GRID, True),
    144: (("first", "middle", "last"), (*_FIVE, None), True),
}

#: Numbers of crops that have a name: what ``--crops`` takes.
SCHEMES = tuple(_SCHEMES)


@dataclass(frozen=True)
class Crop:
    """One crop.

    Attributes:
        shorter_side: the picture's, once resized.
        region: the part of the resized picture that is looked at, see ``Region``.
        place: of the crop within the region, see ``Place``.
        mirror: left and right exchanged.
    """

    shorter_side: int
    region: Region = "middle"
    place: Place = (2, 2)
    mirror: bool = False


def plan_crops(preprocessing: Preprocessing, crops: int = 1, scales: Sequence[int] = ()) -> tuple[Crop, ...]:
    """Plan the crops that a scheme gives a network.

    - 1: the centre.
    - 10: four corners and the centre of the central square, and their mirrors (Krizhevsky, Sutskever and Hinton,
      NeurIPS 2012, section 4.1).
    - 50: a 5 × 5 grid over the whole picture, and the mirrors (Simonyan and Zisserman, ICLR 2015, section 3.2); with
      ``scales=(256, 384, 512)`` the paper's 150.
    - 144: the left, central and right square (upper, central and lower of a tall picture), of each its corners, its
      centre and itself shrunk, and the mirrors, at four scales (Szegedy et al., CVPR 2015, section 7).

    >>> plan_crops(Preprocessing(size=(224, 224), crop_fraction=0.875))
    (Crop(shorter_side=256, region='middle', place=(2, 2), mirror=False),)
    >>> len(plan_crops(Preprocessing(size=(224, 224)), 144)), len(plan_crops(Preprocessing(size=(8, 8)), 10, (8, 9)))
    (144, 20)

    Args:
        preprocessing: the network's.
        crops: the scheme, one of ``SCHEMES``.
        scales: shorter sides to resize the picture to, each with all crops of the scheme. By default the network's own;
            where it has no margin around the centre, schemes of several crops take AlexNet's 256 to 224. 144 has its
            own four: 256, 288, 320 and 352 to 224.

    Raises:
        UserError: no such scheme, or a scale smaller than what the network sees.
    """
    if crops not in _SCHEMES:
        raise UserError(f"{crops} crops: expected one of {', '.join(map(str, SCHEMES))}")
    too_small = [scale for scale in scales if scale < min(preprocessing.size)]
    if too_small:
        height, width = preprocessing.size
        raise UserError(
            f"scale {too_small[0]} is smaller than the {height} × {width} pixels the network sees; "
            f"give {min(preprocessing.size)} or more"
        )
    regions, places, mirrored = _SCHEMES[crops]
    sides = tuple(scales) or _default_scales(preprocessing, crops)
    return tuple(
        Crop(side, region, place, mirror)
        for side, region, place, mirror in product(sides, regions, places, (False, True) if mirrored else (False,))
    )


def is_plain(preprocessing: Preprocessing, crops: Sequence[Crop]) -> bool:
    """Tell whether a plan is the one crop that the network is shown anyway."""
    return tuple(crops) == plan_crops(preprocessing)


def resized_to(preprocessing: Preprocessing, shorter_side: int) -> Preprocessing:
    """Make the resize that gives a picture this shorter side: its ``size`` is the box that crops lie in.

    >>> resized_to(Preprocessing(size=(20, 40)), 30).size
    (30, 60)
    """
    height, width = preprocessing.size
    shorter = min(height, width)
    box = (round(height * shorter_side / shorter), round(width * shorter_side / shorter))
    return replace(preprocessing, size=box, crop_fraction=1.0)


def without_normalization(preprocessing: Preprocessing) -> Preprocessing:
    """Keep what decides a preprocessing's pixels: two networks for which it is equal can share them.

    >>> first = Preprocessing(size=(8, 8), mean=(0.5, 0.5, 0.5))
    >>> without_normalization(first) == without_normalization(Preprocessing(size=(8, 8), channel_order="bgr"))
    True
    """
    kept = ("size", "resize", "crop_fraction", "interpolation")
    return Preprocessing(**{name: getattr(preprocessing, name) for name in kept})


#: Quarters of the free room before each region.
_REGION_START = {"first": 0, "middle": 2, "last": 4}


def window(shape: Any, preprocessing: Preprocessing, crop: Crop) -> tuple[slice, slice]:
    """Locate the rows and columns of a resized picture that a crop shows, or, where it has no place, is shrunk from.

    Lengths in ``shape`` are integers or integer tensors. The two steps, a region and a place in it, are rounded once,
    so that the centre of the middle region is the centre of the picture.

    >>> network = Preprocessing(size=(224, 224))
    >>> window((256, 341), network, Crop(256)), (341 - 224) // 2
    ((slice(16, 240, None), slice(58, 282, None)), 58)
    >>> [window((256, 301), network, Crop(256, region, None))[1].start for region in ("first", "middle", "last")]
    [0, 22, 45]
    """
    if crop.place is None and crop.region == "all":
        return slice(None), slice(None)
    slices = []
    for axis, box in enumerate(resized_to(preprocessing, crop.shorter_side).size):
        size, place = (box, 0) if crop.place is None else (preprocessing.size[axis], crop.place[axis])
        if crop.region == "all":
            start = (shape[axis] - size) * place // 4
        else:
            start = ((shape[axis] - box) * _REGION_START[crop.region] + (box - size) * place) // 4
        slices.append(slice(start, start + size))
    return slices[0], slices[1]


def _default_scales(preprocessing: Preprocessing, crops: int) -> tuple[int, ...]:
    shorter = min(preprocessing.size)
    if crops == 144:
        return tuple(round(shorter * side / 224) for side in (256, 288, 320, 352))
    own = min(crop_box(preprocessing)) if preprocessing.resize == "crop" else shorter
    return (own,) if crops == 1 or own > shorter else (round(shorter * 256 / 224),)
