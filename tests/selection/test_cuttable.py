"""Which groups patterns keep whole."""

import pytest

from onnxprune.selection.cuttable import excluded
from tests import nets


class TestExcluded:
    @pytest.fixture
    def found(self, tmp_path):
        return nets.look(nets.concat(), tmp_path)

    @pytest.mark.parametrize(
        ("patterns", "names"),
        [
            ([], set()),
            (["Conv_0"], {"Conv_0"}),
            (["Conv_*"], {"Conv_0", "Conv_2", "Conv_5"}),
            (["w2"], {"Conv_2"}),
            (["v1"], {"Conv_0"}),
            (["v4"], {"Conv_0", "Conv_2"}),
            (["Gemm_8"], {"Conv_5"}),
            (["op:Concat"], {"Conv_0", "Conv_2"}),
            (["op:Gemm", "Conv_0"], {"Conv_0", "Conv_5"}),
            (["op:*"], {"Conv_0", "Conv_2", "Conv_5"}),
            (["Conv_[02]"], {"Conv_0", "Conv_2"}),
            (["conv_0"], set()),
            (["Concat"], set()),
            (["op:LSTM", "nothing*"], set()),
        ],
        ids=str,
    )
    def test_patterns(self, found, patterns, names):
        made = excluded(found.coupling.groups, patterns, found.view)
        assert made == names

    def test_vectors_are_matched_by_their_name_in_the_file(self, tmp_path):
        net = nets.Net()
        bias = net.weight(6)
        a = net.op("Gemm", "x", net.weight(8, 6), bias)
        b = net.op("Gemm", a, net.weight(6, 6), bias)
        out = net.op("Gemm", b, net.weight(6, 2))
        found = nets.look(net.model({"x": ("N", 8)}, out), tmp_path)
        made = excluded(found.coupling.groups, [bias], found.view)
        assert made == {"Gemm_0", "Gemm_1"}
