"""The frame of every call: bars where a person looks on, and a run's options noted beside what it made."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from toolkit.api.options import write_options
from toolkit.api.results import Result
from toolkit.api.shown import bars_for_people

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


def call(function: Callable[Given, Answer]) -> Callable[Given, Answer]:
    """Make a function of this package a call of ``toolkit``."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def framed(*args: Given.args, **kwargs: Given.kwargs) -> Answer:
        with bars_for_people():
            result = function(*args, **kwargs)
        if isinstance(result, Result):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            result.command, result.options = function.__name__, bound.arguments | result.resolved(bound.arguments)
            if result.place is not None:
                write_options(result.place, result.command, result.options)
        return result

    return framed
