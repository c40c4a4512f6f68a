"""Sizes: of what a convolution leaves, and of an array."""

from collections.abc import Sequence
from math import prod


def conv_output_size(n: int, kernel: int, *, stride: int = 1, padding: int = 0) -> int:
    """Compute the side a convolution or pooling leaves of ``n`` pixels: floor((n + 2·padding - kernel) / stride) + 1.

    Args:
        n: side of the input.
        kernel: side of the filter.
        stride: step of the filter.
        padding: pixels added on *each* side; (kernel - 1) / 2 keeps the size at stride 1.

    Raises:
        ValueError: an argument is out of range or the kernel is larger than the padded input.

    >>> conv_output_size(7, 3, stride=2)
    3
    >>> conv_output_size(224, 7, stride=2, padding=3)
    112
    """
    if min(n, kernel, stride) < 1 or padding < 0:
        raise ValueError(
            f"n, kernel and stride must be positive and padding not negative, "
            f"got n={n}, kernel={kernel}, stride={stride}, padding={padding}"
        )
    if kernel > n + 2 * padding:
        raise ValueError(f"a kernel of {kernel} does not fit into {n} pixels with padding {padding}; pad or enlarge")
    return (n + 2 * padding - kernel) // stride + 1


def size(shape: Sequence[int | None]) -> int:
    """Count the values in an array of that shape.

    Raises:
        ValueError: a side is unknown.
    """
    if None in shape:
        raise ValueError(f"shape {tuple(shape)} is not fully known; build the model for a fixed input size")
    return prod(side for side in shape if side is not None)
