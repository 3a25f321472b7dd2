"""All rows of the law: at least one per registered operator, and one per variant that matters."""

from tests.coupling import (
    cases_attention,
    cases_control,
    cases_elementwise,
    cases_frozen,
    cases_fused,
    cases_indexing,
    cases_microsoft,
    cases_ml,
    cases_movement,
    cases_quantized,
    cases_recurrent,
    cases_reduction,
    cases_versions,
    cases_weighted,
)

CASES = [
    *cases_elementwise.CASES,
    *cases_weighted.CASES,
    *cases_movement.CASES,
    *cases_quantized.CASES,
    *cases_reduction.CASES,
    *cases_versions.CASES,
    *cases_recurrent.CASES,
    *cases_control.CASES,
    *cases_attention.CASES,
    *cases_fused.CASES,
    *cases_frozen.CASES,
    *cases_indexing.CASES,
    *cases_microsoft.CASES,
    *cases_ml.CASES,
]
