r"""The live windows of a batch, whose predictive stream runs with gradient: over processes, in chunks, faster, in less memory.

Nearly all of a training step's time and memory goes here; the rest reads cached features. So this pass alone is split over processes,
and every process computes the losses of the whole batch from it, with the same random numbers: any number of processes gives the
same loss curve, dropout included.

    pass 1: out_i without graph;  u_i = dL / d out_i;  pass 2, chunk after chunk: dL / dw = sum_i u_i d out_i / dw

Paper: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache), 2021,
https://arxiv.org/abs/2101.06983, Sec. 3. `torch.utils.checkpoint` around a chunk does exactly this.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.methods.context_aware.training_windows import gather_blocks
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC, DPCOutput


def own_share(place: Tensor) -> Tensor:
    """The windows that this process computes: its piece of `place` [B, 2], in the order of the ranks.

    All pieces are of one length, as gathering needs; where B is no multiple of it, the last window stands in.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return place
    size = -(-len(place) // dist.get_world_size())
    first = dist.get_rank() * size
    return place[torch.arange(first, first + size).clamp_max(len(place) - 1)]


def live_pass(detector: Detector, stem: list[Tensor], place: Tensor, chunk: int = 0) -> DPCOutput:
    """Predictive stream with gradient on chosen windows; each process computes its share and gets all of them.

    Args:
        detector: whose predictive stream it is.
        stem: per clip [N, C', L', h', w'], on any device.
        place: clip and first block of each window [B, 2], on the device that computes.
        chunk: windows per pass with graph; each chunk is computed a second time in the backward pass. 0: all at once.

    Raises:
        ZsadError: the norm layers use the statistics of the batch, which a piece of it does not have.
    """
    share = own_share(place)
    pieces = share.split(chunk or len(share))
    if detector.dpc.on_batch_statistics and len(pieces[0]) < len(place):
        raise ZsadError('DPC: norm_stats="batch" cannot be split into chunks or processes; choose "running"')

    def predict(part: Tensor) -> DPCOutput:
        return detector.predict(gather_blocks(stem, part).to(place.device))

    if len(pieces) == 1:
        out = predict(share)
    else:
        parts = [checkpoint(predict, piece, use_reentrant=False) for piece in pieces]
        out = DPCOutput(*map(torch.cat, zip(*parts)))
    return out if share is place else DPCOutput(*(gather_with_grad(x)[: len(place)] for x in out))


def tune_speed(dpc: DPC, profile: Profile, probe: Callable[[], Tensor]) -> None:
    """Applies the profile's settings `checkpointing`, `channels_last` and `compile` to the tuned parts of the stream.

    Args:
        dpc: the predictive stream.
        profile: the settings.
        probe: forward pass to a scalar; tells, before training starts, whether what was compiled also runs.
    """
    dpc.set_grad_checkpointing(profile.checkpointing)
    if profile.channels_last:
        dpc.backbone.layer4.to(memory_format=torch.channels_last_3d)
    if profile.compile == "no":
        return
    torch.compiler.set_stance("default")
    try:
        for part in (*dpc.backbone.layer4, dpc.agg, dpc.network_pred):  # blocks of one shape share what is compiled
            part.compile(backend=profile.compile)
        torch.autograd.grad(probe(), dpc.tuned_parameters(), allow_unused=True)
    except Exception as error:  # no compiler, no Python headers, an unknown operator: training goes on without
        torch.compiler.set_stance("force_eager")
        reason = str(error).strip().partition("\n")[0]
        print(f"compile={profile.compile} is left out: {type(error).__name__}: {reason}", flush=True)


def gather_with_grad(x: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, with gradient: in-batch negatives across devices.

    Each process computes the loss of the whole batch; averaging gradients over processes, as DistributedDataParallel
    does, then gives the gradient of one process with that batch.

    Args:
        x: [B, ...], the same shape in every process.

    Returns:
        [W*B, ...] for W processes; ``x`` itself without a process group.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    return _Gather.apply(x.contiguous())


class _Gather(torch.autograd.Function):
    """`gather_with_grad`; torch's own form with gradient has changed its name from release to release."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)  # every process has a loss of its own on these rows
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
