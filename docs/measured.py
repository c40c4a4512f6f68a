"""Sections whose table and picture are columns of a record's rows, as a table of sections."""

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

from charts import Chart, rows_chart
from records import Record, origin, picture, read, table


@dataclass(frozen=True)
class Measured:
    """A section whose table and picture are columns of a record's rows.

    ``columns`` are headings with keys of a row, the first of which names it: a key, or ``name`` where that is made of
    several. ``drawn`` are the headings in the picture, whose axis is ``axis``.
    """

    record: str
    title: str
    words: str
    columns: dict[str, str]
    rows: Callable[[Record], list[Record]] = itemgetter("rows")
    name: str = ""
    drawn: tuple[str, ...] = ("seconds", "processor seconds")
    axis: str = "seconds"
    log: bool = False

    def section(self) -> tuple[list[str], list[Chart]]:
        record = read(self.record)
        if record is None:
            return [f"## {self.title}", "", self.words, "", "Not run yet.", ""], []
        rows = self.rows(record)
        rows = [row | {"name": self.name.format(**row)} for row in rows] if self.name else rows
        page = [f"## {self.title}", "", self.words, "", *origin(record)]
        page += table(list(self.columns), [[row.get(key) for key in self.columns.values()] for row in rows])
        first = next(iter(self.columns.values()))
        series = {name: [row.get(self.columns[name]) for row in rows] for name in self.drawn}
        chart = rows_chart(self.record, self.title, [str(row[first]) for row in rows], series, self.axis, self.log)
        return [*page, *picture(chart)], [chart]


def _named(rows: dict[str, Record]) -> list[Record]:
    return [{"name": name, **row} for name, row in rows.items()]


def _percent(rows: list[Record], *keys: str) -> list[Record]:
    return [row | {key: round(100 * row[key], 2) for key in keys if key in row} for row in rows]


_MIB = 2**20


def _peaks(rows: list[Record]) -> list[Record]:
    return [row | {"mib": (row.get("peak_bytes") or 0) // _MIB or None} for row in rows]


def _compressed(record: Record) -> list[Record]:
    rows = _percent(record["rows"], "top1", "agreement")
    return [row | {"mib": round(row["bytes"] / _MIB, 3), "n": record["n"]} for row in rows]


def _served(record: Record) -> list[Record]:
    rows = [{"name": "offline"} | record["offline"], *_named(record["closed_loop"])]
    for key, words in (("at_70_percent", "70 %"), ("at_300_percent", "300 %")):
        found = record.get(key, {})
        found = {record["best"]: found} if "per_s" in found else found  # of the best alone, in older records
        rows += [row | {"name": f"{name}, at {words}"} for name, row in found.items()]
    return rows


def _maps(record: Record) -> list[Record]:
    rows = []
    for network, halves in record["halves"].items():
        curves = record["faithfulness"][network]
        rows += [
            {"name": f"{method}, {network}"} | halves.get(method, {}) | curves.get(method, {})
            for method in halves | curves
        ]
    return _percent(rows, "peak", "mass", "deletion", "insertion")


_STRANGE = {
    "score": "score",
    "own pictures refused %": "false_rejects",
    "strange pictures taken %": "false_accepts",
    "AUROC %": "auroc",
}

MEASURED = (
    Measured(
        "backbones",
        "Fine-tuning the networks that come along",
        "Test accuracy in percent of `toolkit finetune` from `resnet18-thin` and from `resnet20-cifar10`, beside "
        "ResNet-20 trained on those pictures alone and beside GoogLeNet with ImageNet's weights; one run each. Out of "
        "fold is by cross-validation over all pictures of the set. "
        "`resnet18-thin` saw the training pictures of `clothing` and `grocery` before, without their labels; of the "
        "other two sets it saw nothing.",
        {
            "set": "set",
            "classes": "classes",
            "pictures": "train",
            "test pictures": "test",
            "resnet18-thin": "resnet18",
            "standard error of resnet18-thin": "standard_error",
            "resnet20-cifar10": "resnet20",
            "ResNet-20 from nothing": "fresh",
            "GoogLeNet from ImageNet": "googlenet",
            "resnet18-thin, out of fold": "resnet18_out_of_fold",
            "resnet20-cifar10, out of fold": "resnet20_out_of_fold",
        },
        drawn=("resnet18-thin", "resnet20-cifar10", "ResNet-20 from nothing", "GoogLeNet from ImageNet"),
        axis="test accuracy %",
    ),
    Measured(
        "unknown",
        "None of these",
        "Pictures of other sets told from those of the bundle's own, on average over all pairs of sets: pictures of "
        "its own refused, and strange ones taken, by the score that tells them apart.",
        _STRANGE,
        rows=lambda record: record["mean_over_sets"],
        drawn=("own pictures refused %", "strange pictures taken %"),
        axis="%",
    ),
    Measured(
        "unknown-thin",
        "None of these, without a download",
        "The same from `resnet18-thin`, which comes along: its features tell less.",
        _STRANGE,
        rows=lambda record: record["mean_over_sets"],
        drawn=("own pictures refused %", "strange pictures taken %"),
        axis="%",
    ),
    Measured(
        "explain",
        "Heat maps",
        "Two photographs of different classes side by side: how often the map's peak lies on the one asked about, and "
        "how much of the map does. Then areas under the curves of whole photographs' probability while their hottest "
        "pixels are deleted, where less is better, and inserted, where more is.",
        {
            "method and network": "name",
            "maps": "maps",
            "peak %": "peak",
            "mass %": "mass",
            "pictures": "pictures",
            "deletion %": "deletion",
            "insertion %": "insertion",
        },
        rows=_maps,
        drawn=("peak %", "mass %", "deletion %", "insertion %"),
        axis="%",
    ),
    Measured(
        "finetune-googlenet",
        "Time to fine-tune GoogLeNet",
        "The same photographs and network: this package, a careful program that maps the pictures once, and a tutorial "
        "that trains through the frozen network.",
        {
            "side": "name",
            "seconds": "wall_s",
            "processor seconds": "cpu_s",
            "peak MiB": "mib",
            "test accuracy %": "test_accuracy",
        },
        rows=lambda record: _percent(_peaks(_named(record["sides"])), "test_accuracy"),
        log=True,
    ),
    Measured(
        "finetune-resnet50",
        "Time to fine-tune ResNet-50",
        "The same with random weights; *repeat* is the command given again.",
        {
            "side": "name",
            "seconds": "wall_s",
            "processor seconds": "cpu_s",
            "peak MiB": "mib",
            "epochs": "epochs_run",
        },
        rows=lambda record: _peaks(_named(record["sides"])),
        log=True,
    ),
    Measured(
        "journey-googlenet",
        "Whole commands",
        "From the shell to the bundle, imports included.",
        {"command": "name", "seconds": "seconds", "processor seconds": "processor_seconds"},
        rows=lambda record: _named(record["commands"]),
    ),
    Measured(
        "engines-resnet50",
        "Engines",
        "ResNet-50's forms on the same pictures.",
        {"engine": "name", "milliseconds a batch": "median_ms", "pictures/s": "images_per_s", "times": "speedup"},
        name="{engine}, batch {batch}",
        drawn=("pictures/s",),
        axis="pictures a second",
    ),
    *(
        Measured(
            f"serving-{network.lower().replace('-', '')}",
            f"Serving {network}",
            "Clients that each ask again when they are answered, *offline* being the same pictures in one program and "
            "*base* an older state of the server; then requests sent at even intervals, at 70 % and at three times the "
            "rate that was carried.",
            {
                "server": "name",
                "requests/s": "per_s",
                "refused": "refused",
                "mean ms": "mean_ms",
                "99th percentile ms": "p99_ms",
                "processor ms a request": "server_cpu_ms",
            },
            rows=_served,
            drawn=("requests/s",),
            axis="requests a second",
        )
        for network in ("GoogLeNet", "ResNet-50")
    ),
    Measured(
        "pipeline",
        "Input pipeline",
        "Pictures a second here and through Keras' own reader of folders, in the first epoch (*once*), those after "
        "(*then*) and all together.",
        {
            "pictures and epochs": "name",
            "toolkit": "ours_images_per_s",
            "Keras": "keras_images_per_s",
            "ratio": "ratio",
        },
        name="{pictures}, {epochs}",
        drawn=("toolkit", "Keras"),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "extract",
        "Files through a network",
        "The frozen part's features, answers and an accuracy of a folder of photographs, by the clock and in floors: "
        "the processor time of decoding and of the engine by themselves, shared among the cores.",
        {
            "way": "name",
            "photographs/s": "images_per_s",
            "seconds": "seconds",
            "floor": "floor_s",
            "seconds in floors": "of_floor",
        },
        name="{way}, {engine}",
        drawn=("seconds", "floor"),
    ),
    Measured(
        "decode",
        "Decoding",
        "From a file's bytes to 224 × 224 pixels, a picture at a time in one thread; then the share of twice that a "
        "second thread gains. Keras' loader does not smooth where it scales down.",
        {
            "pictures": "pictures",
            "toolkit ms": "ours_cpu_ms",
            "Keras ms": "keras_cpu_ms",
            "Pillow ms": "pillow_cpu_ms",
            "of Keras'": "of_keras",
            "pictures/s": "images_per_s",
            "gain per thread": "gain_per_thread",
        },
        rows=lambda record: record["times"],
        drawn=("toolkit ms", "Keras ms", "Pillow ms"),
        axis="milliseconds of processor time",
    ),
    Measured(
        "training",
        "Training steps",
        "Pictures a second of a step here, in plain Keras and, where it was beside, in PyTorch; and the processor time "
        "of Keras' step over each one's.",
        {
            "network, package, precision": "name",
            "pixels": "pixels",
            "batch": "batch",
            "pictures/s": "images_per_s",
            "of Keras": "of_keras",
            "of Keras in float32": "of_keras_float32",
        },
        name="{model}, {side}, {policy}",
        drawn=("pictures/s",),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "scan",
        "Looking at a folder",
        "Every picture decoded once, then remembered.",
        {"run": "run", "seconds": "wall_s", "processor seconds": "cpu_s", "peak MB": "peak_mb"},
    ),
    Measured(
        "build-resnet152",
        "Building ResNet-152",
        "Beside `keras.applications`.",
        {"build": "build", "seconds": "wall_s", "processor seconds": "cpu_s", "of Keras'": "cpu_ratio"},
    ),
    Measured(
        "load-resnet152",
        "Loading ResNet-152's weights",
        "From a file on disk into a network that is built already.",
        {"format": "format", "bytes": "bytes", "seconds to fill": "fill_s"},
        drawn=("seconds to fill",),
    ),
    *(
        Measured(
            f"compress-{network}",
            f"Compression of {title}",
            "Each form of the network on the same held-out pictures; agreement is with the float answers.",
            {"method": "method", "MiB": "mib", "top-1 %": "top1", "agreement %": "agreement", "pictures": "n"},
            rows=_compressed,
            drawn=("top-1 %", "agreement %"),
            axis="%",
        )
        for network, title in (("lenet5", "LeNet-5"), ("resnet20", "ResNet-20"), ("googlenet", "GoogLeNet"))
    ),
    Measured(
        "compress-googlenet-divisions",
        "Compression of GoogLeNet, five divisions of the pictures",
        "Top-1 in percent of each form, where other pictures are held out each time.",
        {"division": "division", "pictures": "n", "float": "float", "int8": "int8", "int8, trained": "qat"},
        drawn=("float", "int8", "int8, trained"),
        axis="top-1 %",
    ),
    Measured(
        "gpu",
        "On a GPU",
        "Training steps with JAX in bfloat16, on 64 random pictures that are on the device: pictures a second, and the "
        "most memory taken. Where the loss is a dash it had grown beyond numbers by then, at one rate for all; VGG-11 "
        "does so in float32, too. Networks that are not named, PyTorch beside and the features of files wait for more "
        "time on such a machine.",
        {"network": "network", "pictures/s": "images_per_s", "MiB": "mib", "loss": "loss"},
        rows=lambda record: _peaks(record["steps"]),
        drawn=("pictures/s",),
        axis="pictures a second",
        log=True,
    ),
    Measured(
        "peers",
        "Peers",
        "The same network, pictures and batch in other packages, random weights: a step of training and a batch "
        "answered, in processor time.",
        {"network, package, precision": "name", "answer ms": "answer_ms", "training step ms": "step_ms"},
        name="{network}, {side}, {policy}",
        drawn=("answer ms", "training step ms"),
        axis="milliseconds of processor time",
        log=True,
    ),
)
