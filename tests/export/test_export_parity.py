"""The gate shows each engine its pictures and finds who differs. Engines are tables of answers by picture."""

import numpy as np
import pytest

import toolkit.export.parity
from toolkit.data.feed.split import Subset
from toolkit.engines.runtimes import Answers, Engine
from toolkit.export.parity import (
    NOVELTY_REFERENCE,
    NUM_PARITY,
    REFERENCE,
    AccuracyBudget,
    EngineAnswers,
    HeldOutPictures,
    collect_answers,
    compare,
    compare_novelty,
    noise,
)
from toolkit.spec import Preprocessing

NUM, CLASSES = 200, 10
SMALL = Preprocessing((1, 1))
PICTURES = Subset(tuple(map(str, range(NUM))), tuple(np.arange(NUM) * CLASSES // NUM))  # sorted by class, as files come


class Table(Engine):
    """An engine that remembers what it was shown."""

    def __init__(self, probabilities: np.ndarray, novelty: np.ndarray | None = None) -> None:
        self.table = Answers(probabilities, novelty)
        self.seen: list[int] = []

    def answers(self, pixels: np.ndarray) -> Answers:
        self.seen.extend(pixels[:, 0, 0, 0].tolist())
        return Answers(*(part if part is None else part[pixels[:, 0, 0, 0] % len(part)] for part in self.table))


@pytest.fixture(autouse=True)
def decoded(monkeypatch) -> list[str]:
    """Paths in the order in which they were decoded, to pixels that say their number."""
    paths: list[str] = []

    def load(sources, preprocessing):
        paths.extend(sources)
        return np.array([int(source) for source in sources], np.uint8).reshape(-1, 1, 1, 1)

    monkeypatch.setattr(toolkit.export.parity, "load_pixels", load)
    return paths


@pytest.fixture
def right() -> np.ndarray:
    """Probabilities that are right about every picture."""
    return np.full((NUM, CLASSES), 0.01, np.float32) + 0.9 * np.eye(CLASSES, dtype=np.float32)[list(PICTURES.labels)]


def wrong_about(answers: np.ndarray, pictures: slice) -> np.ndarray:
    changed = answers.copy()
    changed[pictures] = np.roll(changed[pictures], 1, axis=1)
    return changed


def answers_of(reference, evaluation=PICTURES, **engines) -> EngineAnswers:
    named = {name.replace("_", "-"): Table(table) for name, table in engines.items()}
    return collect_answers(Table(reference), named, SMALL, evaluation)


def test_every_picture_is_decoded_once_and_shown_once(right, decoded):
    engines = {name: Table(right) for name in ("litert", "litert-int8", "other")}
    reference = Table(right)
    further = np.array([0, 1, 2, 150])
    answers = collect_answers(reference, engines, SMALL, PICTURES, shown={"litert": further, "other": further})
    assert decoded == list(PICTURES.paths)
    assert reference.seen == engines["litert-int8"].seen == list(range(NUM))
    assert engines["other"].seen == further.tolist()
    seen = engines["litert"].seen
    assert len(seen) == len(set(seen)) <= NUM_PARITY + len(further)
    assert {0, 1, 2, 150, NUM - 1} <= set(seen)
    np.testing.assert_array_equal(answers.of("litert", further), right[further])
    np.testing.assert_array_equal(answers.probabilities[REFERENCE], right)
    assert set(compare(answers, AccuracyBudget()).parity) == {"litert", "litert-int8"}


def test_known_answers_of_the_network_are_taken_as_they_are(right):
    answers = collect_answers(right, {"litert-int8": Table(right)}, SMALL, PICTURES)
    np.testing.assert_array_equal(answers.probabilities[REFERENCE], right)
    assert compare(answers, AccuracyBudget()).scores == {"top1": 1, "top5": 1, "top1_litert-int8": 1, "n": NUM}


def test_novelty_is_compared_on_the_pictures_that_the_network_was_shown(right, decoded):
    novelty = np.linspace(0, 2, NUM, dtype=np.float32)
    one_off = novelty.copy()
    one_off[-1] += 0.5
    engines = {
        NOVELTY_REFERENCE: Table(right, novelty),
        "litert": Table(right, one_off),
        "openvino": Table(right),
        "litert-int8": Table(right, novelty + 0.1),
        "other": Table(right, one_off),
    }
    answers = collect_answers(
        right, engines, SMALL, PICTURES, shown=dict.fromkeys(("litert", "other"), np.array([0, 1]))
    )
    assert decoded == list(PICTURES.paths)
    assert len(engines[NOVELTY_REFERENCE].seen) == NUM_PARITY
    assert compare_novelty(answers) == pytest.approx({"litert": 0.5, "litert-int8": 0.1})
    assert set(compare(answers, AccuracyBudget()).parity) == {"litert", "openvino", "litert-int8"}
    assert compare_novelty(collect_answers(right, {"litert": Table(right, novelty)}, SMALL, PICTURES)) == {}


def test_difference_in_the_last_class_alone_is_seen(right):
    """Must hold: the float comparison draws on the whole evaluation set, which comes sorted by class."""
    comparison = compare(answers_of(right, litert=wrong_about(right, slice(-NUM // CLASSES, None))), AccuracyBudget())
    assert comparison.objections == {"litert": "litert differs from Keras by 0.9, more than 0.0001"}
    assert not comparison.trusts("litert")


def test_nan_is_an_objection(right):
    broken = right.copy()
    broken[-1] = np.nan
    assert (
        "differs from Keras by nan"
        in compare(answers_of(right, savedmodel=broken), AccuracyBudget()).objections["savedmodel"]
    )


def test_quantized_engines_are_judged_by_the_accuracy_they_lose(right):
    comparison = compare(
        answers_of(right, litert_int8=wrong_about(right, slice(2)), openvino_int8=wrong_about(right, slice(0, 90, 30))),
        AccuracyBudget(),
    )
    assert comparison.scores["top1_litert-int8"] == 0.99
    assert comparison.objections == {"openvino-int8": "openvino-int8 loses 1.5 points of top-1 over 200 pictures"}
    assert comparison.trusts("litert-int8")


def test_bfloat16_is_judged_by_probabilities_on_every_picture_and_by_accuracy(right):
    near, far = right + 0.009, right.copy()
    far[3] -= 0.011
    assert compare(answers_of(right, openvino_bf16=near), AccuracyBudget()).objections == {}
    comparison = compare(answers_of(right, openvino_bf16=far), AccuracyBudget())
    assert comparison.objections == {"openvino-bf16": "openvino-bf16 differs from Keras by 0.011, more than 0.01"}
    assert comparison.scores["top1_openvino-bf16"] == 1
    assert not comparison.trusts("openvino-bf16")


@pytest.mark.parametrize("evaluation", [None, Subset((), ())])
def test_without_pictures_noise_is_compared_and_int8_not_trusted(right, evaluation):
    comparison = compare(answers_of(right, evaluation, litert=right, litert_int8=right), AccuracyBudget())
    assert comparison.parity == {"litert": 0, "litert-int8": 0}
    assert comparison.scores == {}
    assert comparison.trusts("litert")
    assert not comparison.trusts("litert-int8")


@pytest.mark.parametrize(
    ("lost", "num", "allowed"),
    [(0.0, 10, True), (0.2, 10, True), (0.3, 10, False), (0.01, 1000, True), (0.011, 1000, False), (-0.5, 10, True)],
)
def test_budget_is_one_point_or_two_pictures_whichever_is_more(lost, num, allowed):
    assert AccuracyBudget().allows(lost, num) == allowed


def test_large_pictures_are_shown_few_at_a_time_and_each_once(told):
    """Engines hold what they computed a batch in: memory goes by pixels, not by pictures."""
    for size, most in (((32, 32), 32), ((224, 224), 4), ((1000, 1000), 1)):
        preprocessing = Preprocessing(size)
        starts, batches = zip(*HeldOutPictures(None, preprocessing).batches("showing"), strict=True)
        assert max(map(len, batches)) == min(most, 16)
        assert list(starts) == list(range(0, 16, len(batches[0])))
        np.testing.assert_array_equal(np.concatenate(batches), noise(preprocessing))
