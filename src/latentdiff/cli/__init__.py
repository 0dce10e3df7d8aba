"""The command `latentdiff`: thin, it parses and calls. Nothing here imports torch before a command needs it."""
