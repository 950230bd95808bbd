"""Benchmarks: the time and traffic of an optimizer's step, and the speed of training with it."""
