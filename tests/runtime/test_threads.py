"""Threads: taken where they help, and never seen in what is computed."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from onnxprune.runtime import threads
from onnxprune.runtime.session import Session
from tests.nets import MODELS


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda p: p.stem)
def test_as_many_threads_compute_the_same(path):
    one, several = (Session(path, threads=count) for count in (1, 3))
    feeds = {
        i.name: np.random.default_rng(0)
        .standard_normal([n if isinstance(n, int) else 33 for n in i.shape])
        .astype(np.float32)
        for i in one.inputs
    }
    for name, values in one.run(feeds).items():
        np.testing.assert_array_equal(values, several.run(feeds)[name])


def test_a_session_takes_no_more_than_it_may(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.allowed() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads.allowed() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads.allowed() == 6
    monkeypatch.setattr(threads, "_limit", 8)
    threads.limit(3)
    assert threads.allowed() == 3
    threads.limit(0)
    assert threads.allowed() == 1


def blas():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_matrix_products_take_one_thread_inside_only():
    with threadpool_limits(2, user_api="blas"):
        assert threads.one_blas_thread(blas)() == {1}
        assert blas() == {2}
