"""The engine: every singular value of a weight update, and its triplets, on CPU and GPU alike."""
