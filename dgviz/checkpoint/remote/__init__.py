"""Checkpoints that stay where they are, looked at from afar: headers and single tensors, by ranges of bytes.

What is small (headers, configs, tokenizers) lies in a mirror on this machine, a folder like that of any checkpoint,
in which every weight file ends behind its header. What lies behind is read from its place whenever it is wanted, and
kept nowhere.
"""
