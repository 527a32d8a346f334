"""Passes for a kernel's binary interface: arguments, prints, the sanitizer's checks, the llvm dialect."""
