"""Learning curves as a picture."""

from pathlib import Path
from typing import Any


def plot_curves(history: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw loss and accuracy by epoch, training against validation, to a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row["epoch"] for row in history]
    for axis, metric, label in zip(figure.subplots(1, 2), ("loss", "accuracy"), ("loss", "accuracy"), strict=True):
        for key, name, style in ((metric, "training", "-"), (f"val_{metric}", "validation", "--")):
            axis.plot(epochs, [row[key] for row in history], style, label=name)
        axis.set_xlabel("epoch")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    partial = path.with_name(f".{path.name}.partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)
