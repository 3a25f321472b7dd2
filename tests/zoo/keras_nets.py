"""Keras networks by Keras' own exporter and three ways of tf2onnx.

Needs keras, tensorflow and tf2onnx.

    python tests/zoo/keras_nets.py [FOLDER] [--only NAME] [--route keras|tf2onnx|function|tflite]

``keras`` is ``model.export``; ``tf2onnx`` converts the Keras model, ``function`` a concrete
function as a saved model holds it, and ``tflite`` a TFLite file (batch 2, as TFLite fixes it).
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers
from saving import Exported, Job, normal, run
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

Build = Callable[[], keras.Model]
LABELS, OPSET = 10, 17
SIDE = (32, 32, 3)
ROUTES = ("keras", "tf2onnx", "function", "tflite")


def _norm(x, width, kernel=3, stride=1, activation="relu"):
    x = layers.Conv2D(width, kernel, stride, "same", use_bias=False)(x)
    return layers.Activation(activation)(layers.BatchNormalization()(x))


def _gelu(x):
    """By tanh: tf2onnx does not know the Erfc that the other spelling becomes."""
    return keras.ops.gelu(x, approximate=True)


def _top(x):
    return layers.Dense(LABELS)(layers.GlobalAveragePooling2D()(x))


def resnet() -> keras.Model:
    pixels = keras.Input(SIDE, name="x")
    x = _norm(pixels, 16)
    for width, stride in ((24, 2), (32, 2)):
        y = layers.BatchNormalization()(
            layers.Conv2D(width, 3, padding="same")(_norm(x, width, 3, stride))
        )
        x = layers.ReLU()(layers.Add()([y, layers.Conv2D(width, 1, stride)(x)]))
    return keras.Model(pixels, _top(x))


def separable() -> keras.Model:
    """MobileNet's depthwise and Xception's separable convolutions, squeeze and excitation."""
    pixels = keras.Input(SIDE, name="x")
    x = _norm(pixels, 16, 3, 2, "swish")
    x = layers.DepthwiseConv2D(3, padding="same")(_norm(x, 48, 1))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(48, 1, activation="sigmoid")(layers.Conv2D(12, 1, activation="relu")(gate))
    x = _norm(layers.Multiply()([x, gate]), 24, 1)
    x = layers.SeparableConv2D(32, 3, depth_multiplier=2, padding="same", activation="relu")(x)
    return keras.Model(pixels, _top(x))


def unet() -> keras.Model:
    pixels = keras.Input(SIDE, name="x")
    a = _norm(pixels, 12)
    b = _norm(layers.MaxPooling2D(2)(a), 24)
    c = _norm(layers.MaxPooling2D(2)(b), 32)
    x = layers.Concatenate()([layers.Conv2DTranspose(24, 2, 2)(c), b])
    x = layers.Concatenate()([layers.UpSampling2D()(_norm(x, 20)), a])
    return keras.Model(pixels, layers.Conv2D(3, 1)(_norm(x, 12)))


def dense_blocks() -> keras.Model:
    pixels = keras.Input(SIDE, name="x")
    x = layers.Conv2D(16, 3, 2, "same")(pixels)
    for _ in range(3):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Concatenate()([x, layers.Conv2D(8, 3, padding="same")(_norm(y, 24, 1))])
    return keras.Model(pixels, _top(layers.ReLU()(layers.BatchNormalization()(x))))


def vit() -> keras.Model:
    pixels = keras.Input(SIDE, name="x")
    x = layers.Reshape((16, 32))(layers.Conv2D(32, 8, 8)(pixels))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation=_gelu)(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(pixels, layers.Dense(LABELS)(layers.GlobalAveragePooling1D()(x)))


def lstm() -> keras.Model:
    rows = keras.Input((8, 12), name="x")
    x = layers.Bidirectional(layers.LSTM(20, return_sequences=True))(rows)
    x = layers.LSTM(16)(x)
    return keras.Model(rows, layers.Dense(LABELS, activation="softmax")(x))


def gru() -> keras.Model:
    rows = keras.Input((8, 12), name="x")
    x = layers.GRU(20, return_sequences=True)(layers.Conv1D(16, 3, padding="causal")(rows))
    return keras.Model(rows, layers.Dense(LABELS)(layers.GRU(16, reset_after=False)(x)))


def mlp() -> keras.Model:
    rows = keras.Input((20,), name="x")
    x = layers.Dense(48, activation="relu")(rows)
    x = layers.Dense(32, activation="tanh")(layers.Dropout(0.2)(layers.BatchNormalization()(x)))
    return keras.Model(rows, layers.Dense(LABELS, activation="softmax")(x))


def flat() -> keras.Model:
    """LeNet: the places flattened behind channels-last convolutions."""
    pixels = keras.Input((16, 16, 1), name="x")
    x = layers.AveragePooling2D(2)(layers.Conv2D(8, 5, activation="tanh")(pixels))
    x = layers.Flatten()(layers.Conv2D(16, 3, activation="relu")(x))
    return keras.Model(pixels, layers.Dense(LABELS)(layers.Dense(40, activation="relu")(x)))


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None, classes=LABELS)


def mobilenet_v3() -> keras.Model:
    return keras.applications.MobileNetV3Small(
        (64, 64, 3), weights=None, classes=LABELS, include_preprocessing=False
    )


NETS: dict[str, Build] = {
    "k_resnet": resnet,
    "k_separable": separable,
    "k_unet": unet,
    "k_dense_blocks": dense_blocks,
    "k_vit": vit,
    "k_lstm": lstm,
    "k_gru": gru,
    "k_mlp": mlp,
    "k_lenet": flat,
    "k_mobilenet_v2": mobilenet,
    "k_mobilenet_v3": mobilenet_v3,
}
ONE_ROUTE = {"k_mobilenet_v2": "tf2onnx", "k_mobilenet_v3": "keras"}


def _randomised(build: Build) -> keras.Model:
    """Noise on every number, statistics included: fresh biases are zeros and hide errors."""
    keras.utils.set_random_seed(0)
    model = build()
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "seed" not in variable.path:
            variable.assign(variable + np.abs(rng.standard_normal(variable.shape) * 0.1))
    return model


def _tflite(model: keras.Model, shape: tuple[int, ...]) -> onnx.ModelProto:
    spec = tf.TensorSpec(shape, tf.float32, name="x")
    fixed = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(fixed)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        path.write_bytes(converter.convert())
        return tf2onnx.convert.from_tflite(str(path), opset=OPSET)[0]


def export(name: str, build: Build, route: str) -> Exported:
    model = _randomised(build)
    shape = model.inputs[0].shape[1:]
    data = normal(name, 2, *shape)
    expected = [np.asarray(model(data, training=False))]
    spec = [tf.TensorSpec((None, *shape), tf.float32, name="x")]
    if route == "keras":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            model.export(path, format="onnx", opset_version=OPSET, verbose=False)
            proto = onnx.load(path)
    elif route == "tf2onnx":
        proto = tf2onnx.convert.from_keras(model, spec, opset=OPSET)[0]
    elif route == "function":
        function = tf.function(lambda x: model(x, training=False), input_signature=spec)
        proto = tf2onnx.convert.from_function(function, spec, opset=13)[0]
    else:
        proto = _tflite(model, data.shape)
    return Exported(proto, {proto.graph.input[0].name: data}, expected)


def every() -> Iterator[Job]:
    for name, build in NETS.items():
        for route in ROUTES:
            if ONE_ROUTE.get(name, route) == route:
                yield name, route, partial(export, name, build, route)


if __name__ == "__main__":
    run(every(), __doc__)
