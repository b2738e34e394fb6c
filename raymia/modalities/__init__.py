"""What differs between kinds of records, and nothing else: a folder for each, which registers it.

A kind from elsewhere is registered by :func:`raymia.inputs.modality.register`.
"""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    if _module.ispkg:
        import_module(f"{__name__}.{_module.name}")
