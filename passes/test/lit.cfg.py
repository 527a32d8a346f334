"""lit set-up of the pass tests: ``lit -v passes/test`` in the environment torchport is installed in."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import forked

forked.preload()
config.name = "torchport-passes"
config.test_format = forked.ForkedTest()
config.suffixes = [".mlir", ".ttir"]
config.test_source_root = os.path.dirname(os.path.abspath(__file__))
config.test_exec_root = os.path.join(config.test_source_root, "Output")
os.makedirs(config.test_exec_root, exist_ok=True)  # lit keeps the tests' times there
# Words, not paths of scripts: the tests run whatever Python runs lit, installed or from a checkout.
config.substitutions.append((r"(?<![\w./-])torchport(?=\s)", f"{sys.executable} -m torchport.cli"))
config.substitutions.append((r"(?<![\w./-])filecheck(?=\s)", f"{sys.executable} -m filecheck"))
for variable in ("PYTHONPATH", "HOME", "TORCHPORT_DEBUG", "LD_LIBRARY_PATH"):
    if variable in os.environ:
        config.environment[variable] = os.environ[variable]
