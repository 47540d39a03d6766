"""DPC-RNN: dense predictive coding, the stream that learns what ordinary motion does next.

Paper: Han, Xie, Zisserman, "Video Representation Learning by Dense Predictive Coding", ICCVW 2019,
https://arxiv.org/abs/1909.04656. Written anew; the official code's checkpoints load: https://github.com/TengdaHan/DPC

A video is cut into N blocks of L frames. A 2D3D ResNet f turns each block into a grid of feature vectors, a
convolutional GRU g sums up the blocks seen so far, and a small head phi guesses the next grid; the guess is fed back:

    z_t = f(x_t)      c_t = g(relu(z_1), ..., relu(z_t))      p_{t+1} = phi(c_t)      c_{t+1} = g(relu(p_{t+1}), c_t)

(Sec. 3.1, Eq. 1 to 3.) One predicted vector per place: what breaks the habits of a scene, breaks the prediction there.

Notebook: 11_predict_future
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zsad_lib.errors import ZsadError
from zsad_lib.models.checkpoints import load_strict, official_tensors
from zsad_lib.models.conv_gru import ConvGRU
from zsad_lib.models.names import choose

DEPTHS = {"resnet10": (1, 1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}  # residual blocks of layer1..4
NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # how their names end in a state dict
MakeNorm = Callable[[int], nn.Module]  # channels -> norm layer


class DPCOutput(NamedTuple):
    """What one forward pass gives; P steps, D channels, grid h x w."""

    predicted: Tensor  # [B, P, D, h, w] guesses of the last P blocks
    actual: Tensor  # [B, P, D, h, w] their features, before ReLU
    context: Tensor  # [B, D, h, w] GRU state after the observed blocks


class BlockNorm(nn.BatchNorm3d):
    """BatchNorm whose training pass leaves the stored statistics alone; only `estimate_norm_stats` writes them.

    Official DPC normalises with the statistics of the batch at all times, so a window's score would depend on its
    neighbours in the batch. With `fixed`, evaluation uses stored statistics instead.
    """

    def __init__(self, channels: int, fixed: bool):
        super().__init__(channels, momentum=None, track_running_stats=fixed)  # momentum None: cumulative average
        self.collecting = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalises x [B, C, T, H, W] per channel."""
        if self.collecting:
            return super().forward(x)
        stats = (None, None) if self.on_batch else (self.running_mean, self.running_var)
        return F.batch_norm(x, *stats, self.weight, self.bias, training=self.on_batch, eps=self.eps)

    @property
    def on_batch(self) -> bool:
        """Whether it normalises with the statistics of the batch."""
        return self.training or not self.track_running_stats


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a skip; `time` is the kernel's extent in time (1: a 2D block, 3: a 3D block)."""

    def __init__(self, inputs: int, outputs: int, stride: int, time: int, final_relu: bool, norm: MakeNorm):
        super().__init__()
        strides = (stride if time == 3 else 1, stride, stride)  # 3D blocks also step in time
        kernel, padding = (time, 3, 3), (time // 2, 1, 1)
        self.conv1 = nn.Conv3d(inputs, outputs, kernel, strides, padding, bias=False)
        self.bn1 = norm(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, kernel, 1, padding, bias=False)
        self.bn2 = norm(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv3d(inputs, outputs, 1, strides, bias=False), norm(outputs))
        self.final_relu = final_relu

    def forward(self, x: Tensor, mean_over_time: bool = False) -> Tensor:
        """x [B, C, T, H, W] -> [B, C', T', H', W'], or with `mean_over_time` [B, C', H', W']."""
        skip = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if mean_over_time and self.is_linear_at_the_end:
            return self._mean_of_conv2(x) + skip.mean(2)
        x = self.bn2(self.conv2(x)) + skip
        x = F.relu(x, inplace=True) if self.final_relu else x
        return x.mean(2) if mean_over_time else x

    @property
    def is_linear_at_the_end(self) -> bool:
        """Whether all after the first ReLU is linear, up to a constant: no second ReLU, and fixed norm statistics."""
        fixed = isinstance(self.bn2, BlockNorm) and not self.bn2.on_batch
        return fixed and not self.final_relu and self.conv2.kernel_size[0] == 3

    def _mean_of_conv2(self, x: Tensor) -> Tensor:
        """Mean over time of bn2(conv2(x)), [B, C, T, H, W] -> [B, C, H, W], from a third of its products.

        With kernel W_k, k = -1, 0, 1, and zeros outside:  sum_t sum_k W_k * x_{t+k}  =  sum_k W_k * sum_t x_{t+k}.
        """
        total = x.sum(2)
        shifted = torch.cat([total - x[:, :, -1], total, total - x[:, :, 0]], 1)  # [B, 3 C, H, W]
        weight = self.conv2.weight.transpose(1, 2).flatten(1, 2) / x.shape[2]  # [C, 3 C, 3, 3], k before C
        return self.bn2(F.conv2d(shifted, weight, padding=1)[:, :, None]).squeeze(2)


class ResNet2D3D(nn.Module):
    """ResNet over a block of frames: layers 1 and 2 see single frames, 3 and 4 see time; no ReLU after the last block.

    The features keep their sign, so that the dot product of prediction and truth can be negative (paper, Sec. 4.1).
    """

    def __init__(self, depths: Sequence[int], in_channels: int, width: int, strides: Sequence[int], norm: MakeNorm):
        super().__init__()
        stem, pool, *layer_strides = strides
        self.conv1 = nn.Conv3d(in_channels, width, (1, 7, 7), (1, stem, stem), (0, 3, 3), bias=False)
        self.bn1 = norm(width)
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, pool, pool), (0, 1, 1)) if pool > 1 else nn.Identity()
        inputs = width
        for number, (depth, stride) in enumerate(zip(depths, layer_strides, strict=True), start=1):
            outputs, time = width * (1, 2, 4, 4)[number - 1], 1 if number <= 2 else 3
            blocks = []
            for i in range(depth):
                relu = not (number == 4 and i == depth - 1)
                blocks.append(ResidualBlock(inputs, outputs, stride if i == 0 else 1, time, relu, norm))
                inputs = outputs
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.channels = inputs
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.to(memory_format=torch.channels_last_3d)  # the layout in which processors convolve fastest

    def stem(self, x: Tensor) -> Tensor:
        """Everything up to and including layer3: x [B, C, T, H, W] -> [B, 4 width, T', H', W']."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return self.layer3(self.layer2(self.layer1(x)))


class DPC(nn.Module):
    """Dense predictive coding with a recurrent context (DPC-RNN).

    Paper: Sec. 3.1, Eq. 1 to 3; the loss, Eq. 5, is `zsad_lib.losses.cpc_loss`.

    Args:
        backbone: `resnet10`, `resnet18` or `resnet34`.
        image_size: pixels, int or (height, width), of the intended input; being convolutional it takes others too.
        num_blocks: N, observed and predicted blocks together.
        block_len: L, frames per block.
        pred_steps: P, blocks predicted, 1 <= P < N.
        norm_stats: `batch`: BatchNorm on the statistics of the batch also in eval mode, as official DPC; `running`:
            fixed statistics in eval mode, see `estimate_norm_stats`.
        in_channels: channels of a frame.
        width: channels of layer1; the layers have width x (1, 2, 4, 4).
        strides: of the stem, the max-pool (1: none), and layer1..4; layers 3 and 4 stride in time as well.
        norm: `batch`, or `group` (groups of 8 channels), which needs no statistics at all.
        gru_kernel: odd size of the GRU's kernels.
        dropout: on the GRU's state after each step, training only.

    Raises:
        ZsadError: an argument has no such value.

    >>> model = DPC("resnet10", 32, num_blocks=4, pred_steps=1, norm_stats="batch", width=8)
    >>> model(torch.zeros(2, 4, 3, 5, 32, 32)).predicted.shape
    torch.Size([2, 1, 32, 1, 1])
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        image_size: int | tuple[int, int] = 112,
        num_blocks: int = 6,
        block_len: int = 5,
        pred_steps: int = 3,
        norm_stats: str = "running",
        *,
        in_channels: int = 3,
        width: int = 64,
        strides: Sequence[int] = (2, 2, 1, 2, 2, 2),
        norm: str = "batch",
        gru_kernel: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        fixed = choose("norm_stats", norm_stats, {"batch": False, "running": True})
        norms = {"batch": partial(BlockNorm, fixed=fixed), "group": lambda c: nn.GroupNorm(max(1, c // 8), c)}
        if not 1 <= pred_steps < num_blocks:
            raise ZsadError(f"DPC: pred_steps={pred_steps} must be at least 1 and below num_blocks={num_blocks}")
        if len(strides) != 6:
            raise ZsadError(f"DPC: strides={tuple(strides)} needs six numbers: stem, pool, layer1..layer4")
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        self.block_shape = (num_blocks, in_channels, block_len, *size)  # [N, C, L, H, W] of one window
        self.pred_steps = pred_steps
        self.grad_checkpointing = False
        depths, make_norm = choose("backbone", backbone, DEPTHS), choose("norm", norm, norms)
        self.backbone = ResNet2D3D(depths, in_channels, width, strides, make_norm)
        channels = self.backbone.channels
        self.agg = ConvGRU(channels, gru_kernel, dropout)
        self.network_pred = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1)
        )
        for name, parameter in (*self.agg.named_parameters(), *self.network_pred.named_parameters()):
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.orthogonal_(parameter)
        self.agg.to(memory_format=torch.channels_last)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of layer4 in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    @property
    def on_batch_statistics(self) -> bool:
        """Whether what a window gives depends on the others in its batch."""
        norm = self.backbone.bn1
        return isinstance(norm, BlockNorm) and (self.training or not norm.track_running_stats)

    def stem(self, blocks: Tensor) -> Tensor:
        """Layers below layer4, frozen in joint training: blocks [B, N, C, L, H, W] -> [B, N, C', L', h', w'].

        Raises:
            ZsadError: the shape does not fit, or eval mode lacks its norm statistics.
        """
        if blocks.ndim != 6 or blocks.shape[2] != self.block_shape[1]:
            raise ZsadError(f"DPC: blocks {list(blocks.shape)}, expected [B, N, {self.block_shape[1]}, L, H, W]")
        self._require_stats()
        return self.backbone.stem(blocks.flatten(0, 1)).unflatten(0, blocks.shape[:2])

    def encode_from_stem(self, x: Tensor) -> Tensor:
        """Layer4 and the mean over the time left: stem features [B, N, C', L', h', w'] -> z [B, N, D, h, w]."""
        self._require_stats()
        z, last = x.flatten(0, 1), self.backbone.layer4[-1]
        for block in self.backbone.layer4:
            if self.grad_checkpointing and torch.is_grad_enabled():
                z = checkpoint(block, z, block is last, use_reentrant=False)
            else:
                z = block(z, block is last)
        return z.unflatten(0, x.shape[:2])

    def encode(self, blocks: Tensor) -> Tensor:
        """blocks [B, N, C, L, H, W] -> z [B, N, D, h, w], before ReLU (Eq. 1)."""
        return self.encode_from_stem(self.stem(blocks))

    def read(self, features: Tensor) -> Tensor:
        """What the GRU makes of blocks whatever came before them: z [..., D, h, w], before ReLU -> [..., 3 D, h, w]."""
        return self.agg.read(F.relu(features))

    def aggregate(self, features: Tensor) -> Tensor:
        """GRU state after all the given blocks (Eq. 2): features [B, N, D, h, w], before ReLU -> [B, D, h, w]."""
        return self.sum_up(self.read(features))

    def sum_up(self, read: Tensor) -> Tensor:
        """`aggregate` of blocks that have been `read`: [B, N, 3 D, h, w] -> [B, D, h, w]."""
        hidden = None
        for block in read.unbind(1):
            hidden = self.agg(block, hidden)
        return hidden

    def predict(self, features: Tensor, steps: int | None = None, read: Tensor | None = None) -> DPCOutput:
        """Observes all but the last P blocks, predicts those (Eq. 3): features [B, N, D, h, w], before ReLU.

        Args:
            features: of N blocks.
            steps: P; None: `pred_steps`.
            read: of those observed [B, N - P, 3 D, h, w], where `read` was asked once for all windows.

        Raises:
            ZsadError: there is no block left to observe.
        """
        steps = steps or self.pred_steps
        if features.shape[1] <= steps:
            raise ZsadError(f"DPC: {features.shape[1]} blocks leave none to observe with pred_steps={steps}")
        context = hidden = self.aggregate(features[:, :-steps]) if read is None else self.sum_up(read)
        predicted = [self.network_pred(hidden)]
        for _ in range(steps - 1):
            hidden = self.agg(self.read(predicted[-1]), hidden)
            predicted.append(self.network_pred(hidden))
        return DPCOutput(torch.stack(predicted, 1), features[:, -steps:], context)

    def forward(self, blocks: Tensor) -> DPCOutput:
        """blocks [B, N, C, L, H, W], normalised pixels -> prediction and truth of the last P blocks, and context."""
        return self.predict(self.encode(blocks))

    def tuned_parameters(self) -> list[nn.Parameter]:
        """What joint training tunes: layer4, ConvGRU and prediction head (which the released code forgot)."""
        return [p for part in (self.backbone.layer4, self.agg, self.network_pred) for p in part.parameters()]

    def load_official(self, state_dict: Mapping) -> "DPC":
        """Loads a checkpoint of the official code, with or without the prefix `module.`; gives the model itself.

        It names the GRU cell twice; the values under `agg.cell_list` apply. It holds no norm statistics: with
        `norm_stats="running"` run `estimate_norm_stats` afterwards.

        Args:
            state_dict: the official file's content, or its `state_dict`.

        Raises:
            ZsadError: keys are missing, unexpected or of another shape (it names them), or this model has GroupNorm.
        """
        if any(isinstance(module, nn.GroupNorm) for module in self.modules()):
            raise ZsadError('DPC.load_official: official weights need norm="batch"')
        tensors, prefix = official_tensors(state_dict, ("module.",))
        for name in [name for name in tensors if name.startswith("agg.ConvGRUCell_00.")]:
            tensors.setdefault(name.replace("ConvGRUCell_00", "cell_list.0"), tensors.pop(name))
        load_strict(self, tensors, prefix, absent=NORM_STATISTICS)
        for module in self.modules():
            if isinstance(module, BlockNorm):
                module.reset_running_stats()
        return self

    def _require_stats(self) -> None:
        norm = self.backbone.bn1
        if isinstance(norm, BlockNorm) and not self.on_batch_statistics and norm.num_batches_tracked == 0:
            raise ZsadError(
                "DPC: no norm statistics yet: run estimate_norm_stats on normal training windows before scoring, "
                'or choose norm_stats="batch"'
            )


@torch.no_grad()
def estimate_norm_stats(model: DPC, batches: Iterable[Tensor]) -> None:
    """Measures the BatchNorm statistics in one pass over normal training windows and stores them in the model's state.

    Cumulative average in which each batch weighs the same; earlier statistics are forgotten, weights stay as they are.

    Args:
        model: any `DPC`; without BatchNorm on fixed statistics there is nothing to do.
        batches: blocks [B, N, C, L, H, W] as in training.

    Raises:
        ZsadError: there is no batch.
    """
    norms = [module for module in model.modules() if isinstance(module, BlockNorm) and module.track_running_stats]
    if not norms:
        return
    was_training = model.training
    for norm in norms:
        norm.reset_running_stats()
        norm.collecting = True
    try:
        model.train()
        for blocks in batches:
            model.encode(blocks)
    finally:
        model.train(was_training)
        for norm in norms:
            norm.collecting = False
    if norms[0].num_batches_tracked == 0:
        raise ZsadError("estimate_norm_stats: no batch of normal training windows was given")
