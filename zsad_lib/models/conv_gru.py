"""The convolutional GRU that sums up what a predictive stream has seen.

Paper: Ballas, Yao, Pal, Courville, "Delving Deeper into Convolutional Networks for Learning Video Representations",
ICLR 2016, https://arxiv.org/abs/1511.06432, Sec. 3.1 (GRU-RCN); with the dropout of official DPC.

Notebook: 11_predict_future
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvGRUCell(nn.Module):
    """One step of a convolutional GRU; the reset gate acts on the state inside the candidate.

    u = sigma(W_u [x; h]),  r = sigma(W_r [x; h]),  h' = (1 - u) h + u tanh(W_o [x; r h])

    W [x; h] is W_x x + W_h h: `read` gives the first part of all three, once for all windows that a block x is in.
    """

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        conv = lambda: nn.Conv2d(2 * channels, channels, kernel, padding=kernel // 2)
        self.reset_gate, self.update_gate, self.out_gate = conv(), conv(), conv()

    def read(self, x: Tensor) -> Tensor:
        """x [B, D, h, w] -> what the gates u, r and o make of it alone [B, 3 D, h, w], biases included."""
        gates = (self.update_gate, self.reset_gate, self.out_gate)
        weight = torch.cat([gate.weight[:, : gate.out_channels] for gate in gates])
        return F.conv2d(x, weight, torch.cat([gate.bias for gate in gates]), padding=self.out_gate.padding)

    def forward(self, read: Tensor, hidden: Tensor | None = None) -> Tensor:
        """`read` of x [B, 3 D, h, w], hidden [B, D, h, w] (None: zeros) -> next hidden [B, D, h, w]."""
        update, reset, out = read.chunk(3, 1)
        if hidden is None:
            return torch.tanh(out) * torch.sigmoid(update)
        of_state = self._of_state(hidden, self.update_gate, self.reset_gate).chunk(2, 1)
        update, reset = torch.sigmoid(update + of_state[0]), torch.sigmoid(reset + of_state[1])
        candidate = torch.tanh(out + self._of_state(hidden * reset, self.out_gate))
        return hidden * (1 - update) + candidate * update

    def _of_state(self, hidden: Tensor, *gates: nn.Conv2d) -> Tensor:
        """W_h h of some gates: [B, D, h, w] -> [B, D * gates, h, w]."""
        weight = torch.cat([gate.weight[:, gate.out_channels :] for gate in gates])
        return F.conv2d(hidden, weight, padding=self.out_gate.padding)


class ConvGRU(nn.Module):
    """A one-layer convolutional GRU with dropout on the state after each step, as official DPC has it."""

    def __init__(self, channels: int, kernel: int, dropout: float):
        super().__init__()
        self.cell_list = nn.ModuleList([ConvGRUCell(channels, kernel)])  # the name is the official checkpoint's
        self.dropout = nn.Dropout(dropout)

    def read(self, x: Tensor) -> Tensor:
        """`ConvGRUCell.read` of any number of blocks: [..., D, h, w] -> [..., 3 D, h, w]."""
        return self.cell_list[0].read(x.flatten(0, -4)).unflatten(0, x.shape[:-3])

    def forward(self, read: Tensor, hidden: Tensor | None = None) -> Tensor:
        """`read` of the next block [B, 3 D, h, w], hidden [B, D, h, w] (None: zeros) -> next hidden [B, D, h, w]."""
        return self.dropout(self.cell_list[0](read, hidden))
