"""What tests of the lab's experiments share."""

from __future__ import annotations

import argparse

from xpnet import load_digits
from xpnet.lab.experiment import Lab, parser


def lab_on(device, module, seed=0, **options):
    """Return the `Lab` of an experiment on a device, with its default options but these, and without pictures."""
    defaults = vars(parser(module.EXPERIMENT).parse_args(["--quiet"]))
    return Lab(device, None, seed, argparse.Namespace(**(defaults | options)))


def give_digits(monkeypatch):
    """Put the bundled digits in MNIST's place."""
    monkeypatch.setattr("xpnet.lab.experiment.load_named", lambda *a, **k: (load_digits(), None))
