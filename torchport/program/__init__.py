"""A compiled graph as data: steps that allocate, view, launch and call, and what runs them.

It needs neither Inductor nor Triton: ``torchport.inductor.observation.program`` makes programs, packages keep them.
"""

from torchport.program.executor import Executor
from torchport.program.grid import MAX_BOUND, MAX_GRID_Y, Grid, bound_launch
from torchport.program.linking import OtherMemory
from torchport.program.places import Place, follow
from torchport.program.steps import Call, Check, Launch, Let, Program, Require, Step

__all__ = [
    "MAX_BOUND",
    "MAX_GRID_Y",
    "Call",
    "Check",
    "Executor",
    "Grid",
    "Launch",
    "Let",
    "OtherMemory",
    "Place",
    "Program",
    "Require",
    "Step",
    "bound_launch",
    "follow",
]
