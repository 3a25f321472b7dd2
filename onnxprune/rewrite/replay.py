"""What a plan makes of a model: the same cut again, and a file held against it."""

import onnx

from onnxprune.analysis import Analysis
from onnxprune.errors import VerificationError
from onnxprune.model.diff import field_diff
from onnxprune.model.functions import expand
from onnxprune.model.load import Model
from onnxprune.plan import Plan
from onnxprune.report.values import VerifyReport
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.keeps import Keeps
from onnxprune.rewrite.prove import Proven
from onnxprune.rewrite.repairs import UnrepresentableError

__all__ = ["compare", "recut"]


def recut(found: Analysis, plan: Plan) -> Proven:
    """Cut as a plan says, and prove it.

    Parameters
    ----------
    found : Analysis
        Without the branches that are gone in the plan.
    plan : Plan

    Returns
    -------
    Proven

    Raises
    ------
    InputError
        If the plan names what the model does not have.
    VerificationError
        If the cut cannot be written or does not equal its reference.
    """
    model, keeps, error = _cut(found, plan)
    if keeps and (objection := found.verifier.objection(error, keeps)):
        msg = f"the cut {objection}; nothing is written"
        raise VerificationError(msg)
    return Proven(model, keeps, plan.removed_channels(found.coupling.groups), error, {})


def compare(found: Analysis, plan: Plan, given: Model) -> VerifyReport:
    """Hold a file against what a plan makes of a model.

    Parameters
    ----------
    found : Analysis
        Without the branches that are gone in the plan.
    plan : Plan
    given : Model
        What was written.

    Returns
    -------
    VerifyReport

    Raises
    ------
    InputError, VerificationError
        If the plan cannot be carried out at all.
    """
    model, keeps, error = _cut(found, plan)
    flat = expand(given.proto).model
    bases = (found.model.path, given.path)
    differences = field_diff(model, plan.without_refit(flat, model), bases=bases)
    right = not keeps or not found.verifier.objection(error, keeps)
    return VerifyReport(
        str(found.model.path),
        str(given.path),
        error,
        len(found.probes),
        not field_diff(model, flat, bases=bases),
        differences,
        ok=right and not differences,
    )


def _cut(found: Analysis, plan: Plan) -> tuple[onnx.ModelProto, Keeps, float]:
    """Cut as a plan says; also return what stays, and how far that is from its reference."""
    keeps = plan.keeps(found.coupling.collected.sizes)
    try:
        model = cut(found.view, found.coupling, found.traces, keeps)
    except UnrepresentableError as error:
        msg = f"the plan cannot be cut: {error}"
        raise VerificationError(msg) from error
    return model, keeps, found.verifier.error(model, keeps) if keeps else 0.0
