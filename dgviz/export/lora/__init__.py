"""A repair as a PEFT LoRA adapter."""
