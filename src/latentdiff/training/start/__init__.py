"""Where a training begins: a look at the data, sizes that fit it and the machine, and the recipes of both stages."""
