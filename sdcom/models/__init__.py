"""Torch modules: the backbones, the gate, the fusion head and their composition."""
