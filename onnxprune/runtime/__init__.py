"""Everything that runs a model: the only package that imports onnxruntime."""
