"""Options of a command in a TOML file, beneath those of the command line."""

import contextlib
import tomllib
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

import numpy as np
import pytest

import toolkit
from toolkit.api.options import RUN_FILE, source_of, write_options
from toolkit.cli.main import main
from toolkit.cli.options import parse, subcommands
from toolkit.cli.parser import build_parser
from toolkit.data.sources.source import Source
from toolkit.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Parse a command with a file of this content."""

    def read(content: str, *words: str) -> Namespace:
        file = tmp_path / "run.toml"
        file.write_text(content, encoding="utf-8")
        return parse(build_parser(), [words[0], *words[1:], "--config", str(file)])

    return read


def test_options_stand_in_the_file_by_their_names(read):
    arguments = read(
        'data = "my photos"\nmodel = "googlenet"\nout = "saved_models/mine"\nmax-ms = 5\nhidden = [64, 32]\n'
        'keep_val = true\nbalanced = false\nbudget = "90s"\nformats = ["savedmodel", "litert"]\n',
        "finetune",
    )
    assert (arguments.data, arguments.model, arguments.out) == (
        Path("my photos"),
        "googlenet",
        Path("saved_models/mine"),
    )
    assert (arguments.max_ms, arguments.hidden, arguments.budget) == (5.0, [64, 32], "90s")
    assert (arguments.keep_val, arguments.balanced) == (True, False)
    assert arguments.formats == ("savedmodel", "litert")
    assert arguments.head == "auto"


#: Words of which any option takes one.
WORDS = ("1", "90s")


def leaves(parser: ArgumentParser, words: tuple[str, ...] = ()) -> dict[tuple[str, ...], ArgumentParser]:
    found: dict[tuple[str, ...], ArgumentParser] = {}
    for name, own in subcommands(parser).items():
        found |= leaves(own, (*words, name)) if subcommands(own) else {(*words, name): own}
    return found


def word_for(action: Action) -> str:
    for word in map(str, action.choices or WORDS):
        with contextlib.suppress(ValueError, ArgumentTypeError, UserError):
            action.type(word) if callable(action.type) else word
            return word
    raise AssertionError(f"none of {WORDS} is a value of {action.dest}")


@pytest.mark.parametrize("command", leaves(build_parser()), ids=" ".join)
def test_every_option_of_a_command_may_stand_in_the_file(command, tmp_path):
    """And means there what it means on the command line."""
    parser = build_parser()
    own = leaves(parser)[command]
    behind = {action.dest for group in own._mutually_exclusive_groups for action in group._group_actions[1:]}
    words, lines = list(command), []
    for action in own._actions:
        if action.dest in {"help", "config"} | behind:
            continue
        name = action.option_strings[-1:]
        words += name if action.nargs == 0 else [*name, word_for(action)]
        value = "true" if action.nargs == 0 else f'"{word_for(action)}"'
        lines.append(f"{name[0].lstrip('-') if name else action.dest} = {value}\n")
    assert "config" in {action.dest for action in own._actions} or not lines
    expected = vars(parser.parse_args(words))
    file = tmp_path / "run.toml"
    file.write_text("".join(lines))
    arguments = vars(parse(build_parser(), [*command, "--config", str(file)]))
    assert arguments == expected | {"config": arguments["config"]}


def test_the_command_line_counts(read):
    content = 'data = "photos"\nmodel = "googlenet"\nout = "a"\nviews = 3\n'
    arguments = read(content, "finetune", "others", "--model", "vgg16", "--views", "2")
    assert (arguments.data, arguments.model, arguments.views) == (Path("others"), "vgg16", 2)


def test_what_may_be_given_several_times_adds_to_the_file(read):
    arguments = read('set = ["run.epochs=60"]\n', "train", "photos", "--set", "optimizer.lr=0.1")
    assert arguments.set == ["run.epochs=60", "optimizer.lr=0.1"]
    table = read("[set]\nrun.epochs = 60\noptimizer.lr = 0.1\n", "train", "photos")
    assert table.set == ["run.epochs=60", "optimizer.lr=0.1"]
    table = read("[set]\nrun.tensorboard = true\ndata.fractions = [0.8, 0.1, 0.1]\n", "train", "photos")
    assert table.set == ["run.tensorboard=true", "data.fractions=[0.8, 0.1, 0.1]"]
    assert read('with = ["a", "b"]\n', "predict", "c", "x.jpg").others == [Path("a"), Path("b")]
    assert read('others = "a"\n', "predict", "c", "x.jpg").others == [Path("a")]


def test_words_of_the_command_line_are_what_the_file_does_not_name(read):
    arguments = read('bundle = "saved_models/mine"\n', "predict", "a.jpg", "b.jpg")
    assert (arguments.bundle, arguments.images) == (Path("saved_models/mine"), ["a.jpg", "b.jpg"])
    assert read('images = ["a.jpg"]\n', "predict", "bundle").images == ["a.jpg"]
    assert read('cache = "here"\n', "cache", "list").cache == Path("here")


def test_file_may_stand_before_an_action(tmp_path, capsys):
    (tmp_path / "run.toml").write_text('cache = "here"\n')
    words = ["cache", "--config", str(tmp_path / "run.toml"), "list"]
    assert parse(build_parser(), words).cache == Path("here")
    with pytest.raises(SystemExit):  # no option of all commands
        parse(build_parser(), words[1:])
    assert "toolkit: error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("modle = 1", "unknown option of `toolkit finetune` 'modle'; did you mean 'model'?"),
        ("config = 'x'", "unknown option of `toolkit finetune` 'config'; "),
        ("views = 0", "views = 0: expected a whole number from 1 on, got 0"),
        ("views = 'many'", "views = 'many': expected a whole number from 1 on, got many"),
        ("views = true", "views = True: expected a value, not true or false"),
        ("balanced = 1", "balanced = 1: expected true or false"),
        ("budget = 'soon'", "budget = 'soon': expected a time such as 90s, 10m or 1.5h, got 'soon'"),
        ("hidden = [[1]]", "hidden = [[1]]: expected a text or a number"),
        ("model = {a = 1}", "model = {'a': 1}: expected a text or a number"),
        ("model =", "is no TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(content, message, tmp_path, capsys):
    file = tmp_path / "run.toml"
    file.write_text(content)
    assert main(["finetune", "--config", str(file)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"toolkit: error: {file}: ")
    assert message in line


def test_file_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["models", f"--config={tmp_path}/gone.toml"]) == 2
    assert "gone.toml: no such file, which --config names" in capsys.readouterr().err
    assert main(["models", "--config", str(tmp_path)]) == 2
    assert main(["models", "--conf", "x.toml"]) == 2
    assert "write --config in full" in capsys.readouterr().err


def test_what_is_required_is_so_still(read, capsys):
    with pytest.raises(SystemExit):
        read('model = "googlenet"\n', "finetune")
    assert "the following arguments are required: DATA, --out" in capsys.readouterr().err


def test_options_written_are_read_back(tmp_path):
    options = {"data": Path("my photos"), "model": "googlenet", "budget": "10m", "hidden": (64,), "out": 'saved/ä\n"'}
    write_options(tmp_path, "finetune", options | {"cache": None, "on_epoch": print})
    arguments = parse(build_parser(), ["finetune", "--config", str(tmp_path / RUN_FILE)])
    for name, value in options.items():
        assert getattr(arguments, name) == (
            list(value) if isinstance(value, tuple) else type(getattr(arguments, name))(value)
        )
    assert set(tomllib.loads((tmp_path / RUN_FILE).read_text())) == set(options)


def test_options_of_python_are_read_back_too(tmp_path):
    data = Source(tmp_path / "photos", {"fold 1": "train"}, join_classes=True)
    numbers = {"lr": np.float32(0.5), "views": np.int64(2), "balanced": np.True_, "hidden": np.array([64, 32])}
    options = {"data": data, "model": "googlenet", "out": "m", "split_folders": None, "join_classes": False} | numbers
    write_options(tmp_path, "finetune", options)
    arguments = parse(build_parser(), ["finetune", "--config", str(tmp_path / RUN_FILE)])
    assert source_of(arguments.data, arguments.split_folders, arguments.join_classes) == data
    assert (arguments.lr, arguments.views, arguments.balanced, arguments.hidden) == (0.5, 2, True, [64, 32])


def test_keywords_add_to_a_source(tmp_path):
    data = Source(tmp_path, {"fold 1": "train"})
    assert source_of(data, None, False) == data
    assert source_of(data, None, True) == Source(tmp_path, {"fold 1": "train"}, join_classes=True)
    assert source_of(data, {"val": "fold 2"}, False) == Source(tmp_path, {"fold 2": "val"})
    devkit = Source(tmp_path, devkit=tmp_path / "devkit")
    assert source_of(devkit, None, True) == Source(tmp_path, devkit=tmp_path / "devkit", join_classes=True)


def test_wrong_option_from_python_is_the_same_error():
    with pytest.raises(UserError, match="expected a time"):
        toolkit.finetune("photos", model="lenet5", budget="soon")
