"""What a plan makes of a model: the same cut again, and a file held against it."""

from onnxprune.analysis import Analysis
from onnxprune.errors import VerificationError
from onnxprune.model.diff import field_diff
from onnxprune.model.functions import expand
from onnxprune.model.load import Model
from onnxprune.plan import Plan
from onnxprune.report.values import VerifyReport
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.prove import Proven
from onnxprune.rewrite.repairs import UnrepresentableError

__all__ = ["compare", "recut", "repeat"]


def repeat(found: Analysis, plan: Plan) -> Proven:
    """Cut as a plan says, and see how far that is from its reference.

    Parameters
    ----------
    found : Analysis
        Without the branches that are gone in the plan.
    plan : Plan

    Returns
    -------
    Proven
        Whatever its error is.

    Raises
    ------
    InputError
        If the plan names what the model does not have.
    VerificationError
        If the cut cannot be written.
    """
    keeps = plan.keeps(found.coupling.collected.sizes)
    try:
        model = cut(found.view, found.coupling, found.traces, keeps)
    except UnrepresentableError as refusal:
        msg = f"the plan cannot be cut: {refusal}"
        raise VerificationError(msg) from refusal
    error = found.verifier.error(model, keeps) if keeps else 0.0
    return Proven(model, keeps, plan.removed_channels(found.coupling.groups), error, {})


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
    made = repeat(found, plan)
    if made.keeps and (objection := found.verifier.objection(made.error, made.keeps)):
        msg = f"the cut {objection}; nothing is written"
        raise VerificationError(msg)
    return made


def compare(found: Analysis, plan: Plan, made: Proven, given: Model) -> VerifyReport:
    """Hold a file against what a plan makes of a model.

    Parameters
    ----------
    found : Analysis
        Without the branches that are gone in the plan.
    plan : Plan
    made : Proven
        What the plan makes of it.
    given : Model
        What was written.

    Returns
    -------
    VerifyReport
    """
    flat = expand(given.proto).model
    bases = (found.model.path, given.path)
    differences = field_diff(made.model, plan.without_refit(flat, made.model), bases=bases)
    right = not made.keeps or not found.verifier.objection(made.error, made.keeps)
    return VerifyReport(
        str(found.model.path),
        str(given.path),
        made.error,
        len(found.probes),
        not field_diff(made.model, flat, bases=bases),
        differences,
        ok=right and not differences,
    )
