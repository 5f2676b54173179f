"""An image as a Jupyter kernel: kernelspecs, the bridge from a client's ports to the kernel's sockets, the life of its container."""
