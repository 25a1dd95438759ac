"""Look before computing: `doctor` examines entries and probes, `plan` estimates cost."""

from pipeline.doctor.checks import examine

__all__ = ["examine"]

from pipeline.doctor.checks import record

__all__ = ["record"]

from pipeline.doctor.checks import replay

__all__ = ["replay"]
