"""Train every model of this folder and write it, with its data, beside this script."""

import argparse
import importlib
import os
from pathlib import Path

import digits

HERE = Path(__file__).parent

MAKERS = {
    "resnet": "torch_models",
    "mobile": "torch_models",
    "vit": "torch_models",
    "cnn": "keras_models",
    "mlp": "sklearn_models",
    "lstm": "torch_models",
    "gru": "torch_models",
}
"""Which module makes each network, in a function of the network's name."""

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
"""One thread and the plain kernels, so that every sum has one order."""


def main() -> None:
    """Write the data and the networks named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MAKERS)}")
    names = parser.parse_args().names or list(MAKERS)
    if unknown := [name for name in names if name not in MAKERS]:
        parser.error(f"unknown network {unknown[0]!r}; there are {', '.join(MAKERS)}")
    os.environ |= ENVIRONMENT
    data = digits.load()
    digits.write(data, HERE)
    for name in names:
        print(f"training {name}", flush=True)
        # Imported only now: the frameworks read the environment when they load.
        make = getattr(importlib.import_module(MAKERS[name]), name)
        make(data.train, HERE)


if __name__ == "__main__":
    main()
