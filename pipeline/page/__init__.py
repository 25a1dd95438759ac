"""The parts of the report: each reads artefacts and gives what a section of the page shows."""
