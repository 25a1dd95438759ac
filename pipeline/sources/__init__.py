"""One reader per provider's format, each an Intake driver."""
