"""miue: make image data sets unlearnable with a bounded integer perturbation, and prove whether it works.

The public names stand in `__init__.pyi`. Each is imported when it is first used: `import miue` needs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
