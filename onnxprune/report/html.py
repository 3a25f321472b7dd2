"""The report of a pruned model as one page that needs no other file, and no network."""

from onnxprune.report import told
from onnxprune.report.values import Report

__all__ = ["to_html"]


def to_html(report: Report) -> str:
    """Render a report.

    Parameters
    ----------
    report : Report

    Returns
    -------
    str
        HTML. Names come from the model's file, and are escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("onnxprune.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("report.html").render(report=report, told=told)
