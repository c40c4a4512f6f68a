"""Bottlenecks of a graph, and the layers that compute among those that repeat."""

import keras

from toolkit.network import bottlenecks, origin, producers_of, shrinks


def network():
    """A convolution, a block of two branches, a pooling, and a classifier."""
    inputs = keras.Input((16, 16, 3), name="input")
    x = keras.layers.Conv2D(4, 3, padding="same", name="stem_conv")(inputs)
    branch = keras.layers.Conv2D(4, 3, padding="same", name="stage1_conv1")(x)
    branch = keras.layers.Conv2D(4, 3, padding="same", name="stage1_conv2")(branch)
    x = keras.layers.Add(name="stage1_add")([x, branch])
    x = keras.layers.MaxPooling2D(name="stage1_pool")(x)
    x = keras.layers.Dropout(0.5, name="stage1_dropout")(x)
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))


def test_the_graph_narrows_before_and_behind_branches_but_not_between():
    model = network()
    for one in (model, keras.models.clone_model(model)):
        assert [layer.name for layer in bottlenecks(one)] == [
            *("input", "stem_conv", "stage1_add", "stage1_pool", "stage1_dropout", "head_pool", "head_logits")
        ]


def test_two_inputs_narrow_only_where_they_meet():
    first, second = keras.Input((4,)), keras.Input((4,))
    both = keras.layers.Concatenate(name="both")([first, second])
    model = keras.Model([first, second], keras.layers.Dense(2, name="head")(both))
    assert [layer.name for layer in bottlenecks(model)][-2:] == ["both", "head"]


def test_an_operation_of_several_outputs_is_no_bottleneck():
    inputs = keras.Input((8, 8, 4), name="input")
    left, right, _ = keras.ops.split(keras.layers.Conv2D(6, 3, name="stem")(inputs), 3, axis=-1)
    both = keras.layers.Concatenate(name="both")([left, keras.layers.ReLU(name="relu")(right)])
    one, _ = keras.ops.split(both, 2, axis=-1)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(keras.ops.mean(one, axis=(1, 2))))
    assert [layer.name.partition("_")[0] for layer in bottlenecks(model)] == ["input", "stem", "both", "mean", "head"]


def test_what_repeats_goes_back_to_what_computed():
    model = network()
    producers = producers_of(model)
    for name in ("head_pool", "stage1_dropout", "stage1_pool", "stage1_add"):
        assert origin(model.get_layer(name), producers).name == "stage1_add"


def test_a_border_lost_is_no_other_resolution():
    assert not shrinks((None, 28, 28, 6), (None, 24, 24, 6))
    assert shrinks((None, 28, 28, 6), (None, 14, 14, 6))
    assert shrinks((None, 7, 7, 64), (None, 64))
