"""The audit: finds what is wrong with the pictures before a study uses them.

- `examine`: a full audit, a quick one that decodes nothing, and the last audit of the same pictures
- `measure`: decodes every picture once and measures it
- `copies`, `patients`, `shift`, `shortcuts`: derive findings from the measurements
- `findings`: the result of an audit, and its JSON
- `report`, `page`: an audit as text and as HTML
"""

from pneumo.data.audit.examine import audit_source, last_audit, quick_findings
from pneumo.data.audit.findings import Audit, Finding, Shortcut, leaks

__all__ = ["Audit", "Finding", "Shortcut", "audit_source", "last_audit", "leaks", "quick_findings"]
