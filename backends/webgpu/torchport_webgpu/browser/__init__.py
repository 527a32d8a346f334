"""Compiled models in a browser: a folder of static files that runs one with the browser's own WebGPU."""
