"""CSRNet crowd counting: how many people a photograph shows, and where they stand."""

from .counting import CountResult, CrowdCounter
from .images import ImageError, load_image
from .model import CSRNet
from .model_files import ModelError

__version__ = "0.1.0"

__all__ = [
    "CSRNet",
    "CountResult",
    "CrowdCounter",
    "ImageError",
    "ModelError",
    "__version__",
    "load_image",
]
