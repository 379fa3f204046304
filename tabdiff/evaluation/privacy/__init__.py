"""What synthetic rows tell about the rows that trained their model: membership, disclosure, copies."""

from tabdiff.evaluation.privacy.audit import audit
from tabdiff.evaluation.privacy.controls import smote_rows
from tabdiff.evaluation.privacy.disclosure import attribute_inference, linkability, singling_out
from tabdiff.evaluation.privacy.epsilon import epsilon_lower_bound
from tabdiff.evaluation.privacy.membership import Attack, membership_attacks, tpr_at_fpr

__all__ = [
    "Attack",
    "attribute_inference",
    "audit",
    "epsilon_lower_bound",
    "linkability",
    "membership_attacks",
    "singling_out",
    "smote_rows",
    "tpr_at_fpr",
]
