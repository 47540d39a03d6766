"""The least time that some work can take on this device: that of its products and convolutions at the rate of one large
matrix product in the same precision.

    limit = operations of the work / (2 n^3 / seconds of one product of n x n matrices)

Everything else that a network does (norms, activations, memory traffic) is counted as free. So no code reaches the
limit, and the share of it that is reached says how much there is to gain.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.utils import flop_counter

from zsad_lib.features.backbones import device
from zsad_lib.maintenance.timing import timed

SIDE = {"cuda": 8192, "cpu": 2048}  # n: large enough to reach the device's best rate, small enough for a moment
REPEATS = 5  # of which the fastest counts
ATTENTION = {  # torch counts them on a GPU alone
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: flop_counter.sdpa_flop_count(
        q, k, v
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        flop_counter.sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def count_operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of the products, convolutions and attentions of one call, backward passes
    included.

    >>> count_operations(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    48
    """
    with flop_counter.FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        work()
    return counter.get_total_flops()


def product_rate(dtype: torch.dtype, side: int = 0) -> float:
    """Operations per second of one product of two `side` x `side` matrices, by default of `SIDE`.

    In float32 on a GPU, whether it may take TF32 is as torch has been told.
    """
    side = side or SIDE[device()]
    x, weight = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
    return 2 * side**3 / min([timed(lambda: F.linear(x, weight)) for _ in range(1 + REPEATS)][1:])


def limit_of(work: Callable[[], object], dtype: torch.dtype = torch.float32) -> float:
    """Seconds that one call of `work` takes at the least."""
    return count_operations(work) / product_rate(dtype)
