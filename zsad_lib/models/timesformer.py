"""TimeSformer: a vision transformer whose blocks attend over time first and over space second.

Paper: Bertasius, Wang, Torresani, "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021,
https://arxiv.org/abs/2102.05095, Eq. (1) embedding, (2)-(10) attention and MLP, (11) attention over time.
Official code and weights: https://github.com/facebookresearch/TimeSformer (CC BY-NC 4.0; users download the weights).
Written anew on timm's layers; attention is the fused ``scaled_dot_product_attention``.

Notebook: 10_step_timesformer
"""

import logging
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.layers import Attention, Mlp, PatchEmbed, to_2tuple, trunc_normal_
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zsad_lib.errors import ZsadError
from zsad_lib.models.checkpoints import drop_head, load_strict, official_tensors

log = logging.getLogger(__name__)


class DividedBlock(nn.Module):
    r"""One block with divided space-time attention.

    With x the patch tokens, c the class token, TA attention over the frames of a place, SA over the places of a frame:

        x  <- x + W_fc TA(LN(x))                        Eq. (11), time; W_fc is ``temporal_fc``
        (c_t, y) = SA(LN([c ; x_t])) for each frame t   Eq. (6), space; c goes into every frame
        x  <- x + y,   c <- c + mean_t c_t              the T copies of c are averaged
        z  <- z + MLP(LN(z))  for z = c and x

    The paper's Eq. (11) lets places also attend to c over time; the official code, followed here, does not.

    Args:
        dim: Width D of the tokens.
        num_heads: Attention heads; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.temporal_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.temporal_attn = Attention(dim, num_heads, qkv_bias=True)
        self.temporal_fc = nn.Linear(dim, dim)
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, cls: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class token [B, 1, D] and patch tokens [B, N, T, D] -> the same shapes."""
        B, N, T, D = x.shape
        x = x + self.temporal_fc(self.temporal_attn(self.temporal_norm1(x.flatten(0, 1)))).view(B, N, T, D)
        frames = torch.cat([cls.expand(B, T, D).unsqueeze(2), x.transpose(1, 2)], dim=2)  # [B, T, 1+N, D]
        y = self.attn(self.norm1(frames.flatten(0, 1))).view(B, T, 1 + N, D)
        cls = cls + y[:, :, 0].mean(1, keepdim=True)
        x = x + y[:, :, 1:].transpose(1, 2)
        return cls + self.mlp(self.norm2(cls)), x + self.mlp(self.norm2(x))


class TimeSformer(nn.Module):
    """TimeSformer with divided space-time attention (module docstring: paper, source).

    Args:
        image_size: Height and width of the frames in pixels (one number: square).
        patch_size: Side of a patch in pixels.
        num_frames: Frames T of a window.
        embed_dim: Token width D.
        depth: Number of blocks.
        num_heads: Attention heads.
        num_classes: Classes of the linear head; 0: no head, ``forward`` gives the class token's feature.

    >>> model = TimeSformer(image_size=(16, 24), patch_size=8, num_frames=2, embed_dim=12, depth=1, num_heads=3).eval()
    >>> model(torch.zeros(1, 3, 2, 16, 24)).shape, model.tokens(torch.zeros(1, 3, 2, 16, 24)).shape
    (torch.Size([1, 12]), torch.Size([1, 13, 12]))
    """

    def __init__(
        self,
        image_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        num_frames: int = 8,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(to_2tuple(image_size), patch_size, 3, embed_dim, strict_img_size=False)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.time_embed = nn.Parameter(torch.zeros(1, num_frames, embed_dim))
        self.blocks = nn.ModuleList(DividedBlock(embed_dim, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self.grad_checkpointing = False
        self._reset()

    def _reset(self) -> None:
        """Official initialisation; zero ``temporal_fc`` after the first block starts these as an image transformer."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for table in (self.cls_token, self.pos_embed):
            trunc_normal_(table, std=0.02)
        for block in self.blocks[1:]:
            nn.init.zeros_(block.temporal_fc.weight)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    @torch.no_grad()
    def fold(self) -> "TimeSformer":
        """One product instead of two after the attention over time, for a model that only extracts: W_fc W_proj.

        The features stay the same but for rounding, with 1 / 17 fewer operations in the blocks' linear layers. Folded
        weights are no longer those of an official checkpoint: load first.

        Returns:
            The model itself.
        """
        for block in self.blocks:
            fc, proj = block.temporal_fc, block.temporal_attn.proj
            if isinstance(fc, nn.Linear):
                proj.bias.copy_(fc(proj.bias))
                proj.weight.copy_(fc.weight @ proj.weight)
                block.temporal_fc = nn.Identity()
        return self

    def tokens(self, video: Tensor) -> Tensor:
        """All tokens after the final LayerNorm; Eq. (1): z = W x + e_place + e_time enters the blocks.

        Args:
            video: [B, 3, T, H, W], normalised frames.

        Returns:
            [B, 1 + N*T, D]: the class token, then the patches with the frame running fastest:
            token ``1 + (row * columns + column) * T + t``, as in the official code.

        Raises:
            ZsadError: the video's shape is not the model's.
        """
        expected = (3, self.time_embed.shape[1], *self.patch_embed.img_size)
        if video.dim() != 5 or tuple(video.shape[1:]) != expected:
            raise ZsadError(f"TimeSformer expects video [B, {str(expected)[1:-1]}], got {list(video.shape)}")
        B, _, T, _, _ = video.shape
        x = self.patch_embed(video.transpose(1, 2).flatten(0, 1)).unflatten(0, (B, T))  # [B, T, N, D]
        x = x.transpose(1, 2) + self.pos_embed[:, 1:].unsqueeze(2) + self.time_embed.unsqueeze(1)  # [B, N, T, D]
        x = x.contiguous()
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(B, -1, -1)
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                cls, x = checkpoint(block, cls, x, use_reentrant=False)
            else:
                cls, x = block(cls, x)
        return self.norm(torch.cat([cls, x.flatten(1, 2)], dim=1))

    def features(self, video: Tensor) -> Tensor:
        """Class token's feature: [B, 3, T, H, W] -> [B, D]."""
        return self.tokens(video)[:, 0]

    def forward(self, video: Tensor) -> Tensor:
        """[B, 3, T, H, W] -> features [B, D], or logits [B, num_classes] of a model with a head."""
        return self.head(self.features(video))

    def load_official(self, state_dict: Mapping, resample: bool = False) -> "TimeSformer":
        """Load an official checkpoint; keys may carry the prefixes ``module.`` and ``model.``.

        Args:
            state_dict: The official file's content, or its ``model_state``.
            resample: Fit position and time tables of another length as the official loader does: nearest neighbour
                along the LIST of patches, row after row. That is no image resize: from 224 to 244 pixels (196 to
                225 patches) a single patch keeps its own position, a defect of the released code.

        Returns:
            The model itself.

        Raises:
            ZsadError: missing, unexpected or wrongly shaped tensors, by name; nothing is loaded then.
        """
        tensors, prefix = official_tensors(state_dict, ("module.", "model."))
        if isinstance(self.head, nn.Identity):
            tensors = drop_head(tensors, "head.", "TimeSformer")
        if resample:
            for name, target, first in (("pos_embed", self.pos_embed, 1), ("time_embed", self.time_embed, 0)):
                table = tensors.get(name)
                if table is not None and table.dim() == 3 and table.shape[1] != target.shape[1]:
                    log.warning("TimeSformer: %s resampled from %d to %d rows", name, table.shape[1], target.shape[1])
                    rows = F.interpolate(table[:, first:].mT, size=target.shape[1] - first, mode="nearest").mT
                    tensors[name] = torch.cat([table[:, :first], rows], dim=1)
        load_strict(self, tensors, prefix)
        return self

    @torch.no_grad()
    def set_image_size(self, image_size: int | tuple[int, int]) -> "TimeSformer":
        """Take frames of another size: nearest-neighbour resize of the position GRID, as official at run time.

        Args:
            image_size: New height and width in pixels.

        Returns:
            The model itself.
        """
        grid = self.patch_embed.grid_size
        self.patch_embed.set_input_size(to_2tuple(image_size))
        if self.patch_embed.grid_size != grid:
            log.warning("TimeSformer: position grid resized from %s to %s", grid, self.patch_embed.grid_size)
            places = self.pos_embed[:, 1:].mT.unflatten(2, grid)  # [1, D, h, w]
            places = F.interpolate(places, size=self.patch_embed.grid_size, mode="nearest").flatten(2).mT
            self.pos_embed = nn.Parameter(torch.cat([self.pos_embed[:, :1], places], dim=1))
        return self
