"""Per-sample gradients in factored form, from one forward pass and one input-gradient sweep."""

from presence_ds.capture.attributes import attributes_as
from presence_ds.capture.attribution import check_attribution, stray_parameters
from presence_ds.capture.capture import Capture, full_shape
from presence_ds.capture.documents import Documents, Places, sum_by_id
from presence_ds.capture.instrument import Instrumentation
from presence_ds.capture.registry import register, register_where
from presence_ds.capture.rule import Rule
from presence_ds.capture.terms import (
    DenseTerm,
    LookupTerm,
    OuterTerm,
    Term,
    bmm_wide,
    sum_by_id_apart,
    wide,
    widen,
)

__all__ = [
    "Capture",
    "DenseTerm",
    "Documents",
    "Instrumentation",
    "LookupTerm",
    "OuterTerm",
    "Places",
    "Rule",
    "Term",
    "attributes_as",
    "bmm_wide",
    "check_attribution",
    "full_shape",
    "register",
    "register_where",
    "stray_parameters",
    "sum_by_id",
    "sum_by_id_apart",
    "wide",
    "widen",
]
