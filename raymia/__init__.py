"""raymia: distributed membership-inference audits of generative models."""

__version__ = "0.1.0"
