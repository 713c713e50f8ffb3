"""The image encoders of CLIP, SigLIP 2 and the Perception Encoder, which were trained on images with captions.

Instead of a classifier, an image encoder may end with a projection to the embedding space of the captions.
"""

from __future__ import annotations

from collections.abc import Iterator

from zoo import Backbone, FeatureLayer, Head, TimmWeights, hookimpl

WIDTH, BLOCKS = 768, 12
LAST = FeatureLayer("fc_norm", WIDTH, pool="flatten")


@hookimpl
def zoo_backbones() -> Iterator[Backbone]:
    """Declare the three encoders, each a ViT-B/16 for images of 224 pixels."""
    yield Backbone(
        name="clip_b",
        title="CLIP ViT-B/16",
        weights=TimmWeights("vit_base_patch16_clip_224.openai"),
        unfreeze=("blocks.11", "norm"),
        head=Head("head"),
        features=(*(FeatureLayer(f"blocks.{block}", WIDTH, pool="cls") for block in range(BLOCKS)), LAST),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2103.00020",
        pretrained_on="WIT-400M",
        imagenet_top1=None,  # CLIP's zero-shot accuracy depends on the captions
        has_classifier=False,
    )
    yield Backbone(
        name="siglip2_b",
        title="SigLIP 2 ViT-B/16",
        weights=TimmWeights("vit_base_patch16_siglip_gap_224.v2_webli"),
        unfreeze=("blocks.11", "norm"),
        head=Head("head", in_features=WIDTH),
        features=(*(FeatureLayer(f"blocks.{block}", WIDTH) for block in range(BLOCKS)), LAST),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2502.14786",
        pretrained_on="WebLI",
        imagenet_top1=None,
        has_classifier=False,
    )
    yield Backbone(
        name="pe_core_b",
        title="Perception Encoder core ViT-B/16",
        weights=TimmWeights("vit_pe_core_base_patch16_224.fb"),
        unfreeze=("blocks.11", "norm"),
        head=Head("head"),
        features=(*(FeatureLayer(f"blocks.{block}", WIDTH, skip=1) for block in range(BLOCKS)), LAST),
        license="apache-2.0",
        paper="https://arxiv.org/abs/2504.13181",
        pretrained_on="MetaCLIP-5B",
        imagenet_top1=None,
        has_classifier=False,
    )
