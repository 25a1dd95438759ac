"""`python -m pipeline VERB …`: the command line, where there is no script `soilweave`."""

from pipeline.cli import main

main()
