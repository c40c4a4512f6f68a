"""The call that classifies pictures."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.api.calls import call
from toolkit.api.results import Predictions
from toolkit.errors import UserError

if TYPE_CHECKING:
    from toolkit.inference.inputs import Input
    from toolkit.inference.predictor import NamedAnswer


@call
def predict(
    bundle: str | os.PathLike[str],
    images: Any,
    *,
    top_k: int = 5,
    cluster: str | None = None,
    server: str | None = None,
    others: Sequence[str | os.PathLike[str]] = (),
    crops: int = 1,
    scales: Sequence[int] = (),
    engine: str = "auto",
) -> Predictions:
    """Classify pictures with a bundle.

    Who asks again and again opens the bundle once: ``toolkit.Predictor.load(bundle).predict(images)``.

    >>> import numpy as np
    >>> import toolkit
    >>> stroke = np.zeros((28, 28), np.uint8)
    >>> stroke[4:24, 13:15] = 255
    >>> (row,) = toolkit.predict("lenet5-mnist", stroke, engine="litert")
    >>> row["predictions"][0]["label"]
    '1'

    Args:
        bundle: ``saved_models/NAME``, or one version of it; or one on the hub, ``hf://user/name@v2``.
        images: one or several: files, folders, patterns such as ``"photos/*.jpg"``; or pictures of any kind that
            ``toolkit.Predictor.predict`` takes: bytes, Pillow images, uint8 arrays.
        top_k: labels for each picture.
        cluster: predict on this Ray cluster; ``"local"`` starts one here.
        server: ask this server, such as ``"http://127.0.0.1:8501"``, for its bundle NAME, NAME/VERSION or NAME/LABEL.
        others: bundles whose answers are averaged in.
        crops: of each picture, to average.
        scales: shorter sides in pixels, each with all of the crops.
        engine: what runs the network, see ``toolkit.Predictor.load``.

    Returns:
        A row for each picture: ``{"path", "predictions", "rejected"}``, or ``{"path", "error"}`` of one that cannot be
        read. A notebook shows them beside the pictures.

    Raises:
        UserError: no such bundle, or nothing that can be read.
    """
    request = Request(bundle, top_k, cluster, server, tuple(others), crops, tuple(scales), engine)
    request.check()
    pictures = list(_given(images))
    rows = list(request.answers(pictures))
    if all("error" in row for row in rows):
        from toolkit.inference.inputs import nothing_answered

        raise nothing_answered([f"{row['path']}: {row['error']}" for row in rows])
    return Predictions(rows, [picture.source for picture in pictures])


@dataclass(frozen=True)
class Picture:
    """A picture to classify.

    Attributes:
        path: names it in answers.
        source: what is decoded.
        reason: why it is none; empty if it is one.
    """

    path: str
    source: Any
    reason: str = ""

    @classmethod
    def found(cls, found: "Input") -> "Picture":
        """A file that was looked for."""
        return cls(found.path, found.path, found.reason)


def _given(images: Any) -> Iterator[Picture]:
    """Name pictures of any kind, finding the files that paths stand for."""
    from toolkit.inference.images import iter_images
    from toolkit.inference.inputs import find_pictures

    items, _ = iter_images(images)
    items = list(items)
    if not items:
        raise UserError("no pictures were given; expected a file, a folder, a pattern, a picture, or several in a list")
    if all(isinstance(item, str | os.PathLike) for item in items):
        yield from map(Picture.found, find_pictures([os.fspath(item) for item in items]))
    else:
        for index, item in enumerate(items):
            is_path = isinstance(item, str | os.PathLike)
            yield Picture(os.fspath(item) if is_path else f"images[{index}]", item)


@dataclass(frozen=True)
class Request:
    """A bundle to ask, and how, see ``predict``."""

    bundle: str | os.PathLike[str]
    top_k: int = 5
    cluster: str | None = None
    server: str | None = None
    others: tuple[str | os.PathLike[str], ...] = ()
    crops: int = 1
    scales: tuple[int, ...] = ()
    engine: str = "auto"

    def check(self) -> None:
        """Refuse bundles that are none, before pictures are looked for."""
        from toolkit.bundle import find_bundle
        from toolkit.data.sources.content import is_picture_name
        from toolkit.hub.address import is_address, parse_address

        if self.top_k < 1:
            raise UserError(f"top_k must be at least 1, got {self.top_k}")
        if self.server:
            self._require_served()
            return
        for bundle in self._bundles:
            if is_address(bundle):
                parse_address(bundle)
            elif is_picture_name(os.fspath(bundle)) and os.path.isfile(bundle):
                raise UserError(f"{os.fspath(bundle)}: a picture, and no bundle; give the bundle first, then pictures")
            else:
                find_bundle(bundle, shipped=True)

    @property
    def _bundles(self) -> list[Any]:
        return [self.bundle, *self.others]

    def answers(self, pictures: Sequence[Picture]) -> Iterator[dict[str, Any]]:
        """Answer pictures one by one, as rows of ``predict``."""
        from toolkit.inference.choice import require_engine
        from toolkit.progress import step

        require_engine(self.engine)
        sources = [picture.source for picture in pictures if not picture.reason]
        ask = self._over_ray if self.cluster else self._by_server if self.server else self._here
        found = ask(sources)
        with step("classifying", len(pictures)) as told:
            for done, picture in enumerate(pictures, start=1):
                answer = UserError(picture.reason) if picture.reason else next(found)
                yield {"path": picture.path} | _document(answer, picture.path)
                told(done)

    def _require_served(self) -> None:
        """Refuse what a server cannot be asked for."""
        bundle = os.fspath(self.bundle)
        if bundle.count("/") > 1 or os.path.isabs(bundle):
            raise UserError(
                f"{bundle}: with --server expected the name of a bundle that it serves: NAME, NAME/VERSION or "
                "NAME/LABEL"
            )
        own: dict[str, Any] = {"--with": self.others, "--crops": self.crops != 1, "--scales": self.scales}
        own |= {"--engine": self.engine != "auto", "--cluster": self.cluster}
        if given := [option for option, value in own.items() if value]:
            raise UserError(
                f"{given[0]} has no effect on a server, which was started with settings of its own; leave it out"
            )

    def _here(self, sources: Iterable[Any]) -> "Iterator[NamedAnswer | UserError]":
        from toolkit.inference import Predictor

        predictor = Predictor.load_several(self._bundles, self.engine, crops=self.crops, scales=self.scales)
        for answer in predictor.iter_answers(sources):
            yield answer if isinstance(answer, UserError) else predictor.named(answer, self.top_k)

    def _over_ray(self, sources: Sequence[Any]) -> "Iterator[NamedAnswer | UserError]":
        from toolkit.workflows.ray_predict import PredictOptions, predict_over_ray

        options = PredictOptions(self.engine, self.crops, self.scales, self.top_k)
        assert self.cluster is not None
        return predict_over_ray(self._bundles, sources, options, address=self.cluster)

    def _by_server(self, sources: Sequence[Any]) -> "Iterator[NamedAnswer | UserError]":
        from toolkit.client import Client

        assert self.server is not None
        name, _, version = os.fspath(self.bundle).partition("/")
        with Client(self.server, name, int(version) if version.isdecimal() else version or None) as client:
            yield from client.iter_answers(sources, top_k=self.top_k)


def _document(answer: "NamedAnswer | UserError", path: str) -> dict[str, Any]:
    """Put an answer together; of bundles that do not tell novelty, without it."""
    if isinstance(answer, UserError):
        return {"error": answer.reason(path)}
    document = {"predictions": [vars(prediction) for prediction in answer.predictions], "rejected": bool(answer.reason)}
    return document if answer.novelty is None else document | {"reason": answer.reason, "novelty": answer.novelty}
