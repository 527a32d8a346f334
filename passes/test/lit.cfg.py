"""lit set-up of the pass tests: ``lit -v passes/test`` in the environment torchport is installed in."""

import os
import sys

import lit.formats

config.name = "torchport-passes"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".ttir"]
config.test_source_root = os.path.dirname(os.path.abspath(__file__))
config.test_exec_root = os.path.join(config.test_source_root, "Output")
# Words, not paths of scripts: the tests run whatever Python runs lit, installed or from a checkout.
config.substitutions.append((r"(?<![\w./-])torchport(?=\s)", f"{sys.executable} -m torchport.cli"))
config.substitutions.append((r"(?<![\w./-])filecheck(?=\s)", f"{sys.executable} -m filecheck"))
for variable in ("PYTHONPATH", "HOME", "TORCHPORT_DEBUG", "LD_LIBRARY_PATH"):
    if variable in os.environ:
        config.environment[variable] = os.environ[variable]
