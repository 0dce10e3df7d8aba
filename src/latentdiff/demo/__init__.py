"""The page of `latentdiff demo`: every task with its natural controls, in a browser."""
