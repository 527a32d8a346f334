"""Passes that give a kernel its binary interface: arguments, prints, checks, the llvm dialect."""
