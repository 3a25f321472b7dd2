"""One small export of every route: cut group by group, together and to a share of the MACs."""

import ast
from pathlib import Path

import pytest

from tests.zoo.check import AIM, Row, check, summary

ZOO = Path(__file__).parent / "zoo"
SMALL = ZOO / "small"
GROUPS = {
    "graph_attention.ts": 2,
    "j_depthwise.jax": 2,
    "k_gru.function": 3,
    "k_mlp.tf2onnx": 2,
    "k_separable.keras": 6,
    "k_separable.tflite": 6,
    "light_squeezenet.light": 25,
    "multi_branch.helper": 3,
    "p_lcnet.paddle": 3,
    "pointnet.ts": 3,
    "s_mlp_zipmap.sklearn": 2,
    "s_pipeline.sklearn": 3,
    "script_conv.onnxscript": 1,
    "vae.dynamo": 3,
}


def test_every_route_is_here():
    assert {path.stem for path in SMALL.glob("*.onnx")} == GROUPS.keys()


def test_no_network_of_timm_is_lost():
    """They need packages that the suite lacks, and some went unnoticed once."""
    tables = {
        node.target.id: node.value
        for node in ast.parse((ZOO / "timm_nets.py").read_text("utf-8")).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    count = sum(len(table.keys) for table in tables.values() if isinstance(table, ast.Dict))
    assert f"{count} networks of timm and torchvision" in (ZOO / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", GROUPS)
def test_export(name):
    *_, row = check(Row(*name.split("."), digest=""), SMALL / f"{name}.onnx", macs=0.7)
    assert not row.broken, row
    assert row.groups == GROUPS[name]
    assert row.macs >= AIM
    assert row.ratio <= 0.7
    assert row.note == ""


def test_the_table_says_what_is_wrong():
    good = Row("a", "ts", "", loads=True, untouched=True, groups=2, macs=1.0, ratio=0.7)
    silent = Row("b", "ts", "", loads=True, untouched=True)
    crash = Row("c", "jax", "", note="TRACEBACK KeyError: 1")
    wrong = Row("d", "jax", "", loads=True, untouched=True, groups=1, together=0.1, ratio=0.7)
    assert [row.broken for row in (good, silent, crash, wrong)] == [False, False, True, True]
    lines = list(summary([good, silent, crash, wrong]))
    assert lines[0] == "4 exports, 4 architectures, 2 routes"
    assert "MACs coverage >= 95%: 1 of 4 (25%)" in lines
    assert "tracebacks: 1 c.jax" in lines
    assert "wrong together or at --macs: 1 d.jax" in lines
    assert "nothing pruned, silently: 1 b.ts" in lines
