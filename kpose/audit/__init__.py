"""Faults of annotations, found before they are trained on."""

from kpose.audit.findings import KINDS, SERIOUS, AuditedSet, Finding
from kpose.audit.report import Audit, audit, print_audit, set_of_files, sets_of_config, write_audit

__all__ = [
    "KINDS",
    "SERIOUS",
    "Audit",
    "AuditedSet",
    "Finding",
    "audit",
    "print_audit",
    "set_of_files",
    "sets_of_config",
    "write_audit",
]
