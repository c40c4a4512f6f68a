"""One function per command: call, then print. Imports stand inside, so that each command pays for its own only."""

# ruff: noqa: F401 (the command line looks the functions up by their names)

from toolkit.cli.commands.bundles import (
    benchmark,
    compress,
    demo,
    ensemble,
    evaluate,
    export,
    import_model,
    serve,
    verify,
)
from toolkit.cli.commands.explain import explain
from toolkit.cli.commands.folders import check
from toolkit.cli.commands.hub import pull, push
from toolkit.cli.commands.machine import completion, doctor
from toolkit.cli.commands.networks import models, samples, weights
from toolkit.cli.commands.predict import predict
from toolkit.cli.commands.training import gradcheck, train, tune
from toolkit.cli.commands.transfer import cache, finetune
from toolkit.cli.commands.versions import manage_bundles
