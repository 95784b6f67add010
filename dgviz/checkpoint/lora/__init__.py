"""PEFT LoRA adapters as the tuned side."""
