"""Everything is declared in pyproject.toml; here the build only records the commit of the code."""

import os
import runpy
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).resolve().parent


PROVENANCE = runpy.run_path(str(ROOT / "pipeline" / "storage" / "provenance.py"))


def record(folder):
    """Write the commit beside the code; SOILWEAVE_COMMIT names it where there is no checkout."""
    commit = os.environ.get("SOILWEAVE_COMMIT") or PROVENANCE["code_commit"](ROOT)
    if commit:
        target = Path(folder) / "pipeline" / PROVENANCE["COMMIT_FILE"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{commit}\n")


class BuildWithCommit(build_py):
    """Wheels hold the commit; an editable install reads the checkout itself."""

    def run(self):
        """Build, then add the record to what was built."""
        super().run()
        if not self.editable_mode:
            record(self.build_lib)


class SdistWithCommit(sdist):
    """Source archives hold the commit, so that a wheel built from one has it too."""

    def make_release_tree(self, base_dir, files):
        """Collect the files, then add the record to them."""
        super().make_release_tree(base_dir, files)
        record(base_dir)


setup(cmdclass={"build_py": BuildWithCommit, "sdist": SdistWithCommit})
