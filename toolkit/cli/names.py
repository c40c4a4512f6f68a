"""Names that options take, from the tables that hold them, for the commands' help."""

from typing import get_args

from toolkit.bundle import SHIPPED
from toolkit.compress import PATTERNS
from toolkit.data.sources.samples import SAMPLES
from toolkit.engines import ENGINES
from toolkit.ensemble.crops import SCHEMES
from toolkit.inference.choice import CHOICES
from toolkit.training.recipes import list_recipes
from toolkit.transfer.heads.head import Solver
from toolkit.workflows.compress import COMPRESSION_METHODS
from toolkit.workflows.steps import FORMATS

NAMES = {
    "crops": SCHEMES,
    "engines": (*CHOICES, *ENGINES),
    "formats": FORMATS,
    "heads": get_args(Solver),
    "methods": COMPRESSION_METHODS,
    "patterns": PATTERNS,
    "recipes": list_recipes(),
    "samples": SAMPLES,
    "shipped": SHIPPED,
}
