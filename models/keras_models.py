"""The Keras network: channels-last, trained and exported by Keras itself."""

from pathlib import Path

import keras
import tensorflow as tf
from digits import LAYOUTS, SEED, Part
from keras import layers
from strip import strip

EPOCHS = 40
BATCH = 32


def cnn(part: Part, folder: Path) -> None:
    """Train the channels-last CNN and export it with Keras' own ``export``."""
    keras.utils.set_random_seed(SEED)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    model = _network()
    steps = EPOCHS * -(-len(part.labels) // BATCH)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    images = part.laid_out("images_nhwc")
    model.fit(images, part.labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    path = folder / "digits_keras.onnx"
    model.export(path, format="onnx", opset_version=17, verbose=False)
    strip(path)


def _network() -> keras.Model:
    """Build a plain CNN with BatchNormalization; input [n, 8, 8, 1]."""
    x = pixels = keras.Input(LAYOUTS["images_nhwc"], name="input")
    for width, stride in ((16, 1), (32, 1), (32, 2), (64, 1)):
        x = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    x = layers.Dropout(0.3)(x)
    return keras.Model(pixels, layers.Dense(10, name="scores")(x))
