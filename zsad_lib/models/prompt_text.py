"""Class prompts with learned context (CoOp): "[v_1] ... [v_n] class name." through CLIP's text tower.

Paper: Zhou et al., "Learning to Prompt for Vision-Language Models", 2022, https://arxiv.org/abs/2109.01134, Sec. 3.2.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zsad_lib.models.text import Vocabulary, tokenize


class PromptText(nn.Module):
    """E_T(k) of class names: each class has context vectors v of its own; the tower is frozen but for its projection.

    Args:
        clip: model of `build_clip`, whose text tower is copied.
        class_names: K names; underscores become spaces.
        num_context: n learned vectors before every name.
        vocabulary: the one that the text tower was built with, if its token table is cut.
    """

    def __init__(self, clip: nn.Module, class_names: Sequence[str], num_context: int, vocabulary: Vocabulary | None):
        super().__init__()
        self.token_embedding = copy.deepcopy(clip.token_embedding)
        self.transformer = copy.deepcopy(clip.transformer)
        self.ln_final = copy.deepcopy(clip.ln_final)
        self.positional_embedding = nn.Parameter(clip.positional_embedding.detach().clone())
        self.requires_grad_(False)
        self.text_projection = nn.Parameter(clip.text_projection.detach().clone())
        width = clip.token_embedding.embedding_dim
        self.context = nn.Parameter(0.02 * torch.randn(len(class_names), num_context, width))
        names = [f"{name.replace('_', ' ')}." for name in class_names]
        # the context takes num_context places, and makes up for words that a small vocabulary lacks
        tokens = tokenize(names, clip.context_length - num_context, vocabulary, warn=False)
        tokens = tokens[:, : tokens.argmax(1).max() + 1]  # attention is causal: later padding changes nothing
        length = num_context + tokens.shape[1]
        self.register_buffer("tokens", tokens, persistent=False)
        self.register_buffer("attn_mask", clip.attn_mask[:length, :length].clone(), persistent=False)

    def forward(self) -> Tensor:
        """E_T, [K, D]; not of unit length."""
        words = self.token_embedding(self.tokens)  # [K, L-n, W]: start, name, full stop, end, padding
        x = torch.cat([words[:, :1], self.context, words[:, 1:]], dim=1)  # [K, L, W]
        x = x + self.positional_embedding[: x.shape[1]]
        x = self.ln_final(self.transformer(x, attn_mask=self.attn_mask))
        end = self.tokens.argmax(1) + self.context.shape[1]  # the end of text has the largest id
        return x[torch.arange(len(x)), end] @ self.text_projection
