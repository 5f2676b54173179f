"""Dockerfile to image: parser, instructions, expansion, plan, solver, executor."""
