"""Look before computing: `doctor` examines entries and probes, `plan` estimates cost."""

from __future__ import annotations

from pipeline.doctor.checks import examine, record, replay

__all__ = ["examine"]
__all__ = ["record"]
__all__ = ["replay"]
