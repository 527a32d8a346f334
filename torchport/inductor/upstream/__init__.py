"""Where stock Inductor or AOTAutograd gives another answer than eager PyTorch, torchport's correction of it.

One module a kind; ``corrections`` is the table of all of them, docs/upstream.md shows it. Each correction can be turned
off by name, in tests, which then must see the wrong answer: a test that fails says that upstream has mended it.
"""
