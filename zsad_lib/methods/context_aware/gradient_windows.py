r"""The gradient windows of a batch, whose predictive stream runs with gradient: over processes, in chunks, faster, in
less memory.

Nearly all of a training step's time and memory goes here; the rest reads cached features. So this pass alone is split
over processes, and every process computes the losses of the whole batch from it, with the same random numbers: any
number of processes gives the same loss curve, dropout included.

    pass 1: out_i without graph;  u_i = dL / d out_i;  pass 2, chunk after chunk: dL / dw = sum_i u_i d out_i / dw

Paper: Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (GradCache),
2021, https://arxiv.org/abs/2101.06983, Sec. 3. `torch.utils.checkpoint` around a chunk does exactly this.

Notebook: 20_train_detector
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zsad_lib.config import Profile
from zsad_lib.errors import ZsadError
from zsad_lib.features.window_plan import OBSERVED
from zsad_lib.methods.context_aware.training_windows import Windows, gather_blocks
from zsad_lib.models.detector import Detector
from zsad_lib.models.dpc import DPC, DPCOutput


def select_share(indices: Tensor) -> Tensor:
    """The windows that this process computes: its piece of `indices` [B, 2], in the order of the ranks.

    All pieces are of one length, as gathering needs; where B is no multiple of it, the last window stands in.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return indices
    size = -(-len(indices) // dist.get_world_size())
    first = dist.get_rank() * size
    return indices[torch.arange(first, first + size).clamp_max(len(indices) - 1)]


def predict_with_gradient(
    detector: Detector, stem: list[Tensor], indices: Tensor, chunk: int = 0, steps: int | None = None
) -> DPCOutput:
    """Predictive stream with gradient on chosen windows; each process computes its share and gets all of them.

    Args:
        detector: whose predictive stream it is.
        stem: per clip [N, C', L', h', w'], on any device.
        indices: clip and first block of each window [B, 2], on the device that computes.
        steps: predicted blocks, after those that the stream observes; None: all of the window.
        chunk: windows per pass with graph; each chunk is computed a second time in the backward pass. 0: all at once.

    Raises:
        ZsadError: the norm layers use the statistics of the batch, which a piece of it does not have.
    """
    share = select_share(indices)
    chunks = share.split(chunk or len(share))
    if detector.dpc.on_batch_statistics and len(chunks[0]) < len(indices):
        raise ZsadError('DPC: norm_stats="batch" cannot be split into chunks or processes; choose "running"')

    count = OBSERVED + (steps or detector.dpc.pred_steps)

    def predict(windows: Tensor) -> DPCOutput:
        return detector.predict(gather_blocks(stem, windows, count).to(indices.device), steps)

    if len(chunks) == 1:
        out = predict(share)
    else:
        outputs = [checkpoint(predict, windows, use_reentrant=False) for windows in chunks]
        out = DPCOutput(*map(torch.cat, zip(*outputs)))
    return out if share is indices else DPCOutput(*(gather_with_grad(x)[: len(indices)] for x in out))


def fill_gradients(accelerator: Accelerator, loss: Tensor, trained: list[nn.Parameter]) -> None:
    """Backward pass of `loss`: in fp16 of the scaled loss and scaled back, of several processes the mean, in one
    message.

    Each process has the graph of its own share of the gradient windows alone; see `gather_with_grad`.
    """
    accelerator.backward(loss)
    if accelerator.num_processes > 1:
        gradients = [p.grad for p in trained if p.grad is not None]
        mean = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduction="mean")
        for gradient, values in zip(gradients, mean.split([gradient.numel() for gradient in gradients])):
            gradient.copy_(values.view_as(gradient))  # in its weight's memory layout, as the optimiser takes it to be
    accelerator.unscale_gradients()


def predict_to_scalar(accelerator: Accelerator, detector: Detector, windows: Windows, count: int) -> Tensor:
    """Predictive stream of the first windows, as a scalar: what `memory_plan` measures and `tune_speed` tries."""
    with accelerator.autocast():
        indices = windows.clip_and_block[:count]
        out = detector.predict(gather_blocks(windows.stem, indices).to(indices.device))
    return sum(x.float().sum() for x in out)


def tune_pass(accelerator: Accelerator, detector: Detector, windows: Windows, live: int, profile: Profile) -> None:
    """`tune_speed` for batches with `live` gradient windows: tried on as many as this process has in a pass; 0: nothing
    to tune."""
    if live:
        share = len(select_share(windows.clip_and_block[:live]))
        size = min(profile.chunk or share, share)
        tune_speed(detector.dpc, profile, lambda: predict_to_scalar(accelerator, detector, windows, size))


def tune_speed(dpc: DPC, profile: Profile, probe: Callable[[], Tensor]) -> None:
    """Applies the profile's settings `checkpointing` and `compile` to the tuned parts of the stream.

    Args:
        dpc: the predictive stream.
        profile: the settings.
        probe: forward pass to a scalar; tells, before training starts, whether what was compiled also runs.
    """
    dpc.set_grad_checkpointing(profile.checkpointing)
    if profile.compile == "no":
        return
    torch.compiler.set_stance("default")
    try:
        for module in (*dpc.backbone.layer4, dpc.agg, dpc.network_pred):  # blocks of one shape share what is compiled
            module.compile(backend=profile.compile)
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
