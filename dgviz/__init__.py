"""Look at the singular spectrum of a fine-tuning update and repair it with DG-Hard."""

__version__ = "0.1.0"
