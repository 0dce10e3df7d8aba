"""Torch building blocks, which know nothing of configuration files. Parameter names are diffusers' names."""
