"""Networks with control flow as tf2onnx writes them: recurrent layers it does not fuse, tf.cond."""

import keras
import numpy as np
import tensorflow as tf
import tf2onnx

_SPEC = [tf.TensorSpec([None, 6, 8], tf.float32, name="x")]


def _recurrent(layer: keras.Layer) -> keras.Model:
    stack = [keras.Input((6, 8)), keras.layers.Dense(12, activation="relu"), layer]
    return keras.Sequential([*stack, keras.layers.Dense(4)])


def _weights() -> list[tf.Variable]:
    rng = np.random.default_rng(0)
    shapes = ((8, 16), (16, 16), (16, 4))
    return [tf.Variable(rng.standard_normal(s).astype(np.float32) / 3) for s in shapes]


def _while(w: list[tf.Variable]):
    def run(x: tf.Tensor) -> tf.Tensor:
        h = tf.nn.relu(tf.matmul(tf.reduce_mean(x, 1), w[0]))
        step = tf.while_loop(
            lambda i, _: i < 5, lambda i, h: (i + 1, tf.tanh(tf.matmul(h, w[1]))), (0, h)
        )
        return tf.matmul(step[1], w[2])

    return run


def _cond(w: list[tf.Variable]):
    def run(x: tf.Tensor) -> tf.Tensor:
        h = tf.nn.relu(tf.matmul(tf.reduce_mean(x, 1), w[0]))
        h = tf.cond(
            tf.reduce_sum(x) > 0, lambda: tf.tanh(tf.matmul(h, w[1])), lambda: tf.nn.sigmoid(h)
        )
        return tf.matmul(h, w[2])

    return run


def export(folder: str) -> None:
    """Write all networks of this file."""
    keras.utils.set_random_seed(0)
    made = {
        "rnn": _recurrent(keras.layers.SimpleRNN(16)),
        "lstm": _recurrent(keras.layers.LSTM(16, recurrent_activation="hard_sigmoid")),
        "gru": _recurrent(keras.layers.GRU(16, activation="relu", reset_after=False)),
        "while": _while(_weights()),
        "cond": _cond(_weights()),
    }
    for name, call in made.items():
        function = tf.function(lambda x, call=call: call(x), input_signature=_SPEC)
        path = f"{folder}/tf2onnx_{name}.onnx"
        tf2onnx.convert.from_function(function, _SPEC, opset=17, output_path=path)
