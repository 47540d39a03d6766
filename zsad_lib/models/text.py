"""CLIP through open_clip: the text tower that turns captions into unit vectors, and small stand-ins of the same class.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020. Code: https://github.com/mlfoundations/open_clip.
The context-aware method uses ViT-B/32, AnomalyCLIP ViT-B/16; both with OpenAI's weights, which were trained with
QuickGELU, x * sigmoid(1.702 x): with plain GELU the features differ and nothing fails.

Notebook: 12_align_prompts
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from zsad_lib.errors import ZsadError
from zsad_lib.models.names import choose

log = logging.getLogger(__name__)

# Valid overrides of `build_clip` -> their place in open_clip's configuration.
_OVERRIDES = {"embed_dim": ("embed_dim",), "quick_gelu": ("quick_gelu",)}
_OVERRIDES |= {f"text_{field.name}": ("text_cfg", field.name) for field in fields(CLIPTextCfg)}
_OVERRIDES |= {f"vision_{field.name}": ("vision_cfg", field.name) for field in fields(CLIPVisionCfg)}

UNKNOWN = 1  # compact id of every word that a vocabulary lacks


def build_clip(name: str, pretrained: str | None = None, **text_or_vision_overrides) -> nn.Module:
    """An open_clip model in eval mode.

    The activation is QuickGELU where OpenAI's weights need it: a pretrained tag decides for itself (``openai`` yes,
    ``laion2b_s34b_b79k`` no); without a tag, architectures that OpenAI published get it, since both methods load
    OpenAI's weights; ``quick_gelu=False`` or ``True`` overrules.

    Args:
        name: Architecture of open_clip, e.g. ``ViT-B-32`` or ``ViT-B-16-quickgelu``.
        pretrained: Tag of open_clip (downloads once), path of a weight file, or None: random weights, no network.
        text_or_vision_overrides: ``embed_dim``, ``quick_gelu``, and the fields of open_clip's ``CLIPTextCfg`` and
            ``CLIPVisionCfg`` behind ``text_`` and ``vision_``, e.g. ``text_width=64, vision_layers=2``.

    Returns:
        Model with ``encode_text``, ``encode_image``, ``context_length``, ``vocab_size``.

    Raises:
        ZsadError: unknown architecture or override (names the nearest); weights that do not fit or cannot be had.

    >>> clip = build_clip("ViT-B-32", embed_dim=16, text_width=32, text_heads=2, text_layers=1, text_vocab_size=50,
    ...     vision_width=64, vision_layers=1, vision_patch_size=8, vision_image_size=(16, 24))
    >>> clip.encode_image(torch.zeros(1, 3, 16, 24)).shape, clip.encode_text(torch.zeros(1, 77, dtype=torch.long)).shape
    (torch.Size([1, 16]), torch.Size([1, 16]))
    """
    choose("CLIP architecture", name, dict.fromkeys(open_clip.list_models()))
    config = open_clip.get_model_config(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags:
        quick_gelu = open_clip.get_pretrained_cfg(name, pretrained).get("quick_gelu", False)
    else:
        quick_gelu = config.get("quick_gelu", False) or "openai" in tags
    config = {"quick_gelu": quick_gelu, "text_cfg": config["text_cfg"], "vision_cfg": config["vision_cfg"]}
    for key, value in text_or_vision_overrides.items():
        *section, field = choose("CLIP override", key, _OVERRIDES)
        (config[section[0]] if section else config)[field] = value
    try:
        with _quiet():
            model = open_clip.create_model(name, pretrained, pretrained_text=False, **config)
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError, ArithmeticError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ZsadError(f"CLIP {name}, pretrained={pretrained!r}, {text_or_vision_overrides}: {reason}") from error
    log.info("CLIP %s: %s", name, "QuickGELU" if config["quick_gelu"] else "GELU")
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns on the root logger that a model without a tag has random weights; here the caller loads them
    next."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


@cache
def _tokenizer() -> SimpleTokenizer:
    """CLIP's byte-pair tokenizer (1.3 MB of merges, read once)."""
    return SimpleTokenizer()


@dataclass(frozen=True)
class Vocabulary:
    """The part of CLIP's 49,408 tokens that a set of captions uses, with compact ids: a small model stays small.

    Compact ids: 0 padding, 1 every unknown token, then the tokens in the order of their CLIP ids, start, end. The end
    of text keeps the largest id, because CLIP's text tower pools at the position of the largest id.

    Args:
        ids: CLIP's ids in use, without padding, start and end; any order.

    >>> words = Vocabulary.of(["a man walks", "a man runs"])
    >>> len(words), words.compact(tokenize(["a man sleeps"], 6)).tolist()
    (8, [[6, 2, 3, 1, 7, 0]])
    """

    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        special = {0, _tokenizer().sot_token_id, _tokenizer().eot_token_id}
        object.__setattr__(self, "ids", tuple(sorted(set(self.ids) - special)))
        if self.ids and not 0 <= self.ids[0] <= self.ids[-1] < _tokenizer().vocab_size:
            raise ZsadError(
                f"vocabulary: CLIP's ids are 0 to {_tokenizer().vocab_size - 1}, got {self.ids[0]} to {self.ids[-1]}"
            )

    @classmethod
    def of(cls, captions: Iterable[str]) -> "Vocabulary":
        """The vocabulary that ``captions`` use."""
        return cls(tuple({token for caption in set(captions) for token in _tokenizer().encode(caption)}))

    def __len__(self) -> int:
        """Rows of the text tower's token table (its ``text_vocab_size``)."""
        return len(self.ids) + 4

    def compact(self, tokens: Tensor, warn: bool = True) -> Tensor:
        """CLIP's ids -> compact ids, any shape; with `warn`, unknown tokens are named in the log."""
        tokenizer = _tokenizer()
        table = torch.full((tokenizer.vocab_size,), UNKNOWN, device=tokens.device)
        table[0] = 0
        for index, token in enumerate((*self.ids, tokenizer.sot_token_id, tokenizer.eot_token_id), start=2):
            table[token] = index
        compact = table[tokens]
        unknown = tokens[compact == UNKNOWN].unique().tolist()
        if unknown and warn:
            log.warning("not in the vocabulary: %s", " ".join(tokenizer.decode([token]).strip() for token in unknown))
        return compact


def tokenize(
    captions: Sequence[str], context_length: int, vocabulary: Vocabulary | None = None, warn: bool = True
) -> Tensor:
    """Captions -> token ids with start, end and zero padding; too long captions are cut, and the log counts them.

    Args:
        captions: K texts.
        context_length: L, places including start and end.
        vocabulary: Gives compact ids; None: CLIP's own.
        warn: Name unknown words in the log.

    Returns:
        [K, L] int64.
    """
    tokens = _tokenizer()(list(captions), context_length + 1)  # one more place shows what does not fit
    long = tokens[:, context_length] != 0
    tokens = tokens[:, :context_length].clone()
    tokens[long, -1] = _tokenizer().eot_token_id
    if long.any():
        log.warning("%d of %d captions cut to %d tokens", long.sum(), len(tokens), context_length)
    return vocabulary.compact(tokens, warn) if vocabulary else tokens


def untokenize(tokens: Tensor) -> str:
    """CLIP's own ids [L] -> text up to the end of text, in small letters, without a full stop.

    >>> untokenize(tokenize(["Road Accidents."], 8)[0])
    'road accidents'
    """
    text = _tokenizer().decode(tokens.tolist()).partition("<end_of_text>")[0]
    return text.replace("<start_of_text>", "").strip(" .")


@torch.no_grad()
def encode_captions(
    clip: nn.Module, captions: Sequence[str], vocabulary: Vocabulary | None = None, batch: int = 256, warn: bool = True
) -> Tensor:
    """Unit text vectors, t = CLIP(caption) / |CLIP(caption)|; a caption that occurs often is encoded once.

    Args:
        clip: Model of `build_clip`.
        captions: K texts, at least one.
        vocabulary: The one that the text tower was built with, if its token table is cut.
        batch: Captions per forward pass.
        warn: Name unknown words in the log.

    Returns:
        [K, D] on the model's device, norm 1 per row, in the order of ``captions``.

    Raises:
        ZsadError: no captions, or a vocabulary of another size than the text tower's table.
    """
    if isinstance(captions, str) or len(captions) == 0:
        raise ZsadError(f"captions must be a list of at least one text, got {captions!r}")
    size = len(vocabulary) if vocabulary else _tokenizer().vocab_size
    if size != clip.vocab_size:
        raise ZsadError(
            f"the text tower has {clip.vocab_size} tokens, the vocabulary {size}; pass the one it was built with"
        )
    index = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    tokens = tokenize(list(index), clip.context_length, vocabulary, warn).to(clip.token_embedding.weight.device)
    vectors = torch.cat([F.normalize(clip.encode_text(ids), dim=-1) for ids in tokens.split(batch)])
    return vectors[[index[caption] for caption in captions]]
