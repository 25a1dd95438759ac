"""`python -m pipeline VERB …`: the command line, where there is no script `soilweave`."""

from __future__ import annotations

from pipeline.cli import main

main()
