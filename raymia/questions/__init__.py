"""Questions that are put to models, one registered class each; a new file registers itself.

What runs a model is imported when a question is put, as :mod:`raymia.questions.asking`: to know the
questions takes no model library.
"""

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        import_module(f"{__name__}.{_module.name}")
