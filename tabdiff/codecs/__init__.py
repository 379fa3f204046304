"""Containers to tensors and back: one codec for each kind of data."""

from tabdiff.codecs.cells.codec import CellCodec
from tabdiff.codecs.cells.multimodal import MultimodalCodec
from tabdiff.codecs.images.codec import ImageCodec
from tabdiff.codecs.images.latent import LatentImageCodec
from tabdiff.codecs.registry import CODECS, codec_name, container_name, is_anndata, make_codec
from tabdiff.codecs.sequences import SequenceCodec
from tabdiff.codecs.tables.array import ArrayCodec
from tabdiff.codecs.tables.codec import TableCodec
from tabdiff.io.images import Images

__all__ = [
    "CODECS",
    "ArrayCodec",
    "CellCodec",
    "ImageCodec",
    "Images",
    "LatentImageCodec",
    "MultimodalCodec",
    "SequenceCodec",
    "TableCodec",
    "codec_name",
    "container_name",
    "is_anndata",
    "make_codec",
]
