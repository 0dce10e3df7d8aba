"""Torch building blocks: no configuration files, no input or output. Parameter names are diffusers' names."""
