"""The experiments of ``benchmarks/papers.py``: the networks that each trains, and their settings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """A network and its settings, on top of its recipe and of the experiment's."""

    name: str
    model: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Together:
    """Finished runs of all seeds, or the first seed's, whose answers are averaged, over so many crops each."""

    name: str
    of: str
    every_seed: bool
    crops: int = 1


@dataclass(frozen=True)
class Experiment:
    """Runs to train, and for how long; ``pictures`` and ``test_pictures`` of 0 are all of the data set's."""

    data: str
    epochs: int
    runs: tuple[Run, ...]
    settings: tuple[str, ...] = ()
    pictures: int = 0
    test_pictures: int = 0
    together: tuple[Together, ...] = ()


_FAST = "run.dtype_policy=auto"
_CIFAR = (_FAST, "run.batch_size=128", "data.augment=shift_flip", "optimizer.l2=1e-4", "optimizer.momentum=0.9")
#: He et al. 2016, section 4.2: the rate divided by ten at half and three quarters of the run, whatever its length.
_STEPS = ("optimizer.name=sgd", "optimizer.lr=0.1", "optimizer.schedule=step", *_CIFAR)
_COSINE = ("optimizer.name=nesterov", "optimizer.lr=0.1", "optimizer.schedule=cosine", *_CIFAR)
_WITHOUT_BN = 'model.variant={"batch_norm": false}'


def _optimizer(name: str, lr: float, *more: str) -> Run:
    title = "-".join([name, *(part.partition("=")[2] for part in more if "schedule" in part or "momentum" in part)])
    return Run(title, "lenet5", (f"optimizer.name={name}", f"optimizer.lr={lr}", *more))


def _schedule(name: str, *more: str) -> Run:
    settings = ("optimizer.name=sgd", "optimizer.lr=0.05", f"optimizer.schedule={name}", *more)
    return Run(f"schedule-{name}", "lenet5", settings)


EXPERIMENTS = {
    "degradation": Experiment(
        data="cifar10",
        epochs=10,
        settings=_STEPS,
        runs=tuple(Run(name, name) for name in ("plain20", "plain56", "resnet20", "resnet56")),
    ),
    "cifar": Experiment(
        data="cifar10",
        epochs=20,
        settings=(_FAST,),
        runs=(
            Run("resnet20", "resnet20", _COSINE),
            Run("resnet56", "resnet56", _COSINE),
            Run("resnet56_sd", "resnet56_sd", _COSINE),
            Run("nin_cifar", "nin_cifar", ("optimizer.schedule=cosine",)),
            Run("highway_cnn19", "highway_cnn19", ("optimizer.schedule=cosine",)),
        ),
        together=(Together("resnet20-10-crops", "resnet20", every_seed=False, crops=10),),
    ),
    "mnist": Experiment(
        data="mnist",
        epochs=5,
        pictures=8_000,
        runs=(
            Run("softmax_regression", "softmax_regression", ("data.augment=none",)),
            Run("mlp", "mlp", ("data.augment=none",)),
            Run("highway_mlp", "highway_mlp", ("data.augment=none", "optimizer.name=adamw", "optimizer.lr=3e-3")),
            Run("lenet5", "lenet5", ("data.augment=none",)),
            Run("lenet5-shifted", "lenet5", ("data.augment=shift:0.0625, rotate:10",)),
            Run("nin_cifar", "nin_cifar", (_FAST, "data.augment=none", "optimizer.schedule=cosine")),
        ),
        together=(
            Together("lenet5-ensemble", "lenet5", every_seed=True),
            Together("lenet5-10-crops", "lenet5", every_seed=False, crops=10),
        ),
    ),
    "optimizers": Experiment(
        data="mnist",
        epochs=5,
        pictures=3_000,
        test_pictures=1_000,
        settings=(
            *("data.augment=none", "run.gradient_norms=false", "optimizer.schedule=constant"),
            *("optimizer.warmup_epochs=0", "optimizer.weight_decay=0"),
        ),
        runs=(
            _optimizer("sgd", 0.05, "optimizer.momentum=0"),
            _optimizer("sgd", 0.05, "optimizer.momentum=0.9"),
            _optimizer("nesterov", 0.05),
            _optimizer("rmsprop", 1e-3),
            _optimizer("adam", 1e-3),
            _optimizer("adamw", 1e-3, "optimizer.weight_decay=1e-2"),
            _schedule("inverse_time"),
            _schedule("exponential"),
            _schedule("inverse_sqrt_epoch"),
            _schedule("inverse_sqrt_step"),
            _schedule("staircase", "optimizer.every=2"),
            _schedule("manual", "optimizer.milestones=[2, 4]", "optimizer.rates=[0.02, 0.005]"),
            _schedule("plateau", "optimizer.patience=1"),
            _schedule("step"),
            _schedule("cosine"),
        ),
    ),
    "initialisers": Experiment(
        data="cifar10",
        epochs=2,
        pictures=1_000,
        test_pictures=1_000,
        settings=("optimizer.name=sgd", "optimizer.lr=0.01", "optimizer.schedule=constant", "run.batch_size=50"),
        runs=tuple(
            Run(f"{drawn}{'' if normalised else '-no-bn'}", "plain20", (f"model.initializer={drawn}", *variant))
            for normalised, variant in ((True, ()), (False, (_WITHOUT_BN,)))
            for drawn in ("he_normal", "glorot_normal", "lecun_normal")
        ),
    ),
    "regularisation": Experiment(
        data="mnist",
        epochs=20,
        pictures=1_000,
        test_pictures=2_000,
        settings=("data.augment=none", "optimizer.weight_decay=0", "run.gradient_norms=false"),
        runs=(
            Run("none", "mlp"),
            Run("dropout", "mlp", ('model.variant={"dropout": 0.5}',)),
            Run("l2", "mlp", ("optimizer.l2=1e-2",)),
            Run("weight-decay", "mlp", ("optimizer.weight_decay=0.1",)),
            Run("label-smoothing", "mlp", ("optimizer.label_smoothing=0.1",)),
            Run("early-stopping", "mlp", ("run.early_stopping=3",)),
            Run("augmentation", "mlp", ("data.augment=shift:0.0625, rotate:10",)),
        ),
    ),
}
