"""`soilweave VERB …` and `python -m pipeline VERB …`: starts the command line.

Jobs on a cluster run it in the Python of the cluster, which may lack what soilweave needs.
"""

from __future__ import annotations

import sys

OWN_PACKAGES = ("pipeline", "model", "catalogs")


def run() -> None:
    """Run the command line; a missing package of another project, or Ctrl-C, is one line."""
    try:
        from pipeline.cli import main

        main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", *OWN_PACKAGES) or "--debug" in sys.argv:
            raise
        hint = "install soilweave there (`pip install .` in its folder), or use its image"
        sys.exit(f"soilweave: {sys.executable} has no package {package}; {hint}")
    except KeyboardInterrupt:  # while modules are imported; the verbs handle it later
        sys.stderr.write("soilweave: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
