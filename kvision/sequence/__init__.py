"""Networks of sequences: forecasts of series, and classes of sequences and videos, and captions of images."""

from kvision.sequence._captions import CaptionVariant as CaptionVariant, captioner as captioner
from kvision.sequence._decoding import (
    attention as attention,
    beam as beam,
    encoder as encoder,
    greedy as greedy,
    one_shot as one_shot,
    stepper as stepper,
)
from kvision.sequence._recurrent import (
    RecurrentVariant as RecurrentVariant,
    recurrent_classifier as recurrent_classifier,
)
from kvision.sequence._series import (
    AutoregressiveVariant as AutoregressiveVariant,
    LatentAutoregressiveVariant as LatentAutoregressiveVariant,
    MarkovVariant as MarkovVariant,
    autoregressive as autoregressive,
    forecast as forecast,
    latent_autoregressive as latent_autoregressive,
    markov as markov,
)
from kvision.sequence._transformer import (
    TransformerVariant as TransformerVariant,
    transformer_encoder as transformer_encoder,
)
from kvision.sequence._video import (
    FrameVariant as FrameVariant,
    frame_classifier as frame_classifier,
    streamer as streamer,
)
