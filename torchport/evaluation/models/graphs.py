"""A graph network in plain torch: messages gathered along edges and added up at nodes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torchport.evaluation.models.entry import Entry, Inputs, Size, register


class Layer(nn.Module):
    """Attention over a node's neighbours (Velickovic et al., GAT, one head), softmax by scatter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.score = nn.Linear(2 * width, 1)
        self.own = nn.Linear(width, width)

    def forward(self, x: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        values = self.value(x)
        sent = values[source]
        score = F.leaky_relu(self.score(torch.cat([sent, values[target]], -1)), 0.2)[:, 0]
        most = score.new_full((x.shape[0],), -torch.inf).scatter_reduce(0, target, score, "amax")
        weight = (score - most[target]).exp()
        total = torch.zeros_like(most).index_add(0, target, weight)
        gathered = torch.zeros_like(x).index_add(0, target, sent * (weight / total[target])[:, None])
        return F.elu(gathered + self.own(x))


class GraphNet(nn.Module):
    """Two layers of attention over neighbours; each node of the graph, a batch of one, gets a class."""

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, width)
        self.layers = nn.ModuleList([Layer(width) for _ in range(2)])
        self.head = nn.Linear(width, classes)

    def forward(self, nodes: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        x = F.relu(self.first(nodes))
        for layer in self.layers:
            x = layer(x, source, target)
        return {"logits": self.head(x)[None]}


def gnn(size: Size) -> tuple[nn.Module, Inputs]:
    nodes, edges, width = (37, 160, 32) if size == "small" else (2000, 16000, 128)
    target = torch.cat([torch.arange(nodes), torch.randint(0, nodes, (edges,))])  # each node is its own neighbour
    return GraphNet(16, width, 11), {
        "nodes": torch.randn(nodes, 16),
        "source": torch.cat([torch.arange(nodes), torch.randint(0, nodes, (edges,))]),
        "target": target,
    }


register(Entry("gnn", gnn, ("logits",), area="graphs", kind="classes", benched=False))
