"""The journey: artefact in, artefact out; each stage is one module."""
