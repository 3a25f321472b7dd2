"""Every architecture of the zoo by name, the most telling ones first."""

from language import LANGUAGE_MODELS, MULTIMODAL, SEQUENCE_TO_SEQUENCE, SOUND, TEXT_ENCODERS
from shapes import Architecture
from vision import CONVOLUTIONAL, VISION

ARCHITECTURES: dict[str, Architecture] = {
    architecture.name: architecture
    for architecture in (
        *CONVOLUTIONAL,
        *VISION,
        *TEXT_ENCODERS,
        *LANGUAGE_MODELS,
        *SEQUENCE_TO_SEQUENCE,
        *SOUND,
        *MULTIMODAL,
    )
}
