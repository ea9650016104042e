"""The four networks that speed is measured on: sizes and batch size, by a name that says both."""

NETWORKS = {
    "784-100x4-10 batch 128": ([784, 100, 100, 100, 100, 10], 128),
    "784-512x2-10 batch 128": ([784, 512, 512, 10], 128),
    "784-2048x3-10 batch 1024": ([784, 2048, 2048, 2048, 10], 1024),
    "30-100-2 batch 200": ([30, 100, 2], 200),
}
