"""Membership-inference attacks, one small file per family; a new file registers itself."""

import pkgutil
from importlib import import_module

from raymia.attacks.base import Attack, NamedAttack, build, register, registry

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Attack", "NamedAttack", "build", "register", "registry"]
