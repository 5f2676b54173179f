"""What a container's Python is given: the standard library alone, from Python 3.8 on. ``wire``, ``values`` and ``functions`` have one half
on each side; ``runner``, ``showing`` and ``failing`` run inside alone. The folder is mounted read-only, as a package of its own.
"""
