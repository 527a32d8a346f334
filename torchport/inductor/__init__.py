"""The only package that touches torch._inductor: compiling one FX graph with Inductor, torchport's way.

Everything torchport changes in Inductor (config, choices, code generation for the target's device) is in force while a
graph of torchport's is compiled, in the thread that compiles it, and nowhere else.
"""

from torchport.inductor.graph import Request, compile_graph
from torchport.inductor.options import mode_options, validate_options
from torchport.inductor.scope import without_graph_caches

__all__ = ["Request", "compile_graph", "mode_options", "validate_options", "without_graph_caches"]
