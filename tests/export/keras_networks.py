"""Run by itself: real Keras builds, saves and paints the networks that the Keras tests read back.

    python keras_networks.py FOLDER

TensorFlow takes seconds to import and warns while it does, so it stays out of the process that runs the tests. FOLDER
holds `pictures.npy`, (P, 256, 256, 3) uint8; everything else is written here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

WINDOW = {"strides": 2, "padding": "same"}
SEED = 3


def tutorial(base: int = 2, rate: float = 0.5, *, side: int | None = 256) -> Any:
    """The generator of TensorFlow's pix2pix tutorial."""

    def downsample(filters: int, *, norm: bool = True) -> Any:
        block = keras.Sequential([layers.Conv2D(filters, 4, use_bias=False, **WINDOW)])
        if norm:
            block.add(layers.BatchNormalization())
        block.add(layers.LeakyReLU())
        return block

    def upsample(filters: int, *, dropout: bool = False) -> Any:
        block = keras.Sequential([layers.Conv2DTranspose(filters, 4, use_bias=False, **WINDOW)])
        block.add(layers.BatchNormalization())
        if dropout:
            block.add(layers.Dropout(rate))
        block.add(layers.ReLU())
        return block

    sketch = x = keras.Input((side, side, 3))
    skips = []
    for index, factor in enumerate((1, 2, 4, 8, 8, 8, 8, 8)):
        x = downsample(factor * base, norm=index > 0)(x)
        skips.append(x)
    ups = [upsample(8 * base, dropout=True) for _ in range(3)]
    ups += [upsample(factor * base) for factor in (8, 4, 2, 1)]
    for up, skip in zip(ups, skips[-2::-1], strict=True):
        x = layers.Concatenate()([up(x), skip])
    return keras.Model(sketch, layers.Conv2DTranspose(3, 4, activation="tanh", **WINDOW)(x))


def brownlee(base: int = 2, rate: float = 0.5, *, training: bool | None = True) -> Any:
    """Brownlee's generator, whose normalisation and dropout are called with training=True."""
    sketch = g = keras.Input((256, 256, 3))
    skips = []
    for index, factor in enumerate((1, 2, 4, 8, 8, 8, 8)):
        g = layers.Conv2D(factor * base, (4, 4), **WINDOW)(g)
        if index:
            g = layers.BatchNormalization()(g, training=training)
        g = layers.LeakyReLU(negative_slope=0.2)(g)
        skips.append(g)
    g = layers.Activation("relu")(layers.Conv2D(8 * base, (4, 4), **WINDOW)(g))
    for index, factor in enumerate((8, 8, 8, 8, 4, 2, 1)):
        g = layers.Conv2DTranspose(factor * base, (4, 4), **WINDOW)(g)
        g = layers.BatchNormalization()(g, training=training)
        if index < 3:
            g = layers.Dropout(rate)(g, training=training)
        g = layers.Activation("relu")(layers.Concatenate()([g, skips.pop()]))
    return keras.Model(sketch, layers.Activation("tanh")(layers.Conv2DTranspose(3, (4, 4), **WINDOW)(g)))


def pooling(base: int = 3, rate: float = 0.5, *, transposed: bool = False) -> Any:
    """The plain U-Net with sigmoid, of either school."""

    def convolutions(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, activation="relu", padding="same")(x)
        return x

    sketch = x = keras.Input((256, 256, 1))
    skips = []
    for level in range(4):
        x = convolutions(x, base * 2**level)
        if level == 3 and not transposed:
            x = layers.Dropout(rate)(x)
        skips.append(x)
        x = layers.MaxPooling2D(pool_size=(2, 2))(x)
    x = convolutions(x, base * 16)
    if not transposed:
        x = layers.Dropout(rate)(x)
    for level in reversed(range(4)):
        filters = base * 2**level
        if transposed:
            x = layers.concatenate([layers.Conv2DTranspose(filters, (2, 2), **WINDOW)(x), skips.pop()], axis=3)
        else:
            up = layers.Conv2D(filters, 2, activation="relu", padding="same")(layers.UpSampling2D(size=(2, 2))(x))
            x = layers.concatenate([skips.pop(), up], axis=3)
        x = convolutions(x, filters)
    if not transposed:
        x = layers.Conv2D(2, 3, activation="relu", padding="same")(x)
    return keras.Model(sketch, layers.Conv2D(1, 1, activation="sigmoid")(x))


def randomise(model: Any) -> Any:
    """Weights that keep signals alive, and statistics and biases other than the initial ones."""
    numbers = np.random.default_rng(SEED)
    for variable in model.variables:
        name, shape = variable.path.rpartition("/")[2], tuple(variable.shape)
        if name in ("kernel", "depthwise_kernel", "pointwise_kernel"):
            fan_in = shape[0] * shape[1] * (shape[3] / 4 if "transpose" in variable.path else shape[2])
            variable.assign(numbers.normal(0, (2 / fan_in) ** 0.5, shape))
        elif name in ("gamma", "moving_variance", "alpha"):
            variable.assign(numbers.uniform(0.5, 1.5, shape))
        elif name in ("bias", "beta", "moving_mean"):
            variable.assign(numbers.uniform(-0.3, 0.3, shape))
    return model


def paint(model: Any, pictures: NDArray[np.uint8], *, training: bool, unit: bool) -> NDArray[np.uint8]:
    """Each picture alone, by Keras. unit: values are in [0, 1], else in [-1, 1]."""
    painted = []
    channels = model.inputs[0].shape[-1]
    for picture in pictures[..., :channels].astype(np.float32):
        x = picture[None] / 255 if unit else picture[None] / 127.5 - 1
        y = np.asarray(model(x, training=training))[0]
        levels = np.clip(np.round(y * 255 if unit else (y + 1) * 127.5), 0, 255).astype(np.uint8)
        painted.append(np.broadcast_to(levels, (*levels.shape[:2], 3)))
    return np.stack(painted)


def save(model: Any, folder: Path, name: str) -> None:
    model.save(folder / f"{name}.keras")
    model.save(folder / f"{name}.h5")
    model.save_weights(folder / f"{name}.weights.h5")
    model.export(folder / f"{name}_export", verbose=False)
    save_as_keras_2(model, folder / f"{name}_keras2.h5")
    save_as_keras_2(model, folder / f"{name}_keras2_weights.h5", config=False)


def save_as_keras_2(model: Any, path: Path, *, config: bool = True) -> None:
    """The layout that Keras 2.4 to 2.15 write with `save` and `save_weights`: checked against tf_keras 2.21."""
    with h5py.File(path, "w") as file:
        if config:
            described = keras2_model(keras.saving.serialize_keras_object(model), outermost=True)
            file.attrs["model_config"] = json.dumps(described).encode()
            file.attrs["keras_version"] = b"2.15.0"
        group = file.create_group("model_weights") if config else file
        group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            own = group.create_group(layer.name)
            # What is trained comes first, in a model inside the model too.
            stored = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = ["/".join(variable.path.split("/")[-2:]) + ":0" for variable in stored]
            own.attrs["weight_names"] = [name.encode() for name in names]
            for name, variable in zip(names, stored, strict=True):
                own.create_dataset(name, data=np.asarray(variable))


def keras2_model(model: dict[str, Any], *, outermost: bool = False) -> dict[str, Any]:
    config = dict(model["config"])
    inside = {part["config"]["name"] for part in config["layers"] if part["class_name"] in ("Sequential", "Functional")}
    config["layers"] = [keras2_layer(part, inside) for part in config["layers"]]
    for key in ("input_layers", "output_layers"):
        if key in config:
            config[key] = [config[key]]
    config.pop("dtype", None)
    result = {"class_name": model["class_name"], "config": config}
    return {**result, "keras_version": "2.15.0"} if outermost else result


def keras2_layer(part: dict[str, Any], inside: set[str]) -> dict[str, Any]:
    if part["class_name"] in ("Sequential", "Functional"):
        result = keras2_model(part)
    else:
        renamed = {"batch_shape": "batch_input_shape"}
        if part["class_name"] == "LeakyReLU":
            renamed["negative_slope"] = "alpha"
        config = {renamed.get(key, key): value for key, value in part["config"].items()}
        if part["class_name"] != "InputLayer":
            config["dtype"] = "float32"
        result = {"class_name": part["class_name"], "config": config}
    if "inbound_nodes" in part:
        result["name"] = part["config"]["name"]
        result["inbound_nodes"] = [keras2_node(node, inside) for node in part["inbound_nodes"]]
    return result


def keras2_node(node: dict[str, Any], inside: set[str]) -> list[Any]:
    tensors = node["args"][0] if isinstance(node["args"][0], list) else node["args"]
    call = {key: value for key, value in node["kwargs"].items() if value is not None}
    found = []
    for tensor in tensors:
        name, index, place = tensor["config"]["keras_history"]
        found.append([name, max(index, int(name in inside)), place, call])
    return found


def zoo() -> dict[str, Callable[[Any], Any]]:
    """One layer each, with the settings that make a difference; 33 x 33 pixels of 6 channels."""
    shared = layers.Conv2D(6, 3, padding="same", activation="tanh")
    twice = keras.Sequential([layers.Conv2D(6, 3, padding="same", use_bias=False), layers.BatchNormalization()])
    one, two = keras.Input((33, 33, 6)), keras.Input((33, 33, 6))
    joining = keras.Model([one, two], layers.Add()([layers.Conv2D(6, 1)(one), layers.Activation("relu")(two)]))

    def after(layer: Any, *more: Any) -> Callable[[Any], Any]:
        def build(x: Any) -> Any:
            for part in (layer, *more):
                x = part(x)
            return x

        return build

    found: dict[str, Callable[[Any], Any]] = {}
    for kernel, stride, padding in ((2, 1, "same"), (3, 2, "same"), (4, 2, "same"), (5, 2, "valid"), (2, 2, "valid")):
        found[f"conv {kernel} {stride} {padding}"] = after(layers.Conv2D(5, kernel, strides=stride, padding=padding))
        found[f"conv_transpose {kernel} {stride} {padding}"] = after(
            layers.Conv2DTranspose(5, kernel, strides=stride, padding=padding)
        )
    for kernel, stride, padding in ((1, 2, "same"), (2, 3, "same"), (1, 3, "valid"), (5, 3, "same"), (3, 1, "same")):
        found[f"conv_transpose {kernel} {stride} {padding}"] = after(
            layers.Conv2DTranspose(5, kernel, strides=stride, padding=padding)
        )
    return found | {
        "conv oblong": after(layers.Conv2D(5, (2, 5), strides=(2, 1), padding="same")),
        "conv dilated": after(layers.Conv2D(5, 3, dilation_rate=3, padding="same")),
        "conv in groups": after(layers.Conv2D(9, 3, groups=3, padding="same")),
        "conv, norm": after(layers.Conv2D(5, 4, padding="same"), layers.BatchNormalization()),
        "transposed, norm": after(layers.Conv2DTranspose(5, 3, **WINDOW), layers.BatchNormalization(scale=False)),
        "conv, relu, norm": after(layers.Conv2D(5, 3, activation="relu"), layers.BatchNormalization(center=False)),
        "conv, norm, norm": after(layers.Conv2D(5, 3), layers.BatchNormalization(), layers.BatchNormalization()),
        "conv used twice": lambda x: layers.Add()([layers.BatchNormalization()(y := layers.Conv2D(5, 3)(x)), y]),
        "depthwise": after(layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, padding="same")),
        "separable": after(layers.SeparableConv2D(5, 4, depth_multiplier=2, padding="same", activation="elu")),
        "layer norm": after(layers.LayerNormalization()),
        "group norm": after(layers.GroupNormalization(groups=3)),
        "instance norm": after(layers.GroupNormalization(groups=-1)),
        "prelu a channel": after(layers.PReLU(shared_axes=[1, 2])),
        "prelu a value": after(layers.PReLU()),
        "relu with a top": after(layers.ReLU(max_value=0.5, negative_slope=0.1)),
        "leaky relu of its own": after(layers.LeakyReLU()),
        "leaky relu by name": after(layers.Activation("leaky_relu")),
        "elu": after(layers.ELU(alpha=0.7)),
        **{name: after(layers.Activation(name)) for name in ("selu", "softplus", "softsign", "swish", "gelu", "relu6")},
        "max pooling same": after(layers.MaxPooling2D(3, strides=2, padding="same")),
        "max pooling even": after(layers.MaxPooling2D(2, padding="same")),
        "average pooling": after(layers.AveragePooling2D(2)),
        "upsampling nearest": after(layers.UpSampling2D((2, 3))),
        "upsampling bilinear": after(layers.UpSampling2D(2, interpolation="bilinear")),
        "resizing": after(layers.Resizing(48, 48)),
        "padding and cropping": after(layers.ZeroPadding2D(((1, 2), (3, 0))), layers.Cropping2D(((0, 5), (2, 1)))),
        "merges": lambda x: layers.Average()(
            [layers.Multiply()([x, layers.Conv2D(1, 1, activation="sigmoid")(x)]), x, layers.Add()([x, x, x])]
        ),
        "a layer used twice": lambda x: shared(layers.Rescaling(0.5, offset=0.1)(shared(x))),
        "a model used twice": lambda x: layers.Concatenate()([twice(twice(x)), x]),
        "a model of two inputs": lambda x: joining([x, layers.Activation("tanh")(x)]),
    }


def strangers(folder: Path) -> None:
    """Models that are no generators of pictures from pictures."""
    picture = keras.Input((256, 256, 3))
    second = keras.Input((256, 256, 3))
    scores = layers.Concatenate()([picture, second])
    for filters in (2, 4, 4, 4):
        scores = layers.LeakyReLU(negative_slope=0.2)(layers.Conv2D(filters, 4, **WINDOW)(scores))
    patches = layers.Conv2D(1, 4, padding="same", activation="sigmoid")(scores)
    keras.Model([picture, second], patches).save(folder / "conditional discriminator.keras")
    judge = keras.Sequential([keras.Input((256, 256, 3)), *(layers.Conv2D(2, 4, **WINDOW) for _ in range(4))])
    judge.add(layers.Conv2D(1, 4, padding="same", activation="sigmoid"))
    judge.save(folder / "discriminator.keras")
    once = keras.Sequential([keras.Input((256, 256, 3)), layers.Conv2D(1, 4, strides=2, padding="same")])
    once.save(folder / "shallow discriminator.keras")
    classifier = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(10)])
    classifier.save(folder / "classifier.keras")
    latent = keras.Sequential([keras.Input((100,)), layers.Dense(4 * 4 * 2), layers.Reshape((4, 4, 2))])
    latent.add(layers.Conv2DTranspose(3, 4, activation="tanh", **WINDOW))
    latent.save(folder / "latent.keras")
    generator = keras.Sequential([keras.Input((256, 256, 3)), layers.Conv2D(3, 3, padding="same", activation="tanh")])
    generated = generator(picture)
    keras.Model(picture, [judge(generated), generated]).save(folder / "composite.keras")
    code = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(3, 3), layers.Lambda(lambda x: x * 2)])
    code.save(folder / "lambda.keras")
    code.save(folder / "lambda.h5")
    softmax = keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(3, 3, activation="softmax")])
    softmax.save(folder / "segmentation.keras")


def main(folder: Path) -> None:
    pictures = np.load(folder / "pictures.npy")
    painted: dict[str, NDArray[np.uint8]] = {}
    model = randomise(tutorial())
    save(model, folder, "tutorial")
    tf.saved_model.save(model, str(folder / "tutorial_tracked"))
    tf.train.Checkpoint(generator=model, step=tf.Variable(1)).save(str(folder / "tutorial_checkpoints" / "ckpt"))
    painted["tutorial running"] = paint(model, pictures, training=False, unit=False)
    twin = tutorial(rate=0.0)  # normalises as in training, drops nothing
    twin.set_weights(model.get_weights())
    painted["tutorial instance"] = paint(twin, pictures, training=True, unit=False)

    model = randomise(brownlee())
    save(model, folder, "brownlee")
    for mode, training in (("instance", True), ("running", None)):
        twin = brownlee(rate=0.0, training=training)
        twin.set_weights(model.get_weights())
        # Keras 3 lets the outer call win, in `predict` too; Keras 2 the call in the graph, which is what was trained.
        painted[f"brownlee {mode}"] = paint(twin, pictures, training=training or False, unit=False)

    for name, transposed in (("pooling", False), ("pooling_transposed", True)):
        model = randomise(pooling(transposed=transposed))
        save(model, folder, name)
        painted[f"{name} none"] = paint(model, pictures, training=False, unit=True)
    np.savez(folder / "painted.npz", **painted)

    fed = np.random.default_rng(SEED).normal(size=(2, 33, 33, 6)).astype(np.float32)
    given: dict[str, NDArray[np.float32]] = {"fed": fed}
    (folder / "zoo").mkdir()
    for name, build in zoo().items():
        x = keras.Input((33, 33, 6))
        y = build(x)
        y = layers.UpSampling2D(2)(y) if 2 * y.shape[1] < 33 else y
        model = randomise(keras.Model(x, layers.Conv2D(3, 1)(y)))
        model.save(folder / "zoo" / f"{name}.keras")
        given[name] = np.asarray(model(fed, training=False))
    np.savez(folder / "zoo.npz", **given)
    (folder / "strangers").mkdir()
    strangers(folder / "strangers")
    tutorial(side=None).save(folder / "any_size.keras")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
