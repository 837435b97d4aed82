"""The program: puts workloads, optimizers, framework and tracking together. Imported by nobody."""
