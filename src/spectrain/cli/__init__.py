"""The command line; the only layer that imports Hydra."""

from spectrain.cli.sized import register_sized

register_sized()  # resolvers are global, and every way into this room composes or resolves configurations
