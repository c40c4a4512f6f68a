"""The networks on a timeline, as an SVG that is drawn in the page's own colours: a dot is a button for its network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.demo.markup.parts import escape
from toolkit.spec import ModelInfo

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 500, 62, 18, 64, 78
_SLOT, _DOT = 64, 16  # least width of a family, and what each of its networks needs
_YEAR_GAP, _BREAK = 14, 46  # between neighbouring years, and where years are left out
_LOWEST, _HIGHEST = 3.0, 8.5  # powers of ten of parameters
_FLOOR = 26  # below the lowest, where networks without trainable weights stand
_FIRST_YEAR = 1989
_SMALLEST, _LARGEST = 3.5, 14.5  # radius; less than ``_DOT``, so that no neighbour covers a middle
_MACS = (3.0, 10.3)  # powers of ten of multiply-adds

#: Families by the beginnings of their networks' names, the first that fits: class of colour, and name.
_FAMILIES: dict[str, tuple[str, str]] = {
    "lenet": ("lenet", "LeNet"),
    "alexnet": ("alexnet", "AlexNet"),
    "zfnet": ("alexnet", "ZFNet"),
    "nin": ("nin", "Network in Network"),
    "vgg": ("vgg", "VGG"),
    "googlenet": ("inception", "GoogLeNet"),
    "highway": ("highway", "Highway"),
    "plain": ("plain", "plain nets"),
    "resnet": ("resnet", "ResNet"),
    "softmax": ("dense", "Softmax"),
    "mlp": ("dense", "MLP"),
    "xo": ("dense", "X or O"),
    "exercise": ("dense", "Exercise"),
}


@dataclass(frozen=True)
class _Family:
    year: int
    colour: str
    title: str
    networks: tuple[ModelInfo, ...]

    @property
    def width(self) -> int:
        return max(_SLOT, _DOT * len(self.networks) + 12)


def timeline(networks: Sequence[ModelInfo], chosen: str = "") -> str:
    """Draw the networks by year and parameters, each dot's size by multiply-adds.

    Args:
        networks: of the catalogue.
        chosen: name of the one to mark.
    """
    families = _families(networks)
    marks: list[str] = []
    x, before = float(_LEFT + 26), _FIRST_YEAR
    marks.append(_year_label(x - 14, f"{_FIRST_YEAR}"))
    for year in sorted({family.year for family in families}):
        is_broken = year - before > 2
        gap = _BREAK if is_broken else _YEAR_GAP
        if is_broken:
            marks.append(_broken(x + gap / 2, year - before))
        x, before, start = x + gap, year, x + gap
        for family in (family for family in families if family.year == year):
            marks.append(_family(family, x, chosen))
            x += family.width
        marks.append(_year(start, x, year))
    width = math.ceil(x + _RIGHT)
    return (
        f'<div class="tk-scroll"><svg class="tk-timeline" viewBox="0 0 {width} {_HEIGHT}" '
        f'style="min-width:{0.7 * width:.0f}px" role="group" aria-label="Networks by year and number of parameters">'
        f"{_grid(width)}{''.join(marks)}{_legend(width)}</svg></div>"
    )


def _families(networks: Sequence[ModelInfo]) -> list[_Family]:
    found: dict[tuple[int, str], list[ModelInfo]] = {}
    for info in networks:
        found.setdefault((info.year, _family_of(info)), []).append(info)
    families = [
        _Family(
            year, *_FAMILIES[prefix], tuple(sorted(infos, key=lambda info: (info.num_params, info.macs, info.name)))
        )
        for (year, prefix), infos in found.items()
    ]
    return sorted(families, key=lambda family: (family.year, -len(family.networks), family.title))


def _family_of(info: ModelInfo) -> str:
    return next((prefix for prefix in _FAMILIES if info.name.startswith(prefix)), "exercise")


def _family(family: _Family, left: float, chosen: str) -> str:
    step = family.width / len(family.networks)
    dots = "".join(
        _dot(info, left + step * (index + 0.5), family.colour, info.name == chosen)
        # The large ones first, so that none lies under another.
        for index, info in sorted(enumerate(family.networks), key=lambda pair: -pair[1].macs)
    )
    middle = left + family.width / 2
    words, baseline = family.title.split(" "), _HEIGHT - _BOTTOM + _FLOOR
    lines = [" ".join(words[:-1]), words[-1]] if len(family.title) > 9 and len(words) > 1 else [family.title]
    label = "".join(
        f'<tspan x="{middle:.1f}" dy="{12 if number else 0}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return f'<text class="tk-family" x="{middle:.1f}" y="{baseline + 2}">{label}</text>{dots}'


def _dot(info: ModelInfo, x: float, colour: str, is_chosen: bool) -> str:
    params = f"{info.num_params:,} parameters" if info.num_params else "no trainable parameters"
    told = escape(f"{info.title}, {info.year}: {params}, {info.macs:,} multiply-adds")
    chosen = " tk-chosen" if is_chosen else ""
    return (
        f'<g class="tk-dot tk-{colour}{chosen}" data-network="{escape(info.name)}" role="button" tabindex="0" '
        f'aria-label="{told}"><title>{told}</title>'
        f'<circle cx="{x:.1f}" cy="{_y(info.num_params):.1f}" r="{_radius(info.macs):.1f}"/></g>'
    )


def _y(params: float) -> float:
    bottom = _HEIGHT - _BOTTOM
    if params < 10**_LOWEST:
        return bottom - 8
    share = (math.log10(params) - _LOWEST) / (_HIGHEST - _LOWEST)
    return bottom - share * (bottom - _TOP)


def _radius(macs: float) -> float:
    share = (math.log10(max(macs, 1)) - _MACS[0]) / (_MACS[1] - _MACS[0])
    return _SMALLEST + (_LARGEST - _SMALLEST) * min(max(share, 0), 1) ** 1.7


def _grid(width: float) -> str:
    lines = []
    for power in range(math.ceil(_LOWEST), math.floor(_HIGHEST) + 1):
        y = _y(10**power)
        name = f"{10 ** (power % 3)} {('', 'thousand', 'million')[power // 3]}"
        lines.append(f'<line class="tk-grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        short = f"{10 ** (power % 3)} {('', 'k', 'M')[power // 3]}"
        lines.append(f'<text class="tk-tick" x="{_LEFT - 8}" y="{y + 4:.1f}"><title>{name}</title>{short}</text>')
    lines.append(f'<text class="tk-axis" x="12" y="{_TOP - 34}">parameters</text>')
    return "".join(lines)


def _year(start: float, end: float, year: int) -> str:
    y = _HEIGHT - _BOTTOM + 50
    line = f'<line class="tk-span" x1="{start + 3:.1f}" x2="{end - 3:.1f}" y1="{y}" y2="{y}"/>'
    return line + _year_label((start + end) / 2, f"{year}")


def _year_label(x: float, text: str) -> str:
    return f'<text class="tk-year" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 68}">{text}</text>'


def _broken(x: float, years: int) -> str:
    """A gap in the axis, for years that brought none of these networks."""
    top, bottom = _TOP - 10, _HEIGHT - _BOTTOM + 30
    return (
        f'<line class="tk-broken" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text class="tk-gap" x="{x:.1f}" y="{bottom + 24}">{years} years</text>'
    )


def _legend(width: float) -> str:
    x, parts = float(width - _RIGHT), []
    for macs, name in ((1e10, "10 billion"), (1e8, "100 million"), (1e6, "1 million")):
        radius = _radius(macs)
        parts.append(f'<text class="tk-tick" x="{x:.1f}" y="{_TOP - 34}">{name}</text>')
        x -= 7 * len(name) + radius + 6
        parts.append(f'<circle class="tk-size" cx="{x:.1f}" cy="{_TOP - 38}" r="{radius:.1f}"/>')
        x -= radius + 16
    return f'{"".join(parts)}<text class="tk-tick" x="{x:.1f}" y="{_TOP - 34}">multiply-adds for a picture:</text>'
