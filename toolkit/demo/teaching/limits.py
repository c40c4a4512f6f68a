"""Limits for visitors who teach, so that none of them takes the server away from the others."""

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits of teaching.

    Attributes:
        num_classes: of a visitor.
        num_pictures: of a visitor, in all classes together.
        num_bytes: of a visitor's pictures as they were sent, and of a zip file of them.
        num_pixels: of one picture.
        seconds: that a lesson may take.
        at_once: lessons under way; others wait in line.
        waiting: lessons that may wait; more are refused.
        idle_seconds: after which a visitor's things are removed although the page was not seen to close.
    """

    num_classes: int = 20
    num_pictures: int = 600
    num_bytes: int = 200 * MEGABYTE
    num_pixels: int = 50_000_000
    seconds: float = 300.0
    at_once: int = 1
    waiting: int = 8
    idle_seconds: float = 7200.0
