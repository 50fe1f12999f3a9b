"""The parts of `statistics.stream`: chunks of files, a store of them, and passes over it."""
